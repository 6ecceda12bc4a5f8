//! A progress line on the terminal while something is going on; nothing where there is no terminal.
//!
//! Drawing happens only when the engine ticks, on its thread, a few times a second.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::count_short;
use crate::pace::Nanos;

pub struct Progress {
    bar: ProgressBar,
    goal: Goal,
}

#[derive(Clone, Copy, Debug)]
pub enum Goal {
    Count(u64),
    Time(Duration),
}

impl Progress {
    pub fn hidden() -> Progress {
        Progress {
            bar: ProgressBar::hidden(),
            goal: Goal::Count(0),
        }
    }

    pub fn new(title: &'static str, goal: Goal, visible: bool) -> Progress {
        if !visible {
            return Progress {
                goal,
                ..Progress::hidden()
            };
        }
        let length = match goal {
            Goal::Count(count) => count,
            Goal::Time(time) => u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        };
        let target = ProgressDrawTarget::stderr_with_hz(10);
        let bar = ProgressBar::with_draw_target(Some(length.max(1)), target);
        let style = ProgressStyle::with_template("{prefix:10} {bar:32} {percent:>3}%  {msg}")
            .expect("the template is a constant")
            .progress_chars("━━─");
        bar.set_style(style);
        bar.set_prefix(title);
        Progress { bar, goal }
    }

    pub fn set(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// Of a load: events so far, and the time they took.
    pub fn load(&self, events: u64, elapsed: Nanos) {
        if self.bar.is_hidden() {
            return;
        }
        let seconds = elapsed as f64 / 1e9;
        let rate = events as f64 / seconds.max(1e-3);
        let left = match self.goal {
            Goal::Count(count) => {
                self.bar.set_position(events);
                count.saturating_sub(events) as f64 / rate.max(1.0)
            }
            Goal::Time(time) => {
                self.bar.set_position(elapsed / 1_000_000);
                (time.as_secs_f64() - seconds).max(0.0)
            }
        };
        let total = match self.goal {
            Goal::Count(count) => format!(" of {}", count_short(count)),
            Goal::Time(_) => String::new(),
        };
        self.bar
            .set_message(format!("{events}{total}  {rate:.0}/s  {left:.0} s left"));
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
