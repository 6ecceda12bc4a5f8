//! What happened: a fingerprint of the whole run, and its last lines when somebody wants to read.
//!
//! Two runs of one seed have equal fingerprints, or something in the code is not deterministic; the
//! count of events says where to look. Lines are only made when they are kept, so that a run that
//! nobody reads does not pay for them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::queue::Instant;

/// A fingerprint of everything recorded so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    pub hash: u64,
    pub events: u64,
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x} after {} events", self.hash, self.events)
    }
}

/// The last lines of a trace. Clones share them, so that they can be read after the run has panicked.
#[derive(Debug, Clone)]
pub struct Lines {
    lines: Arc<Mutex<VecDeque<String>>>,
    max: usize,
}

impl Lines {
    /// Keeps the last `max` lines.
    pub fn keep(max: usize) -> Self {
        let lines = Arc::default();
        Self { lines, max }
    }

    /// Keeps none, and none are made.
    pub fn none() -> Self {
        Self::keep(0)
    }

    /// The lines, oldest first.
    pub fn text(&self) -> String {
        let lines = self.lock();
        lines
            .iter()
            .flat_map(|line| [line.as_str(), "\n"])
            .collect()
    }

    fn push(&self, line: String) {
        let mut lines = self.lock();
        if lines.len() == self.max {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Trace {
    fingerprint: Fingerprint,
    lines: Lines,
}

impl Trace {
    pub(crate) fn new(lines: Lines) -> Self {
        Self {
            fingerprint: Fingerprint { hash: 0, events: 0 },
            lines,
        }
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Adds an event: the numbers that identify it, and how to say it.
    pub(crate) fn record(&mut self, at: Instant, words: &[u64], line: impl FnOnce() -> String) {
        self.mix(at);
        for word in words {
            self.mix(*word);
        }
        self.fingerprint.events += 1;
        if self.lines.max > 0 {
            let (ms, us) = (at / 1_000_000, at / 1_000 % 1_000);
            self.lines.push(format!("{ms:7}.{us:03} ms  {}", line()));
        }
    }

    fn mix(&mut self, word: u64) {
        let mixed = (self.fingerprint.hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.fingerprint.hash = mixed ^ mixed >> 29;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_content_count() {
        let run = |events: &[(u64, u64)]| {
            let mut trace = Trace::new(Lines::none());
            for (at, word) in events {
                trace.record(*at, &[*word], || unreachable!("nobody reads"));
            }
            trace.fingerprint()
        };
        assert_eq!(run(&[(1, 2), (3, 4)]), run(&[(1, 2), (3, 4)]));
        assert_ne!(run(&[(1, 2), (3, 4)]), run(&[(3, 4), (1, 2)]));
        assert_ne!(run(&[(1, 2)]), run(&[(1, 3)]));
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let lines = Lines::keep(2);
        let mut trace = Trace::new(lines.clone());
        for at in 0..5 {
            trace.record(at * 1_000_000, &[], || format!("event {at}"));
        }
        assert_eq!(
            lines.text(),
            "      3.000 ms  event 3\n      4.000 ms  event 4\n"
        );
    }
}
