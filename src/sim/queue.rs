//! What is going to happen: events ordered by time, and by the order in which they were scheduled
//! where the time is the same. That second rule makes a run repeatable.
//!
//! Time only goes forward: nothing can be scheduled in the past.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Nanoseconds of simulated time since the run began.
pub(crate) type Instant = u64;

pub(crate) const MICROSECOND: Instant = 1_000;
pub const MILLISECOND: Instant = 1_000_000;
pub const SECOND: Instant = 1_000_000_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Reverse<Scheduled<E>>>,
    sequence: u64,
    now: Instant,
}

#[derive(Debug)]
struct Scheduled<E> {
    at: Instant,
    sequence: u64,
    event: E,
}

impl<E> Queue<E> {
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// Schedules `event`; a time that has passed means at once.
    pub(crate) fn push(&mut self, at: Instant, event: E) {
        self.heap.push(Reverse(Scheduled {
            at: at.max(self.now),
            sequence: self.sequence,
            event,
        }));
        self.sequence += 1;
    }

    /// What is scheduled for later than `latest` happens then, if `which` says so; the order stays.
    pub(crate) fn bring_forward(&mut self, latest: Instant, which: impl Fn(&E) -> bool) {
        let events = std::mem::take(&mut self.heap).into_vec();
        let hurried = events.into_iter().map(|Reverse(mut next)| {
            if next.at > latest && which(&next.event) {
                next.at = latest;
            }
            Reverse(next)
        });
        self.heap = hurried.collect();
    }

    /// The time of the next event.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(next)| next.at)
    }

    /// Goes to a time before which nothing happens.
    pub(crate) fn advance(&mut self, to: Instant) {
        assert!(
            self.next_at().is_none_or(|at| at >= to),
            "an event was left out"
        );
        self.now = self.now.max(to);
    }

    /// Goes to the next event.
    pub(crate) fn pop(&mut self) -> Option<E> {
        let Reverse(next) = self.heap.pop()?;
        assert!(next.at >= self.now, "time went back");
        self.now = next.at;
        Some(next.event)
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            sequence: 0,
            now: 0,
        }
    }
}

impl<E> Scheduled<E> {
    fn key(&self) -> (Instant, u64) {
        (self.at, self.sequence)
    }
}

impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<E> Eq for Scheduled<E> {}

impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Scheduled<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_then_in_the_order_of_scheduling() {
        let mut queue = Queue::default();
        for (at, event) in [(5, 'c'), (3, 'a'), (5, 'd'), (3, 'b')] {
            queue.push(at, event);
        }
        let order: String = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, "abcd");
        assert_eq!(queue.now(), 5);
    }

    #[test]
    fn what_is_brought_forward_keeps_its_order() {
        let mut queue = Queue::default();
        for (at, event) in [(9, 'b'), (8, 'x'), (20, 'c'), (3, 'a')] {
            queue.push(at, event);
        }
        queue.bring_forward(5, |event| *event != 'x');
        let order: String = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, "abcx");
    }

    #[test]
    fn the_past_is_now() {
        let mut queue = Queue::default();
        queue.push(9, 1);
        assert_eq!(queue.pop(), Some(1));
        queue.push(2, 2);
        assert_eq!(queue.next_at(), Some(9));
    }
}
