//! The other world: a cluster under a simulated clock, network and disk. One seed, one run.
//!
//! The replicas are the ones that production runs (`replica`, and everything below it); only what
//! lies outside them is simulated. A run of one seed is the same, event for event, on every machine.
//!
//! | file | holds |
//! | --- | --- |
//! | `random` `queue` `clock` `trace` | chance, what happens next, time, what happened |
//! | `network` `disk` `faults` | what can go wrong between machines, and under them |
//! | `host` `client` `cluster/` | a machine, a client, and all of them together |
//! | `workload` `model` | what clients ask for, and what the answers must be |
//! | `check/` | what must hold in every run |
//! | `options` | how a run is made up |
//!
//! **Simulated**: crashes and power failures at any instant, with every mixture of the sectors of
//! writes in flight and of the files of a checkpoint under way; messages that are late, lost or
//! double; broken connections, partitions, cuts in one direction; processes that pause, machines
//! that are slow, clocks that drift and jump.
//!
//! **Not simulated**, so not found here: damage to what was written (bit rot, misdirected and lost
//! writes), reads that see half of a write, full disks and I/O errors, the io_uring and socket code
//! of `runtime`, threads (the executor and the builder run in place, with a delay), lost superblocks
//! and `recover`, huge pages. Messages are not damaged on the way: checksums are tested and fuzzed
//! by themselves.

mod atlas;
pub mod check;
mod client;
mod clock;
mod cluster;
mod disk;
mod faults;
mod host;
mod model;
mod network;
mod options;
mod queue;
mod random;
mod trace;
mod workload;

pub use check::Violation;
pub use cluster::Simulation;
pub use faults::{Damage, FaultPlan};
pub use host::Speed;
pub use network::Quality;
pub use options::{Options, Report};
pub use queue::{MILLISECOND, SECOND};
pub use trace::{Fingerprint, Lines};
pub use workload::Mixture;
