//! The handle on a node of the quorum that runs on a thread of its own, named "consensus".
//!
//! Every call is handed to the thread, which does what has gathered and then waits for more, or for its next timer.
//! What is done and how: `node.rs`.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use bytes::Bytes;
use ottla_log::Checkpoint;
use ottla_types::{BrokerId, LeaderEpoch, Tick};
use parking_lot::Mutex;

use crate::{
    Application, Config, Core, Directory, Reply, Status,
    error::{ChangeError, OpenError, ProposeError, RequestError},
    node::Published,
    runtime::Signal,
};

/// What the thread is to do with its core; without one, it has ended.
type Operation = Box<dyn FnOnce(Option<&mut Core>) + Send>;

/// A node of the quorum. Clones are the same node; the last to be dropped ends its thread without closing the log.
#[derive(Clone)]
pub struct Consensus {
    handle: Arc<Handle>,
}

struct Handle {
    inbox: Arc<Inbox>,
    published: Arc<Published>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

struct Inbox {
    /// None once the thread takes no more.
    operations: Mutex<Option<Vec<Operation>>>,
    signal: Arc<Signal>,
}

impl Consensus {
    /// Opens what is on the disk, applies what is known to be agreed on, and starts the thread. `clock` is monotonic;
    /// `transport` is called on the thread, and must not block it.
    pub fn start(
        config: Config,
        clock: impl Fn() -> Tick + Send + 'static,
        application: Box<dyn Application + Send>,
        transport: impl Fn(BrokerId, Bytes, Reply) + Send + 'static,
    ) -> Result<Consensus, OpenError> {
        let halt = Arc::clone(&config.halt);
        let (opened, open) = mpsc::channel();
        let life = move || {
            let core = match Core::open(config, clock(), application, Box::new(transport)) {
                Ok(core) => core,
                Err(error) => {
                    // Whoever started it has gone away.
                    let _ = opened.send(Err(error));
                    return;
                }
            };
            let inbox = Arc::new(Inbox { operations: Mutex::new(Some(Vec::new())), signal: core.signal() });
            let _ = opened.send(Ok((Arc::clone(&inbox), core.published())));
            if catch_unwind(AssertUnwindSafe(|| run(core, &inbox, &clock))).is_err() {
                halt("the consensus thread has panicked");
            }
            inbox.close().into_iter().for_each(|operation| operation(None));
        };
        let thread = thread::Builder::new().name("consensus".to_owned()).spawn(life);
        let thread = thread.map_err(|error| OpenError::Thread(error.to_string()))?;
        let (inbox, published) = open.recv().map_err(|_| OpenError::Thread("it has panicked".to_owned()))??;
        Ok(Consensus { handle: Arc::new(Handle { inbox, published, thread: Mutex::new(Some(thread)) }) })
    }

    /// Has `payload` agreed on, while this node leads in `term`; see [`Core::propose`]. `done` is called on the
    /// consensus thread; once that has ended, at once.
    pub fn propose(
        &self,
        term: LeaderEpoch,
        payload: Bytes,
        done: impl FnOnce(Result<(), ProposeError>) + Send + 'static,
    ) {
        self.ask(move |core| match core {
            Some(core) => core.propose(term, payload, done),
            None => done(Err(ProposeError::Stopped)),
        });
    }

    /// Makes a new cluster of this node alone, if it has no log yet.
    pub fn bootstrap(&self) {
        self.ask(|core| {
            if let Some(core) = core {
                core.bootstrap();
            }
        });
    }

    /// Takes a peer's request; see [`Core::handle`].
    pub fn handle(&self, request: Bytes, done: impl FnOnce(Result<Bytes, RequestError>) + Send + 'static) {
        self.ask(move |core| match core {
            Some(core) => core.handle(request, done),
            None => done(Err(RequestError::Stopped)),
        });
    }

    /// Makes a node an observer; see [`Core::add_observer`].
    pub fn add_observer(
        &self,
        id: BrokerId,
        directory: Directory,
        done: impl FnOnce(Result<(), ChangeError>) + Send + 'static,
    ) {
        self.ask(move |core| match core {
            Some(core) => core.add_observer(id, directory, done),
            None => done(Err(ChangeError::Stopped)),
        });
    }

    /// Makes these members the voters; see [`Core::set_voters`].
    pub fn set_voters(&self, ids: Vec<BrokerId>, done: impl FnOnce(Result<(), ChangeError>) + Send + 'static) {
        self.ask(move |core| match core {
            Some(core) => core.set_voters(&ids, done),
            None => done(Err(ChangeError::Stopped)),
        });
    }

    /// Removes a member; see [`Core::remove`].
    pub fn remove(&self, id: BrokerId, done: impl FnOnce(Result<(), ChangeError>) + Send + 'static) {
        self.ask(move |core| match core {
            Some(core) => core.remove(id, done),
            None => done(Err(ChangeError::Stopped)),
        });
    }

    /// Asks a voter to take over; see [`Core::transfer_leadership`].
    pub fn transfer_leadership(&self, to: BrokerId, done: impl FnOnce(Result<(), ChangeError>) + Send + 'static) {
        self.ask(move |core| match core {
            Some(core) => core.transfer_leadership(to, done),
            None => done(Err(ChangeError::Stopped)),
        });
    }

    /// The quorum as this node knows it.
    pub fn status(&self) -> Arc<Status> {
        self.handle.published.status.load_full()
    }

    /// Of its log, for the node's checkpoint file.
    pub fn checkpoint(&self) -> Checkpoint {
        self.handle.published.checkpoint.lock().clone()
    }

    /// Ends the thread: syncs and closes the log. False if that is not proved, or was done before. Not to be called on
    /// the consensus thread, for whose end it waits.
    pub fn shut_down(&self) -> bool {
        let (sender, closed) = mpsc::channel();
        self.ask(move |core| {
            let _ = sender.send(core.is_some_and(Core::shut_down));
        });
        let closed = closed.recv().unwrap_or(false);
        let ended = self.handle.thread.lock().take().is_none_or(|thread| thread.join().is_ok());
        closed && ended
    }

    fn ask(&self, operation: impl FnOnce(Option<&mut Core>) + Send + 'static) {
        self.handle.inbox.put(Box::new(operation));
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inbox.close().into_iter().for_each(|operation| operation(None));
        self.inbox.signal.set();
    }
}

impl Inbox {
    fn put(&self, operation: Operation) {
        let mut operations = self.operations.lock();
        match operations.as_mut() {
            Some(operations) => operations.push(operation),
            None => {
                drop(operations);
                return operation(None);
            }
        }
        drop(operations);
        self.signal.set();
    }

    /// What has gathered; `None` once it is closed.
    fn take(&self) -> Option<Vec<Operation>> {
        self.operations.lock().as_mut().map(std::mem::take)
    }

    fn is_empty(&self) -> bool {
        self.operations.lock().as_ref().is_some_and(Vec::is_empty)
    }

    /// Takes no more; returns what nobody has done.
    fn close(&self) -> Vec<Operation> {
        self.operations.lock().take().unwrap_or_default()
    }
}

/// The thread's life.
fn run(mut core: Core, inbox: &Inbox, clock: &impl Fn() -> Tick) {
    while let Some(operations) = inbox.take() {
        // The time is read after what came is taken: nothing is handled at a time before it was sent.
        let now = clock();
        for operation in operations {
            operation(Some(&mut core));
        }
        let Some(deadline) = core.poll(now) else { return };
        if inbox.is_empty() {
            let left = deadline.0.saturating_sub(clock().0);
            inbox.signal.wait(Some(Duration::from_millis(left)));
        }
    }
}
