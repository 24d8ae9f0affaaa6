//! [`Client`]: finds brokers, keeps connections to them, and asks the right one until it answers or time is up.
//!
//! Not here: the bytes of a connection (`connection.rs`) and what is asked (`admin.rs`, `offsets.rs`, `producer.rs`,
//! `consumer.rs`).

use std::{
    borrow::Borrow,
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use bytestring::ByteString;
use ottla_protocol::{
    ApiKey, ErrorCode, Message, Request,
    messages::{MetadataRequest, MetadataResponse, metadata_request::MetadataRequestTopic},
};
use ottla_types::{BrokerId, LeaderEpoch, PartitionIndex};
use parking_lot::Mutex;

use crate::{
    BrokerInfo, Error, TopicInfo, TopicPartition,
    connection::{Connection, Started},
    metadata::{Cluster, Hint},
};

/// The pause before the second try; it doubles from try to try.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How long one broker may take to describe the cluster before another is asked: it may be one that hangs.
const METADATA_MAX: Duration = Duration::from_secs(5);

/// How long things may take.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// Opening one connection, negotiation included.
    pub connect: Duration,
    /// One request, from the first byte to the last of its answer.
    pub request: Duration,
    /// One call, with all its retries.
    pub call: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts { connect: Duration::from_secs(5), request: Duration::from_secs(30), call: Duration::from_secs(60) }
    }
}

/// Which broker a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Whichever answers.
    Any,
    /// The controller, or where the cluster hides it, the broker it names instead.
    Controller,
    /// That one.
    Broker(BrokerId),
}

/// A client of one cluster. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bootstrap: Vec<String>,
    client_id: ByteString,
    timeouts: Timeouts,
    cluster: Arc<Mutex<Cluster>>,
    connections: Mutex<HashMap<String, Arc<Slot>>>,
    /// The client this one was set apart from. It asks about the cluster: on our own connections such a question would
    /// wait behind answers that take their time, such as a fetch's.
    origin: Option<Client>,
}

/// A request under way, and the connection its answer comes by.
pub(crate) struct Underway {
    connection: Arc<Connection>,
    pub(crate) started: Started,
}

/// The connection to one address; the lock is held while it is opened, so that it is opened once.
type Slot = tokio::sync::Mutex<Option<Arc<Connection>>>;

impl Client {
    /// Connects to the first of `bootstrap` (`host:port` each) that answers, and learns the cluster from it.
    ///
    /// # Errors
    /// [`Error::Connect`] when each was tried once and none answered.
    pub async fn connect(bootstrap: &[String], client_id: &str) -> Result<Client, Error> {
        Client::connect_with(bootstrap, client_id, Timeouts::default()).await
    }

    /// As [`Client::connect`], with other timeouts.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_with(bootstrap: &[String], client_id: &str, timeouts: Timeouts) -> Result<Client, Error> {
        let shared = Shared {
            bootstrap: bootstrap.to_vec(),
            client_id: client_id.into(),
            timeouts,
            cluster: Arc::default(),
            connections: Mutex::default(),
            origin: None,
        };
        let client = Client { shared: Arc::new(shared) };
        let mut learnt = client.refresh(Some(&[]), false).await;
        for address in bootstrap {
            // A broker that stops takes a connection and breaks it; another may answer.
            if !matches!(learnt, Err(Error::Disconnected { .. })) {
                break;
            }
            if client.connection_to(address).await.is_ok() {
                learnt = client.refresh(Some(&[]), false).await;
            }
        }
        learnt.map(|_| client)
    }

    /// A client of the same cluster with connections of its own: what waits there holds up nobody here.
    pub(crate) fn apart(&self) -> Client {
        let Shared { bootstrap, client_id, timeouts, cluster, .. } = &*self.shared;
        Client {
            shared: Arc::new(Shared {
                bootstrap: bootstrap.clone(),
                client_id: client_id.clone(),
                timeouts: timeouts.clone(),
                cluster: Arc::clone(cluster),
                connections: Mutex::default(),
                origin: Some(self.origin().clone()),
            }),
        }
    }

    fn origin(&self) -> &Client {
        self.shared.origin.as_ref().unwrap_or(self)
    }

    pub(crate) fn timeouts(&self) -> &Timeouts {
        &self.shared.timeouts
    }

    /// The cluster's id, if it has told one.
    pub fn cluster_id(&self) -> Option<String> {
        self.shared.cluster.lock().id.clone()
    }

    /// The brokers as of the last answer, by ascending id.
    pub fn brokers(&self) -> Vec<BrokerInfo> {
        let mut brokers: Vec<_> = self.shared.cluster.lock().brokers.values().cloned().collect();
        brokers.sort_by_key(|broker| broker.id);
        brokers
    }

    /// A topic as it was last seen, or as the cluster describes it now. Where the cluster creates topics by itself,
    /// this makes it do so if `create` is set. A partition may be without a leader, but not all of them.
    ///
    /// # Errors
    /// The topic does not exist (at the end of the call timeout if it may be created), none of its partitions has a
    /// leader, or no broker answers.
    pub async fn topic(&self, name: &str, create: bool) -> Result<Arc<TopicInfo>, Error> {
        if let Some(topic) = self.shared.cluster.lock().topics.get(name) {
            return Ok(Arc::clone(topic));
        }
        self.retry(|| async {
            let described = self.refresh(Some(&[name]), create).await?.pop();
            match described {
                // Nobody will create it for us, so there is nothing to wait for.
                Some((_, Err(error))) if !create && error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {
                    Ok(Err(error))
                }
                Some((_, Err(error))) => Err(error),
                Some((_, Ok(topic))) if topic.is_offline() => {
                    Err(Error::broker(format!("topic {name}"), ErrorCode::LeaderNotAvailable.code(), None))
                }
                Some((_, Ok(topic))) => Ok(Ok(topic)),
                None => Ok(Err(Error::Invalid(format!("the cluster did not answer for topic {name}")))),
            }
        })
        .await?
    }

    /// What the cluster says of these topics now (`None`: of all of them), in no particular order.
    ///
    /// # Errors
    /// No broker answers.
    pub async fn topics(&self, names: Option<&[&str]>) -> Result<Vec<(String, Result<Arc<TopicInfo>, Error>)>, Error> {
        self.retry(|| self.refresh(names, false)).await
    }

    /// Asks for metadata once and takes it over.
    pub(crate) async fn refresh(
        &self,
        names: Option<&[&str]>,
        create: bool,
    ) -> Result<Vec<(String, Result<Arc<TopicInfo>, Error>)>, Error> {
        let row = |name: &&str| MetadataRequestTopic { name: Some((*name).into()), ..Default::default() };
        let request = MetadataRequest {
            topics: names.map(|names| names.iter().map(row).collect()),
            allow_auto_topic_creation: create,
            ..Default::default()
        };
        let origin = self.origin();
        let underway = origin.start(Target::Any, &request, i16::MAX, true).await?;
        let limit = self.shared.timeouts.request.min(METADATA_MAX);
        let answer: MetadataResponse = origin.finish_within(underway, limit).await?;
        crate::error::check(|| "the cluster's metadata".to_owned(), answer.error_code, None)?;
        Ok(self.shared.cluster.lock().update(&answer))
    }

    /// Forgets a topic that was just changed, so that it is asked for when it is needed.
    pub(crate) fn forget_topic(&self, name: &str) {
        self.shared.cluster.lock().topics.remove(name);
    }

    /// A topic as it was last seen.
    pub(crate) fn known_topic(&self, name: &str) -> Option<Arc<TopicInfo>> {
        self.shared.cluster.lock().topics.get(name).cloned()
    }

    /// Asks about topics again, after a broker said that it does not lead a partition, or did not answer.
    pub(crate) async fn relearn<T: Borrow<str> + Ord>(&self, topics: &BTreeSet<T>) {
        let names: Vec<&str> = topics.iter().map(Borrow::borrow).collect();
        if let Err(error) = self.refresh(Some(&names), false).await {
            tracing::debug!(%error, "metadata could not be refreshed");
        }
    }

    /// Believes what a broker said about where a partition's leadership went, if it is news; whether it is.
    pub(crate) fn moved(&self, at: &TopicPartition, hint: Hint) -> bool {
        self.shared.cluster.lock().moved(at, hint)
    }

    /// Who leads a partition, from what is known.
    pub(crate) fn leader(&self, at: &TopicPartition) -> Result<(BrokerId, Arc<TopicInfo>, LeaderEpoch), Error> {
        self.shared.cluster.lock().leader(at)
    }

    /// Sends one request and decodes its answer, in the newest version that both sides speak; transport errors and
    /// nothing else are tried again. The codes inside the answer are the caller's to read.
    ///
    /// # Errors
    /// No connection, no answer in time, no common version, or an answer that cannot be read.
    pub async fn request<R: Request>(&self, target: Target, request: &R) -> Result<R::Response, Error> {
        self.retry(|| self.request_once(target, request)).await
    }

    pub(crate) async fn request_once<R: Request>(&self, target: Target, request: &R) -> Result<R::Response, Error> {
        self.request_at_most(target, request, i16::MAX).await.map(|(answer, _)| answer)
    }

    /// Sends one request in no version above `newest`, and gives the version with the answer.
    pub(crate) async fn request_at_most<R: Request>(
        &self,
        target: Target,
        request: &R,
        newest: i16,
    ) -> Result<(R::Response, i16), Error> {
        let underway = self.start(target, request, newest, true).await?;
        let version = underway.started.version;
        Ok((self.finish(underway).await?, version))
    }

    /// Sends a request behind those that were started before, without waiting for its answer (`answered`: if it has
    /// one).
    pub(crate) async fn start<R: Request>(
        &self,
        target: Target,
        request: &R,
        newest: i16,
        answered: bool,
    ) -> Result<Underway, Error> {
        let connection = self.connection(target).await?;
        let started = connection.start(request, connection.version(R::API, newest)?, answered).await;
        let started = self.judge(&connection, started).await?;
        Ok(Underway { connection, started })
    }

    /// Waits for the answer.
    pub(crate) async fn finish<M: Message>(&self, underway: Underway) -> Result<M, Error> {
        self.finish_within(underway, self.shared.timeouts.request).await
    }

    async fn finish_within<M: Message>(&self, underway: Underway, limit: Duration) -> Result<M, Error> {
        let Underway { connection, started } = underway;
        let answer = connection.finish(started, limit).await;
        self.judge(&connection, answer).await
    }

    /// Waits until a request that has no answer is sent.
    pub(crate) async fn finish_unanswered(&self, underway: Underway) -> Result<(), Error> {
        let Underway { connection, started } = underway;
        let sent = connection.wait(started, self.shared.timeouts.request).await;
        self.judge(&connection, sent).await.map(drop)
    }

    /// Gives up a connection that broke, or on which whatever comes now would come behind an answer that does not.
    async fn judge<T>(&self, connection: &Arc<Connection>, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(Error::Disconnected { .. } | Error::Timeout { .. }) = &result {
            self.forget(connection).await;
        }
        result
    }

    /// The version of an API that the broker and this client have in common.
    ///
    /// # Errors
    /// None in common, or no connection.
    pub async fn version(&self, target: Target, api: ApiKey) -> Result<i16, Error> {
        self.connection(target).await?.version(api, i16::MAX)
    }

    /// Calls `attempt` until it succeeds, fails for good, or the call timeout is over.
    pub(crate) async fn retry<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let started = Instant::now();
        let mut backoff = BACKOFF_MIN;
        loop {
            let error = match attempt().await {
                Err(error) if error.is_retriable() => error,
                finished => return finished,
            };
            if started.elapsed() + backoff >= self.shared.timeouts.call {
                return Err(Error::Deadline { after: started.elapsed(), last: Arc::new(error) });
            }
            tracing::debug!(%error, ?backoff, "trying again");
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// As `retry`, for what only the leaders of partitions do: asks who leads the topics before a try that follows a
    /// failed one.
    ///
    /// # Errors
    /// Of [`Client::topic`], and of the attempts.
    pub(crate) async fn led<T, F>(&self, topics: &BTreeSet<&str>, attempt: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        for topic in topics {
            self.topic(topic, false).await?;
        }
        self.retry(|| async {
            let result = attempt().await;
            if result.as_ref().is_err_and(Error::is_retriable) {
                self.relearn(topics).await;
            }
            result
        })
        .await
    }

    async fn connection(&self, target: Target) -> Result<Arc<Connection>, Error> {
        if let Some(address) = self.address(target) {
            return self.connection_to(&address).await;
        }
        let Target::Broker(id) = target else { return self.any_connection().await };
        self.refresh_brokers().await?;
        let gone = || {
            let code = ErrorCode::LeaderNotAvailable.code();
            Error::broker(format!("broker {id}"), code, Some("it is not in the cluster"))
        };
        let address = self.address(target).ok_or_else(gone)?;
        self.connection_to(&address).await
    }

    /// The address of a broker that is known, and was not found missing there.
    fn address(&self, target: Target) -> Option<String> {
        let cluster = self.shared.cluster.lock();
        let id = match target {
            Target::Any => return None,
            Target::Controller => cluster.controller?,
            Target::Broker(id) => id,
        };
        cluster.brokers.get(&id).filter(|_| !cluster.suspects.contains(&id)).map(BrokerInfo::address)
    }

    /// Boxed, because a request for metadata needs a connection in turn.
    fn refresh_brokers(&self) -> std::pin::Pin<Box<dyn Future<Output = Result<(), Error>> + Send + '_>> {
        Box::pin(async { self.refresh(Some(&[]), false).await.map(drop) })
    }

    /// The open connection with the fewest requests under way if there is one, else the first that opens: the brokers
    /// learnt, the bootstrap addresses, and last the brokers that were not found where they should be.
    async fn any_connection(&self) -> Result<Arc<Connection>, Error> {
        let slots: Vec<_> = self.shared.connections.lock().values().cloned().collect();
        let open = slots.iter().filter_map(|slot| slot.try_lock().ok()?.clone());
        let idlest = open.filter(|connection| !connection.is_broken()).min_by_key(|connection| connection.in_flight());
        if let Some(connection) = idlest {
            return Ok(connection);
        }
        let (mut addresses, missing): (Vec<String>, Vec<String>) = {
            let cluster = self.shared.cluster.lock();
            let (missing, there): (Vec<_>, Vec<_>) =
                cluster.brokers.values().partition(|broker| cluster.suspects.contains(&broker.id));
            let addresses = |brokers: Vec<&BrokerInfo>| brokers.into_iter().map(BrokerInfo::address).collect();
            (addresses(there), addresses(missing))
        };
        for address in self.shared.bootstrap.iter().filter(|address| !missing.contains(address)) {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        addresses.extend(missing);
        let mut last = Error::Invalid("no bootstrap address was given".to_owned());
        for address in &addresses {
            match self.connection_to(address).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        match last {
            Error::Connect { reason, .. } => Err(Error::Connect { address: addresses.join(", "), reason }),
            other => Err(other),
        }
    }

    async fn connection_to(&self, address: &str) -> Result<Arc<Connection>, Error> {
        let slot = Arc::clone(self.shared.connections.lock().entry(address.to_owned()).or_default());
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref() {
            if !connection.is_broken() {
                return Ok(Arc::clone(connection));
            }
            // It may have been closed to say that something is no longer there: that is how acks=0 is refused.
            self.shared.cluster.lock().suspect(address);
        }
        let Shared { client_id, timeouts, cluster, .. } = &*self.shared;
        let opened = Connection::open(address, client_id, timeouts.connect).await;
        let connection = Arc::new(opened.inspect_err(|_| cluster.lock().suspect(address))?);
        *slot = Some(Arc::clone(&connection));
        Ok(connection)
    }

    async fn forget(&self, connection: &Arc<Connection>) {
        let slot = self.shared.connections.lock().get(connection.address()).cloned();
        if let Some(slot) = slot {
            let mut slot = slot.lock().await;
            if slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, connection)) {
                *slot = None;
                self.shared.cluster.lock().suspect(connection.address());
            }
        }
    }

    /// The partitions of a topic: those asked for, or all of them.
    ///
    /// # Errors
    /// The topic does not exist, or has no such partition.
    pub async fn partitions_of(&self, topic: &str, only: &[PartitionIndex]) -> Result<Vec<TopicPartition>, Error> {
        let info = self.topic(topic, false).await?;
        if let Some(missing) = only.iter().find(|&&index| info.partition(index).is_none()) {
            let last = info.partitions.len().saturating_sub(1);
            return Err(Error::Invalid(format!(
                "topic {topic} has no partition {missing}, its partitions are 0 to {last}"
            )));
        }
        let all = info.partitions.iter().map(|partition| partition.index);
        let wanted = all.filter(|index| only.is_empty() || only.contains(index));
        Ok(wanted.map(|partition| TopicPartition { topic: Arc::clone(&info.name), partition }).collect())
    }
}
