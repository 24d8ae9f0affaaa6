//! Brokers on sockets that say what a test tells them, in the protocol's own bytes.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use bytes::Bytes;
use ottla_protocol::{
    ApiKey, Chunk, GatherOut, Message, Reader, Request, RequestHeader,
    messages::{
        ApiVersionsResponse, MetadataResponse,
        api_versions_response::ApiVersion,
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    },
};
use ottla_types::TopicId;

/// A request as it arrived.
pub(crate) struct Asked {
    pub(crate) header: RequestHeader,
    body: Bytes,
}

impl Asked {
    pub(crate) fn api(&self) -> ApiKey {
        self.header.api_key
    }

    pub(crate) fn body<R: Request>(&self) -> R {
        R::decode(&mut Reader::new(self.body.clone()), self.header.api_version).unwrap()
    }

    /// The bytes that answer it.
    pub(crate) fn with<M: Message>(&self, answer: &M) -> Answer {
        let mut out = GatherOut::new();
        out.response(&self.header, answer).unwrap();
        let mut bytes = Vec::new();
        for chunk in out.finish() {
            let Chunk::Bytes(chunk) = chunk else { panic!("{chunk:?}") };
            bytes.extend_from_slice(&chunk);
        }
        Answer::Bytes(bytes)
    }
}

/// What a broker does about a request.
pub(crate) enum Answer {
    Bytes(Vec<u8>),
    HangUp,
}

/// A broker's address, before anybody serves there.
pub(crate) struct Place {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
}

pub(crate) fn place() -> Place {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    Place { listener, address }
}

/// A broker that serves.
pub(crate) struct Broker {
    address: SocketAddr,
    /// Its connections; none once it is stopped.
    open: Arc<Mutex<Option<Vec<TcpStream>>>>,
    seen: Arc<Mutex<Vec<ApiKey>>>,
}

impl Broker {
    /// Serves what `script` says; ApiVersions it answers by itself, with all that is in `apis`.
    pub(crate) fn serve(
        place: Place,
        apis: &'static [ApiKey],
        script: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Broker {
        let Place { listener, address } = place;
        let open = Arc::new(Mutex::new(Some(Vec::new())));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let broker = Broker { address, open: Arc::clone(&open), seen: Arc::clone(&seen) };
        let script = Arc::new(script);
        thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                match &mut *open.lock().unwrap() {
                    Some(open) => open.push(socket.try_clone().unwrap()),
                    None => return,
                }
                let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                thread::spawn(move || converse(socket, apis, &seen, &*script));
            }
        });
        broker
    }

    /// How often it was asked that.
    pub(crate) fn seen(&self, api: ApiKey) -> usize {
        self.seen.lock().unwrap().iter().filter(|seen| **seen == api).count()
    }

    /// Ends all connections; from now on nothing listens there.
    pub(crate) fn stop(&self) {
        for socket in self.open.lock().unwrap().take().into_iter().flatten() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        // Wakes the thread that accepts, which then leaves; the next one is refused.
        while TcpStream::connect(self.address).is_ok() {}
    }
}

fn converse(
    mut socket: TcpStream,
    apis: &[ApiKey],
    seen: &Mutex<Vec<ApiKey>>,
    script: &(dyn Fn(&Asked) -> Answer + Send + Sync),
) {
    loop {
        let mut length = [0; 4];
        if socket.read_exact(&mut length).is_err() {
            return;
        }
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        if socket.read_exact(&mut frame).is_err() {
            return;
        }
        let frame = Bytes::from(frame);
        let mut reader = Reader::new(frame.clone());
        let header = RequestHeader::decode(&mut reader).unwrap();
        let asked = Asked { header, body: frame.slice(frame.len() - reader.remaining()..) };
        seen.lock().unwrap().push(asked.api());
        let answer = if asked.api() == ApiKey::ApiVersions {
            let version = |api: &ApiKey| ApiVersion {
                api_key: *api as i16,
                min_version: *api.versions().start(),
                max_version: *api.versions().end(),
            };
            asked.with(&ApiVersionsResponse { api_keys: apis.iter().map(version).collect(), ..Default::default() })
        } else {
            script(&asked)
        };
        match answer {
            Answer::Bytes(bytes) if socket.write_all(&bytes).is_ok() => {}
            _ => {
                let _ = socket.shutdown(Shutdown::Both);
                return;
            }
        }
    }
}

/// What brokers say of their cluster: one topic `t` of one partition.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) brokers: Vec<(i32, SocketAddr)>,
    pub(crate) controller: i32,
    pub(crate) leader: i32,
    pub(crate) leader_epoch: i32,
}

/// The id of topic `t`.
pub(crate) fn topic_id() -> TopicId {
    TopicId::from_bytes([7; 16])
}

impl Told {
    pub(crate) fn metadata(&self) -> MetadataResponse {
        let brokers = self.brokers.iter().map(|(id, address)| MetadataResponseBroker {
            node_id: *id,
            host: address.ip().to_string().into(),
            port: i32::from(address.port()),
            ..Default::default()
        });
        let partition = MetadataResponsePartition {
            leader_id: self.leader,
            leader_epoch: self.leader_epoch,
            replica_nodes: vec![1, 2],
            isr_nodes: vec![1, 2],
            ..Default::default()
        };
        let topic = MetadataResponseTopic {
            name: Some("t".into()),
            topic_id: topic_id(),
            partitions: vec![partition],
            ..Default::default()
        };
        MetadataResponse {
            brokers: brokers.collect(),
            cluster_id: Some("c".into()),
            controller_id: self.controller,
            topics: vec![topic],
            ..Default::default()
        }
    }
}
