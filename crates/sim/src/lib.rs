//! A cluster in one thread: virtual time, faulty disks and network, clients, checkers; one seed decides everything.
//!
//! What is simulated is the real thing: `ottla_log` over its simulated disk, `ottla_replica`, `ottla_metadata`. What
//! binds them here is straight code on a queue of events that does what `ottla_node` and `ottla_broker` do with threads
//! and sockets. Those, and the consensus library, are not in it: the metadata log is an ideal one, a sequence of
//! decisions that is agreed on at once, with a controller that may stand still, crash, and move (which takes time and
//! forgets who was heard of), and brokers that hear of each decision when the network lets them.
//!
//! ```
//! let report = ottla_sim::run(&ottla_sim::Options::new(1, 2_000));
//! assert_eq!(report.violation, None);
//! ```
//!
//! Reading order: `plan` (what a seed decides), `world` (the queue), `event`, `broker`, `life`, `controller`,
//! `following`, `serving`, `clients`, `faults`, `truth` and `checks` (what must hold), `ending`; `shrink` for what a
//! failure takes.
#![forbid(unsafe_code)]

mod broker;
mod checks;
mod clients;
mod controller;
mod ending;
mod event;
mod faults;
mod following;
mod life;
mod network;
mod plan;
mod random;
mod report;
mod serving;
mod shrink;
mod trace;
mod truth;
mod world;

pub use plan::{Fault, Options};
pub use report::{MARKS, Report, Tally, Violation};
pub use shrink::shrink;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs one seed to its end, or to the first thing that is wrong. A panic of a machine is wrong, too.
pub fn run(options: &Options) -> Report {
    let mut world = world::World::new(options);
    if catch_unwind(AssertUnwindSafe(|| world.run())).is_err() {
        world.fail("panic", "a machine has stopped itself; its message is above".to_owned());
    }
    world.into_report(options.seed)
}
