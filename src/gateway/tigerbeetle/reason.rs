//! Why a message was not served, as numbers for counters and words for people.
//!
//! One list for everything that can go wrong at this boundary: layouts (`Refusal`), this server's own conditions, and
//! evictions. Whoever acts on a reason counts it, once.

use stampede_client::wire::{EvictionReason, Refusal};

/// Why a message was not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The message is not one that a correct client sends.
    Refused(Refusal),
    /// The client has heard of a view that this replica has not.
    ViewAhead,
    /// The request carries a timestamp, which only a recovery from a log may do.
    TimestampPresent,
    /// The client was told that its session is over.
    Evicted(EvictionReason),
}

impl Reason {
    /// How many different reasons there are.
    pub const COUNT: usize = Refusal::ALL.len() + 2 + EvictionReason::ALL.len();

    /// Every reason, in the order of `index`.
    pub fn all() -> impl Iterator<Item = Reason> {
        let refusals = Refusal::ALL.iter().copied().map(Reason::Refused);
        let evictions = EvictionReason::ALL.into_iter().map(Reason::Evicted);
        refusals
            .chain([Reason::ViewAhead, Reason::TimestampPresent])
            .chain(evictions)
    }

    /// Dense from 0, for arrays.
    pub const fn index(self) -> usize {
        let own = Refusal::ALL.len();
        match self {
            Reason::Refused(refusal) => refusal as usize,
            Reason::ViewAhead => own,
            Reason::TimestampPresent => own + 1,
            // Reasons on the wire begin at 1.
            Reason::Evicted(reason) => own + 1 + reason as usize,
        }
    }

    /// As metrics and logs spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Refused(refusal) => refusal.name(),
            Reason::ViewAhead => "view_ahead",
            Reason::TimestampPresent => "timestamp_present",
            Reason::Evicted(EvictionReason::NoSession) => "evicted_no_session",
            Reason::Evicted(EvictionReason::ClientReleaseTooLow) => "evicted_release_too_low",
            Reason::Evicted(EvictionReason::ClientReleaseTooHigh) => "evicted_release_too_high",
            Reason::Evicted(EvictionReason::InvalidRequestOperation) => "evicted_operation",
            Reason::Evicted(EvictionReason::InvalidRequestBody) => "evicted_body",
            Reason::Evicted(EvictionReason::InvalidRequestBodySize) => "evicted_body_size",
            Reason::Evicted(EvictionReason::SessionTooLow) => "evicted_session_too_low",
            Reason::Evicted(EvictionReason::SessionReleaseMismatch) => "evicted_session_release",
        }
    }
}

impl From<Refusal> for Reason {
    fn from(refusal: Refusal) -> Self {
        Reason::Refused(refusal)
    }
}

/// How often each reason has come up.
#[derive(Debug, Clone)]
pub struct Counters {
    counts: [u64; Reason::COUNT],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            counts: [0; Reason::COUNT],
        }
    }
}

impl Counters {
    pub fn add(&mut self, reason: Reason) {
        self.counts[reason.index()] += 1;
    }

    pub fn get(&self, reason: Reason) -> u64 {
        self.counts[reason.index()]
    }

    /// Every reason with its count, those at zero included.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::all().map(|reason| (reason, self.get(reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn reasons_are_counted_apart_and_named_apart() {
        let indexes: Vec<_> = Reason::all().map(Reason::index).collect();
        assert_eq!(indexes, (0..Reason::COUNT).collect::<Vec<_>>());
        let names: BTreeSet<_> = Reason::all().map(Reason::name).collect();
        assert_eq!(names.len(), Reason::COUNT);
        let mut counters = Counters::default();
        counters.add(Reason::ViewAhead);
        counters.add(Reason::ViewAhead);
        counters.add(Refusal::BodyChecksum.into());
        let counted: Vec<_> = counters.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(
            counted,
            [(Refusal::BodyChecksum.into(), 1), (Reason::ViewAhead, 2)]
        );
    }
}
