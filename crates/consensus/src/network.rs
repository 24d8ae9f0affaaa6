//! How the library reaches a peer: a request's bytes go out through the node's transport, the answer's come back.
//!
//! Nothing is sent here and no connection is held. A transport that never answers costs the time of one request. Next:
//! `node.rs`.

use std::{future::Future, rc::Rc, time::Duration};

use bytes::Bytes;
use openraft::{
    OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
        VoteRequest, VoteResponse,
    },
};
use openraft_rt::{AsyncRuntime, Select2};
use ottla_types::BrokerId;

use crate::{
    Transport, message,
    runtime::Runtime,
    types::{Directory, Peer, Snapshot, Types, Vote},
    wire::Malformed,
};

/// Makes links to peers.
pub(crate) struct Network {
    pub(crate) me: Peer,
    pub(crate) transport: Rc<Transport>,
    /// How long an append with entries may take: more than a heartbeat, which has none.
    pub(crate) patience: Duration,
}

/// The way to one peer.
pub(crate) struct Link {
    me: Peer,
    to: Peer,
    transport: Rc<Transport>,
    patience: Duration,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: BrokerId, node: &Directory) -> Link {
        let to = Peer { id: target, directory: *node };
        Link { me: self.me, to, transport: Rc::clone(&self.transport), patience: self.patience }
    }
}

impl Link {
    async fn call<T>(
        &self,
        what: RPCTypes,
        request: Bytes,
        timeout: Duration,
        decode: impl FnOnce(Bytes) -> Result<T, Malformed>,
    ) -> Result<T, RPCError<Types>> {
        let (reply, answer) = futures_channel::oneshot::channel();
        let reply = move |bytes: Option<Bytes>| {
            // It came too late for anybody.
            let _ = reply.send(bytes);
        };
        (self.transport)(self.to.id, request, Box::new(reply));
        match Runtime::timeout(timeout, answer).await {
            Ok(Ok(Some(bytes))) => decode(bytes).map_err(|error| RPCError::Network(NetworkError::from_string(error.0))),
            Ok(_) => Err(RPCError::Unreachable(Unreachable::from_string("there was no answer"))),
            Err(_) => Err(RPCError::Timeout(Timeout { action: what, id: self.me.id, target: self.to.id, timeout })),
        }
    }
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let timeout = if request.entries.is_empty() { option.hard_ttl() } else { self.patience };
        let bytes = message::append(&self.me, &self.to, &request);
        let answer = self.call(RPCTypes::AppendEntries, bytes, timeout, message::decode_appended).await?;
        if answer.is_conflict() && request.prev_log_id.is_none() {
            return Err(RPCError::Network(NetworkError::from_string("it conflicts with what comes before all")));
        }
        Ok(answer)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let bytes = message::vote(&self.me, &self.to, &request, false);
        self.call(RPCTypes::Vote, bytes, option.hard_ttl(), message::decode_voted).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let bytes = message::vote(&self.me, &self.to, &request, true);
        self.call(RPCTypes::Vote, bytes, option.hard_ttl(), message::decode_voted).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let bytes = message::install(&self.me, &self.to, &vote, &snapshot);
        drop(snapshot);
        let call = self.call(RPCTypes::InstallSnapshot, bytes, option.hard_ttl(), message::decode_installed);
        match Runtime::select2(cancel, call).await {
            Select2::First(closed) => Err(StreamingError::Closed(closed)),
            Select2::Second(answer) => Ok(answer?),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let bytes = message::transfer(&self.me, &self.to, &request);
        self.call(RPCTypes::TransferLeader, bytes, option.hard_ttl(), message::decode_transferred).await
    }
}
