//! What was measured, as it is measured: latencies, throughput by interval, stalls, statuses.
//!
//! One [`Figures`] per phase; the engine calls it once per acknowledged batch and nothing allocates
//! then, but for one small entry a second. Latency is that of a *batch*, from the instant at which it
//! was (or should have been) sent to the instant at which its reply had been validated; every event of
//! a batch has the same latency.
//!
//! A *stall* is a time without any acknowledgement while at least one batch was waiting for one.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::pace::{Nanos, SECOND};

/// Interval of the fine series, for runs too short to be plotted by the second.
const FINE: Nanos = SECOND / 20;
/// Entries of the fine series: half a minute.
const FINE_MAX: usize = 600;
/// Entries of the series by the second: a week.
const SECONDS_MAX: usize = 7 * 24 * 3600;
/// Latencies are recorded from a microsecond to an hour, with three significant figures.
const LATENCY_MIN: Nanos = 1_000;
const LATENCY_MAX: Nanos = 3600 * SECOND;

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LATENCY_MIN, LATENCY_MAX, 3).expect("the bounds are constants")
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub min_us: f64,
    pub p1_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub p9999_us: f64,
    pub max_us: f64,
    pub mean_us: f64,
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

impl Latency {
    /// The percentiles to show, by name, in microseconds.
    pub fn columns(&self) -> [(&'static str, f64); 7] {
        [
            ("p1", self.p1_us),
            ("p50", self.p50_us),
            ("p90", self.p90_us),
            ("p99", self.p99_us),
            ("p99.9", self.p999_us),
            ("p99.99", self.p9999_us),
            ("max", self.max_us),
        ]
    }

    pub fn of(histogram: &Histogram<u64>) -> Latency {
        let at = |quantile| micros(histogram.value_at_quantile(quantile));
        Latency {
            min_us: micros(histogram.min()),
            p1_us: at(0.01),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            p9999_us: at(0.9999),
            max_us: micros(histogram.max()),
            mean_us: histogram.mean() / 1000.0,
        }
    }
}

/// One interval of a series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub events: u64,
    pub batches: u64,
    pub p1_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

/// Throughput and latency by interval; an interval without acknowledgements is an entry of zeros.
#[derive(Clone, Debug)]
pub struct Series {
    interval: Nanos,
    capacity: usize,
    points: Vec<Point>,
    current: Histogram<u64>,
    events: u64,
    /// There was more than fits.
    cut: bool,
}

impl Series {
    fn new(interval: Nanos, capacity: usize) -> Series {
        Series {
            interval,
            capacity,
            points: Vec::with_capacity(capacity.min(FINE_MAX)),
            current: histogram(),
            events: 0,
            cut: false,
        }
    }

    /// `at` counts from the phase's start and does not decrease.
    fn record(&mut self, at: Nanos, latency: Nanos, events: u64) {
        self.roll(at);
        if !self.cut {
            self.current.saturating_record(latency);
            self.events += events;
        }
    }

    /// Closes the intervals that ended before `at`.
    fn roll(&mut self, at: Nanos) {
        while !self.cut && at >= (self.points.len() as u64 + 1) * self.interval {
            self.close();
        }
    }

    fn close(&mut self) {
        if self.points.len() == self.capacity {
            self.cut = true;
            return;
        }
        let histogram = &self.current;
        let point = if histogram.is_empty() {
            Point::default()
        } else {
            let latency = Latency::of(histogram);
            Point {
                events: self.events,
                batches: histogram.len(),
                p1_us: latency.p1_us,
                p50_us: latency.p50_us,
                p90_us: latency.p90_us,
                p99_us: latency.p99_us,
                p999_us: latency.p999_us,
                max_us: latency.max_us,
            }
        };
        self.points.push(point);
        self.current.reset();
        self.events = 0;
    }

    /// The series up to `elapsed`: whole intervals, and the incomplete last one unless it is empty.
    fn finish(mut self, elapsed: Nanos) -> SeriesReport {
        self.roll(elapsed);
        let whole = self.points.len();
        if !self.cut && !self.current.is_empty() {
            self.close();
        }
        SeriesReport {
            interval_ms: self.interval as f64 / 1e6,
            whole,
            cut: self.cut,
            points: self.points,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SeriesReport {
    pub interval_ms: f64,
    /// The first so many points are complete intervals; at most one more follows.
    pub whole: usize,
    /// The run was longer than the series can be.
    pub cut: bool,
    pub points: Vec<Point>,
}

/// Throughput over the complete seconds of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BySecond {
    pub seconds: usize,
    pub min: u64,
    pub median: u64,
    pub max: u64,
}

impl SeriesReport {
    pub fn by_second(&self) -> Option<BySecond> {
        let mut events: Vec<u64> = self.points[..self.whole]
            .iter()
            .map(|point| point.events)
            .collect();
        events.sort_unstable();
        let (&min, &max) = (events.first()?, events.last()?);
        Some(BySecond {
            seconds: events.len(),
            min,
            median: events[events.len() / 2],
            max,
        })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stall {
    pub longest_ms: f64,
    /// When it began, counted from the start of the measurement.
    pub at_s: f64,
}

/// The running figures of one phase.
#[derive(Clone, Debug)]
pub struct Figures {
    start: Nanos,
    latency: Histogram<u64>,
    fine: Series,
    seconds: Series,
    events: u64,
    batches: u64,
    /// From when the present time without acknowledgements counts, if anybody is waiting.
    quiet_since: Option<Nanos>,
    stall: Nanos,
    stall_at: Nanos,
    /// Events that were not created, by status code.
    unexpected: BTreeMap<u32, u64>,
}

impl Figures {
    pub fn new(start: Nanos) -> Figures {
        Figures {
            start,
            latency: histogram(),
            fine: Series::new(FINE, FINE_MAX),
            seconds: Series::new(SECOND, SECONDS_MAX),
            events: 0,
            batches: 0,
            quiet_since: None,
            stall: 0,
            stall_at: 0,
            unexpected: BTreeMap::new(),
        }
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    pub fn batches(&self) -> u64 {
        self.batches
    }

    pub fn start(&self) -> Nanos {
        self.start
    }

    /// Somebody waits for an acknowledgement since `since`; repeating it changes nothing.
    pub fn on_waiting(&mut self, since: Nanos) {
        self.quiet_since.get_or_insert(since);
    }

    /// A batch was acknowledged at `now`. `waiting_since` is when the longest waiter among the
    /// remaining batches began to wait, if there is one.
    pub fn on_acknowledged(
        &mut self,
        now: Nanos,
        intended: Nanos,
        events: u32,
        waiting_since: Option<Nanos>,
    ) {
        self.end_quiet(now);
        // What waits longer than since the last acknowledgement has not been stalled by more than
        // that: other batches were answered meanwhile.
        self.quiet_since = waiting_since.map(|since| since.max(now));
        let latency = now.saturating_sub(intended);
        let at = now.saturating_sub(self.start);
        self.latency.saturating_record(latency);
        self.fine.record(at, latency, u64::from(events));
        self.seconds.record(at, latency, u64::from(events));
        self.events += u64::from(events);
        self.batches += 1;
    }

    /// An event was answered with something other than `created`.
    pub fn on_unexpected(&mut self, status: u32) {
        *self.unexpected.entry(status).or_insert(0) += 1;
    }

    pub fn unexpected(&self) -> &BTreeMap<u32, u64> {
        &self.unexpected
    }

    fn end_quiet(&mut self, now: Nanos) {
        if let Some(since) = self.quiet_since.take() {
            let quiet = now.saturating_sub(since);
            if quiet > self.stall {
                self.stall = quiet;
                self.stall_at = since.saturating_sub(self.start);
            }
        }
    }

    /// Ends the phase at `now`.
    pub fn finish(mut self, now: Nanos) -> FiguresReport {
        self.end_quiet(now);
        let elapsed = now.saturating_sub(self.start).max(1);
        let curve = curve(&self.latency);
        FiguresReport {
            elapsed_s: elapsed as f64 / 1e9,
            events: self.events,
            batches: self.batches,
            events_per_s: self.events as f64 * 1e9 / elapsed as f64,
            latency: Latency::of(&self.latency),
            curve,
            stall: Stall {
                longest_ms: self.stall as f64 / 1e6,
                at_s: self.stall_at as f64 / 1e9,
            },
            seconds: self.seconds.finish(elapsed),
            fine: self.fine.finish(elapsed),
        }
    }
}

/// Points of the percentile curve: denser towards the tail, where every further nine is one step.
fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    if histogram.is_empty() {
        return Vec::new();
    }
    histogram
        .iter_quantiles(5)
        .map(|step| {
            (
                step.quantile_iterated_to(),
                micros(step.value_iterated_to()),
            )
        })
        .collect()
}

/// The figures of a finished phase, as they are stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FiguresReport {
    pub elapsed_s: f64,
    pub events: u64,
    pub batches: u64,
    pub events_per_s: f64,
    pub latency: Latency,
    /// Pairs of quantile (0 to 1) and latency in microseconds.
    pub curve: Vec<(f64, f64)>,
    pub stall: Stall,
    pub seconds: SeriesReport,
    pub fine: SeriesReport,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    #[test]
    fn percentiles_of_a_known_distribution() {
        let mut figures = Figures::new(5 * SECOND);
        // 1 to 10,000 us, once each.
        for micros in 1..=10_000_u64 {
            let now = 5 * SECOND + micros * 100_000;
            figures.on_acknowledged(now, now - micros * 1000, 10, None);
        }
        let report = figures.finish(6 * SECOND);
        assert_eq!((report.events, report.batches), (100_000, 10_000));
        assert!((report.events_per_s - 100_000.0).abs() < 0.1);
        let latency = report.latency;
        for (found, expected) in [
            (latency.p1_us, 100.0),
            (latency.p50_us, 5_000.0),
            (latency.p90_us, 9_000.0),
            (latency.p99_us, 9_900.0),
            (latency.p999_us, 9_990.0),
            (latency.p9999_us, 9_999.0),
            (latency.max_us, 10_000.0),
            (latency.mean_us, 5_000.5),
        ] {
            assert!(
                (found / expected - 1.0).abs() < 0.005,
                "{found} instead of {expected}"
            );
        }
        assert!(report.curve.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1));
        assert!((report.curve.last().unwrap().0 - 1.0).abs() < 1e-9);
    }

    #[test]
    fn seconds_without_acknowledgements_are_zeros() {
        let mut figures = Figures::new(0);
        for at in [100, 900, 3_500, 4_100] {
            figures.on_acknowledged(at * MS, (at - 50) * MS, 7, None);
        }
        let report = figures.finish(4_200 * MS);
        let events: Vec<u64> = report
            .seconds
            .points
            .iter()
            .map(|point| point.events)
            .collect();
        assert_eq!(events, [14, 0, 0, 7, 7]);
        assert_eq!(report.seconds.whole, 4);
        assert_eq!(
            report.seconds.by_second(),
            Some(BySecond {
                seconds: 4,
                min: 0,
                median: 7,
                max: 14
            })
        );
        assert_eq!((report.fine.whole, report.fine.points.len()), (84, 84));
        let first = report.seconds.points[0];
        assert!((first.p50_us / 50_000.0 - 1.0).abs() < 0.01);
    }

    #[test]
    fn a_run_below_a_second_has_no_whole_second() {
        let mut figures = Figures::new(0);
        figures.on_acknowledged(10 * MS, 5 * MS, 100, None);
        let report = figures.finish(10 * MS);
        assert_eq!(report.seconds.by_second(), None);
        assert_eq!(report.seconds.points.len(), 1);
    }

    #[test]
    fn stalls_count_only_while_somebody_waits() {
        let mut figures = Figures::new(0);
        figures.on_waiting(0);
        figures.on_acknowledged(20 * MS, 0, 1, None);
        // Nothing is due for a second: no stall.
        figures.on_waiting(1_000 * MS);
        figures.on_waiting(1_030 * MS);
        // The first of two answers after 50 ms, the second 80 ms later.
        figures.on_acknowledged(1_050 * MS, 1_000 * MS, 1, Some(1_030 * MS));
        figures.on_acknowledged(1_130 * MS, 1_030 * MS, 1, None);
        let report = figures.finish(2_000 * MS);
        assert!((report.stall.longest_ms - 80.0).abs() < 1e-6);
        assert!((report.stall.at_s - 1.05).abs() < 1e-6);
    }

    #[test]
    fn a_stall_may_last_until_the_end() {
        let mut figures = Figures::new(0);
        figures.on_waiting(0);
        figures.on_acknowledged(20 * MS, 0, 1, Some(10 * MS));
        assert!((figures.finish(520 * MS).stall.longest_ms - 500.0).abs() < 1e-6);
    }

    #[test]
    fn the_fine_series_gives_up_on_long_runs() {
        let mut figures = Figures::new(0);
        figures.on_acknowledged(MS, 0, 1, None);
        figures.on_acknowledged(40 * SECOND, 0, 1, None);
        let report = figures.finish(40 * SECOND);
        assert!(report.fine.cut && report.fine.points.len() == FINE_MAX);
        assert!(!report.seconds.cut && report.seconds.points.len() == 41);
    }
}
