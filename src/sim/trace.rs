//! What happened: a fingerprint of the whole run, and its last lines when somebody wants to read.
//!
//! Two runs of one seed have equal fingerprints, or something in the code is not deterministic; the
//! count of events says where to look. Lines are only made when they are kept, so that a run that
//! nobody reads does not pay for them.

use std::collections::VecDeque;
use std::fmt;

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

/// See the module.
#[derive(Debug)]
pub(crate) struct Trace {
    fingerprint: Fingerprint,
    lines: VecDeque<String>,
    lines_max: usize,
}

impl Trace {
    /// Keeps the last `lines_max` lines; 0 keeps none and makes none.
    pub(crate) fn new(lines_max: usize) -> Self {
        Self {
            fingerprint: Fingerprint { hash: 0, events: 0 },
            lines: VecDeque::new(),
            lines_max,
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
        if self.lines_max > 0 {
            if self.lines.len() == self.lines_max {
                self.lines.pop_front();
            }
            let (ms, us) = (at / 1_000_000, at / 1_000 % 1_000);
            self.lines
                .push_back(format!("{ms:7}.{us:03} ms  {}", line()));
        }
    }

    /// The last lines, oldest first.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
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
            let mut trace = Trace::new(0);
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
        let mut trace = Trace::new(2);
        for at in 0..5 {
            trace.record(at * 1_000_000, &[], || format!("event {at}"));
        }
        let lines: Vec<&str> = trace.lines().collect();
        assert_eq!(
            lines,
            ["      3.000 ms  event 3", "      4.000 ms  event 4"]
        );
    }
}
