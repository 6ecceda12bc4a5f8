//! What must hold in every run, whatever fails: one file for each property.
//!
//! | file | property | source |
//! | --- | --- | --- |
//! | `log` | no two replicas execute different operations at one place, none leaves one out, and cluster time grows | VR Revisited §4, state machine safety |
//! | `one_primary` | a view has one primary, in one life, and one prepare at each place | VR Revisited §4.2 |
//! | `sessions` | a request takes effect at most once | VR Revisited §4, client table |
//! | `acknowledged` | what a client was told is in the log, and stays on every replica | durability |
//! | `replies` | every reply is that of a sequential execution of the log | linearizability (Herlihy and Wing, 1990), given that a reply comes after its request |
//! | `digest` | replicas at one operation have the same state | determinism |
//! | `files` | checkpoints of one operation have the same files | determinism, on the disk |
//! | `liveness` | once faults stop, everything commits and everybody catches up, in bounded time | |
//! | `bounds` | pipeline, queues and log stay within their limits, and buffers come back | |
//!
//! Checkers watch: they draw no random numbers and change nothing, so that adding one does not change
//! any run. The first violation ends the run.

mod acknowledged;
mod bounds;
mod digest;
mod files;
mod liveness;
mod log;
mod one_primary;
mod replies;
mod sessions;

pub use acknowledged::Acknowledged;
pub use bounds::{check_pipeline, check_pool, check_queues};
pub use digest::Digests;
pub use files::Files;
pub use liveness::{Liveness, SETTLES_WITHIN};
pub use log::OneLog;
pub use one_primary::OnePrimary;
pub use replies::Replies;
pub use sessions::AtMostOnce;

/// A property that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{property}: {what}")]
pub struct Violation {
    pub property: &'static str,
    pub what: String,
}

impl Violation {
    pub fn new(property: &'static str, what: impl Into<String>) -> Self {
        Self {
            property,
            what: what.into(),
        }
    }
}

/// Fails with a violation unless the condition holds.
macro_rules! hold {
    ($condition:expr, $property:literal, $($what:tt)+) => {
        if !$condition {
            return Err(crate::sim::check::Violation::new($property, format!($($what)+)));
        }
    };
}

pub(in crate::sim) use hold;
