//! The log as the library asks for it: `RaftLogStorage` and `RaftLogReader` over [`Store`].
//!
//! Nothing here waits but for the disk. An error is final: the library stops, and with it the node (rule L10). Next:
//! `machine.rs`.

use std::{
    cell::RefCell,
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    rc::Rc,
};

use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};

use crate::{
    store::Store,
    types::{Entry, LogId, Types, Vote},
};

/// The most bytes of entries that one append to a peer carries, but for one entry that is larger.
const APPEND_BYTES_MAX: usize = 1 << 20;

#[derive(Clone)]
pub(crate) struct LogStore(pub(crate) Rc<RefCell<Store>>);

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        self.0.borrow().read(from, to, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.0.borrow().read(start, end, APPEND_BYTES_MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.0.borrow().vote())
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let store = self.0.borrow();
        Ok(LogState { last_purged_log_id: store.purged(), last_log_id: store.last() })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.0.borrow_mut().save_vote(*vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.0.borrow_mut().set_committed(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.0.borrow().committed())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.0.borrow_mut().append(entries, callback)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        self.0.borrow_mut().truncate_after(last_log_id)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.0.borrow_mut().purge(log_id)
    }
}
