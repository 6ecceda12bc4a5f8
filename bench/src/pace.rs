//! How much to send, and when: closed loop, or an open loop on a fixed schedule.
//!
//! ```text
//!   closed   reserve ─► answer ─► at once
//!   open     due(0) ... due(k) = start + k * batch / rate      whoever is idle takes the next one;
//!                                                              late starts stay late in the figures
//! ```
//!
//! In the open loop a batch's latency counts from the instant at which it was due, also when every
//! client was busy then: a server that stalls for a second is charged for everything that should have
//! been sent in that second. Instants are nanoseconds since the engine's start; this file reads no clock.

use crate::args::Extent;

/// An instant, in nanoseconds since the engine started.
pub type Nanos = u64;

pub const SECOND: Nanos = 1_000_000_000;

/// What an idle client with a batch in hand should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Send; the latency counts from `intended`.
    Now { intended: Nanos },
    /// Nothing is due before this instant.
    At(Nanos),
    /// The time is over.
    Over,
}

/// One phase's supply of batches.
#[derive(Clone, Debug)]
pub struct Pace {
    start: Nanos,
    batch: u32,
    rate: Option<u64>,
    /// Events not yet reserved by a client.
    remaining: Option<u64>,
    /// No batch starts at or after this.
    end: Option<Nanos>,
    /// Batches started on the schedule.
    started: u64,
}

impl Pace {
    pub fn new(start: Nanos, batch: u32, extent: Extent) -> Pace {
        assert!(batch > 0);
        Pace {
            start,
            batch,
            rate: extent.rate,
            remaining: extent.transfers,
            end: extent.duration.map(|duration| {
                start.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
            }),
            started: 0,
        }
    }

    /// Takes the next batch's events out of the supply; `None` when it is used up.
    pub fn reserve(&mut self) -> Option<u32> {
        match &mut self.remaining {
            None => Some(self.batch),
            Some(0) => None,
            Some(remaining) => {
                let events = u64::from(self.batch).min(*remaining);
                *remaining -= events;
                Some(u32::try_from(events).expect("at most a batch, a u32"))
            }
        }
    }

    /// Asks to send a reserved batch.
    pub fn start(&mut self, now: Nanos) -> Start {
        let intended = match self.rate {
            None => now,
            Some(rate) => self.due(self.started, rate),
        };
        if self.end.is_some_and(|end| intended >= end) {
            return Start::Over;
        }
        if intended > now {
            return Start::At(intended);
        }
        self.started += 1;
        Start::Now { intended }
    }

    /// When the next batch should have been sent, if that is already past: the start of a backlog.
    pub fn overdue_since(&self, now: Nanos) -> Option<Nanos> {
        let due = self.due(self.started, self.rate?);
        let open = self.end.is_none_or(|end| due < end) && self.remaining != Some(0);
        (open && due <= now).then_some(due)
    }

    /// Instant of the batch with this number. In 128 bits: a day at 10 million a second overflows 64.
    fn due(&self, number: u64, rate: u64) -> Nanos {
        let events = u128::from(number) * u128::from(self.batch);
        let offset = events * u128::from(SECOND) / u128::from(rate);
        self.start
            .saturating_add(u64::try_from(offset).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pace(
        start: Nanos,
        batch: u32,
        transfers: Option<u64>,
        millis: Option<u64>,
        rate: Option<u64>,
    ) -> Pace {
        let duration = millis.map(Duration::from_millis);
        Pace::new(
            start,
            batch,
            Extent {
                transfers,
                duration,
                rate,
            },
        )
    }

    #[test]
    fn the_supply_ends_with_a_short_batch() {
        let mut pace = pace(0, 40, Some(100), None, None);
        let sizes: Vec<_> = std::iter::from_fn(|| pace.reserve()).collect();
        assert_eq!(sizes, [40, 40, 20]);
        assert_eq!(pace.reserve(), None);
    }

    #[test]
    fn a_closed_loop_intends_the_present() {
        let mut pace = pace(10, 5, None, Some(1), None);
        assert_eq!(pace.reserve(), Some(5));
        assert_eq!(pace.start(77), Start::Now { intended: 77 });
        assert_eq!(pace.overdue_since(77), None);
        assert_eq!(pace.start(10 + 1_000_000), Start::Over);
    }

    #[test]
    fn an_open_loop_keeps_its_schedule_when_the_server_does_not() {
        // 1000 events a second in batches of 100: one batch every 100 ms.
        let mut pace = pace(SECOND, 100, None, None, Some(1000));
        let at = |n: u64| SECOND + n * SECOND / 10;
        assert_eq!(pace.start(SECOND - 1), Start::At(at(0)));
        assert_eq!(pace.start(SECOND), Start::Now { intended: at(0) });
        assert_eq!(pace.start(SECOND + 1), Start::At(at(1)));
        // Nobody came for 350 ms: batches 1 to 3 are late and say so; batch 4 is not due.
        let late = at(3) + SECOND / 20;
        assert_eq!(pace.overdue_since(late), Some(at(1)));
        assert_eq!(pace.start(late), Start::Now { intended: at(1) });
        assert_eq!(pace.start(late), Start::Now { intended: at(2) });
        assert_eq!(pace.start(late), Start::Now { intended: at(3) });
        assert_eq!(pace.overdue_since(late), None);
        assert_eq!(pace.start(late), Start::At(at(4)));
    }

    #[test]
    fn the_schedule_does_not_drift() {
        // A third of a nanosecond is lost in no batch: the millionth is where arithmetic says.
        let mut pace = pace(0, 1, None, None, Some(3_000_000));
        for _ in 0..1_000_000 {
            assert!(matches!(pace.start(SECOND), Start::Now { .. }));
        }
        assert_eq!(pace.start(0), Start::At(SECOND / 3));
    }

    #[test]
    fn a_duration_bounds_the_schedule_not_the_backlog() {
        let mut pace = pace(0, 1, None, Some(1000), Some(10));
        // All ten of the second's batches are still sent, however late.
        let late = 5 * SECOND;
        let mut sent = 0;
        while let Start::Now { .. } = pace.start(late) {
            sent += 1;
        }
        assert_eq!(sent, 10);
        assert_eq!(pace.start(late), Start::Over);
        assert_eq!(pace.overdue_since(late), None);
    }

    #[test]
    fn a_long_fast_run_does_not_overflow() {
        let mut pace = pace(0, 8189, None, None, Some(100_000_000));
        pace.started = u64::from(u32::MAX);
        let expected = u64::from(u32::MAX) * 8189 * 10;
        assert_eq!(pace.start(0), Start::At(expected));
    }
}
