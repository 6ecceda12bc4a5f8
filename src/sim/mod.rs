//! The other world: a cluster under a simulated clock, network and disk. One seed, one run.
//!
//! The replicas are the ones that production runs (`replica`, and everything below it); only what
//! lies outside them is simulated. A run of one seed is the same, event for event, on every machine.
//!
//! | file | holds |
//! | --- | --- |
//! | `random` `queue` `clock` `trace` | chance, what happens next, time, what happened |
//! | `network` `disk/` `faults` | what can go wrong between machines, and under them |
//! | `atlas` | how much of it may, so that what replication promises can hold |
//! | `host` `client` `cluster/` | a machine, a client, and all of them together |
//! | `workload` `model` | what clients ask for, and what the answers must be |
//! | `check/` | what must hold in every run |
//! | `transcript` | a conversation, written down for people |
//! | `options` | how a run is made up |
//!
//! **Modes**: `stampede sim` draws everything from the seed (the swarm: a kind of fault may be absent,
//! rare or frequent, because kinds hide each other), runs a light load without faults, to say how
//! fast it is, or spoils answers, to show that it notices; `tests/simulator/` has named scenarios in a small vocabulary, conversations, and fixed seeds
//! twice.
//!
//! **Simulated**: crashes and power failures at any instant, with every mixture of the sectors of
//! writes in flight and of the files of a checkpoint under way, or with the copies of the superblock
//! that were being written spoiled as a whole; single bits that rot, sectors that cannot be read,
//! writes that were lost or went astray, in the journal; bits that rot in superblocks and anywhere in
//! the files of checkpoints; writes that fail or end early, syncs that fail, checkpoints that cannot be
//! written; disks that are full, slow, set back to an older copy, or lost; messages that are late (also
//! in one direction alone), lost, double, overtaken by later ones, or damaged; broken connections;
//! partitions, whole, partial and bridged, cuts in one direction, links that flap; processes that
//! pause, machines that are slow, clocks that drift and jump; replicas of two releases, whose messages
//! have different versions; standbys.
//!
//! **Not simulated**, so not found here: writes to the superblock and to checkpoint files that were
//! lost or went astray, sectors of them that cannot be read, damage beyond what the `atlas` allows,
//! above all to the tail of a journal that nothing behind it proves (no log can tell it from a torn
//! write) and copies of a disk that are made under a running replica; reads that see half of a write,
//! failing reads other than of the journal, the io_uring and socket code of `runtime`, threads (the
//! executor and the builder run in place, with a delay), another release's file formats (a release that
//! cannot read a format refuses to start), huge pages, damage to replies on their way to clients
//! (checksums are tested and fuzzed by themselves).

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
mod transcript;
mod workload;

pub use check::Violation;
pub use cluster::Simulation;
pub use faults::{Damage, FaultPlan, Tally};
pub use host::{Speed, WriteFault};
pub use network::Quality;
pub use options::{Options, Report};
pub use queue::{MILLISECOND, SECOND};
pub use trace::{Fingerprint, Lines};
pub use workload::Mixture;
