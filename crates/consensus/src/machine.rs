//! What is agreed on, applied: `RaftStateMachine` over the node's [`Application`].
//!
//! Entries come in log order. A proposal that lies in another term than it was decided in is skipped, by every node
//! alike. Snapshots are made here and kept by [`Store`]. Next: `network.rs`.

use std::{cell::RefCell, io, rc::Rc};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use openraft::{
    OptionalSend, RaftSnapshotBuilder,
    storage::{EntryResponder, RaftStateMachine},
};

use crate::{
    Application, snapshot,
    store::Store,
    types::{LogId, Payload, Snapshot, SnapshotMeta, StoredMembership, Types, Verdict, term_of},
};

/// The application's part of a snapshot; the rest is who is in the cluster.
const APPLICATION_BYTES_MAX: usize = snapshot::BYTES_MAX - (1 << 20);

/// The application, which its status is told to as well.
pub(crate) type SharedApplication = Rc<RefCell<Box<dyn Application>>>;

pub(crate) struct Machine {
    store: Rc<RefCell<Store>>,
    application: SharedApplication,
    applied: Option<LogId>,
    membership: StoredMembership,
}

/// A snapshot that was made; the library asks for it in a second step.
pub(crate) struct Made(Result<Snapshot, io::Error>);

impl Machine {
    /// One that holds what the snapshot does.
    ///
    /// # Errors
    /// What the application says of it.
    pub(crate) fn new(
        store: Rc<RefCell<Store>>,
        application: SharedApplication,
        snapshot: Option<Snapshot>,
    ) -> Result<Machine, String> {
        let (mut applied, mut membership) = (None, StoredMembership::default());
        if let Some(snapshot) = snapshot {
            application.borrow_mut().restore(&snapshot.snapshot)?;
            (applied, membership) = (snapshot.meta.last_log_id, snapshot.meta.last_membership);
        }
        Ok(Machine { store, application, applied, membership })
    }

    fn snapshot(&self) -> Snapshot {
        let meta = SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() };
        Snapshot { meta, snapshot: self.application.borrow().snapshot() }
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Made;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let verdict = match entry.payload {
                Payload::Normal(proposal) if proposal.term.0 != term_of(&entry.log_id) => Verdict::Skipped,
                Payload::Normal(proposal) => {
                    self.application.borrow_mut().apply(&proposal.payload);
                    Verdict::Applied
                }
                Payload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Verdict::Applied
                }
                Payload::Blank => Verdict::Applied,
            };
            self.applied = Some(entry.log_id);
            if let Some(responder) = responder {
                responder.send(verdict);
            }
        }
        Ok(())
    }

    /// Makes the snapshot at once. There is none where it is too large or finds no room: the log goes on as it is.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Made> {
        let snapshot = self.snapshot();
        let mut store = self.store.borrow_mut();
        store.snapshot_was_tried();
        let unfit = self.applied.is_none() || snapshot.snapshot.len() > APPLICATION_BYTES_MAX;
        if unfit && !force {
            return None;
        }
        match store.write_snapshot(&snapshot.meta, &snapshot.snapshot) {
            Err(error) if is_want_of_room(&error) && !force => None,
            written => Some(Made(written.map(|()| snapshot))),
        }
    }

    async fn get_snapshot_builder(&mut self) -> Made {
        let snapshot = self.snapshot();
        let written = self.store.borrow_mut().write_snapshot(&snapshot.meta, &snapshot.snapshot);
        Made(written.map(|()| snapshot))
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> Result<(), io::Error> {
        // One that the application can't take must not become the one to start from.
        self.application.borrow_mut().restore(&snapshot).map_err(io::Error::other)?;
        self.store.borrow_mut().write_snapshot(meta, &snapshot)?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        self.store.borrow().read_snapshot()
    }
}

impl RaftSnapshotBuilder<Types> for Made {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        std::mem::replace(&mut self.0, Err(io::Error::other("the snapshot was asked for twice")))
    }
}

/// Neither loses anything: there may be room later. A sync that failed is never one of them.
fn is_want_of_room(error: &io::Error) -> bool {
    const NO_DESCRIPTOR: [i32; 2] = [23, 24];
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        || error.raw_os_error().is_some_and(|code| NO_DESCRIPTOR.contains(&code))
}
