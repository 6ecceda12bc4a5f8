//! What a drill came to, in one structure from which text, JSON and HTML are written.

pub(crate) mod html;
pub(crate) mod text;

use std::path::Path;

use serde::Serialize;
use stampede_bench::machine::Machine;
use stampede_bench::pace::Nanos;

use crate::args::Settings;
use crate::catalog::Drill;
use crate::trouble::Trouble;
use crate::verdict::Audit;

/// Points of a timeline: about as many as a plot has pixels.
const POINTS_MAX: u64 = 1000;
/// The shortest interval of a timeline.
const INTERVAL_NS_MIN: u64 = 10_000_000;

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Mark {
    pub(crate) at_s: f64,
    pub(crate) text: String,
}

/// Samples of one duration, in milliseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Distribution {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
    /// In the order in which they were taken.
    pub(crate) samples: Vec<f64>,
}

impl Distribution {
    pub(crate) fn of(samples: impl Iterator<Item = f64>) -> Option<Self> {
        let samples: Vec<f64> = samples.collect();
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        let max = *sorted.last()?;
        // The nearest rank: of 50 samples, p99 is the largest.
        let rank = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1];
        Some(Self {
            p50: rank(50),
            p99: rank(99),
            max,
            samples,
        })
    }
}

/// Transfers acknowledged in each interval.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Timeline {
    pub(crate) interval_ms: f64,
    pub(crate) acknowledged: Vec<u64>,
}

impl Timeline {
    pub(crate) fn of(acknowledgements: &[(Nanos, u64)], end: Nanos) -> Self {
        // Whole times ten milliseconds.
        let steps = end.div_ceil(INTERVAL_NS_MIN * POINTS_MAX).max(1);
        let interval = INTERVAL_NS_MIN * steps;
        let count = usize::try_from(end / interval).expect("at most POINTS_MAX");
        let mut acknowledged = vec![0; count];
        for (at, transfers) in acknowledgements {
            let index = usize::try_from(at / interval).unwrap_or(usize::MAX);
            if let Some(point) = acknowledged.get_mut(index) {
                *point += transfers;
            }
        }
        Self {
            interval_ms: interval as f64 / 1e6,
            acknowledged,
        }
    }
}

/// Something else that a drill measures, and what it should be.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) aim: Option<Aim>,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Aim {
    AtMost(f64),
    AtLeast(f64),
}

impl Aim {
    fn misses(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value > most,
            Self::AtLeast(least) => value < least,
        }
    }
}

impl std::fmt::Display for Aim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "at most {most}"),
            Self::AtLeast(least) => write!(f, "at least {least}"),
        }
    }
}

impl Figure {
    fn is_missed(&self) -> bool {
        self.aim.is_some_and(|aim| aim.misses(self.value))
    }

    /// `throughput meanwhile 0.83 times (aim: at least 0.5)`
    pub(crate) fn text(&self) -> String {
        let missed = if self.is_missed() { "missed " } else { "" };
        let aim = self.aim.map(|aim| format!(" ({missed}aim: {aim})"));
        let aim = aim.unwrap_or_default();
        // A count has no decimals.
        let decimals = if self.value.fract() == 0.0 { 0 } else { 2 };
        let Self {
            name, value, unit, ..
        } = self;
        format!("{name} {value:.decimals$} {unit}{aim}")
    }
}

/// One drill.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) verdict: Verdict,
    /// Why it is not green.
    pub(crate) complaints: Vec<String>,
    pub(crate) notes: Vec<String>,
    pub(crate) acknowledged: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    /// Batches whose answer never came.
    pub(crate) unknown: u64,
    /// The longest gap without an acknowledgement, in milliseconds, a sample for each run.
    pub(crate) gap: Option<Distribution>,
    pub(crate) gap_aim: Option<f64>,
    pub(crate) recovery: Option<Distribution>,
    pub(crate) recovery_aim: Option<f64>,
    pub(crate) figures: Vec<Figure>,
    pub(crate) seconds: f64,
    pub(crate) marks: Vec<Mark>,
    pub(crate) timeline: Timeline,
    /// Where its data and logs are, if they were left.
    pub(crate) directory: Option<String>,
    #[serde(skip)]
    pub(crate) interrupted: bool,
    #[serde(skip)]
    strict: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Green,
    Red,
    Skipped,
}

impl Verdict {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::Red => "RED",
            Self::Skipped => "skipped",
        }
    }
}

impl Outcome {
    pub(crate) fn new(drill: &Drill, strict: bool) -> Self {
        Self {
            name: drill.name,
            summary: drill.summary,
            verdict: Verdict::Green,
            complaints: Vec::new(),
            notes: Vec::new(),
            acknowledged: 0,
            lost: 0,
            duplicated: 0,
            unknown: 0,
            gap: None,
            gap_aim: drill.gap_ms,
            recovery: None,
            recovery_aim: drill.recovery_ms,
            figures: Vec::new(),
            seconds: 0.0,
            marks: Vec::new(),
            timeline: Timeline::default(),
            directory: None,
            interrupted: false,
            strict,
        }
    }

    pub(crate) fn not_begun(drill: &Drill, trouble: &Trouble) -> Self {
        let mut outcome = Self::new(drill, false);
        outcome.trouble(trouble);
        outcome
    }

    pub(crate) fn trouble(&mut self, trouble: &Trouble) {
        self.verdict = match trouble {
            Trouble::Skipped(_) => Verdict::Skipped,
            Trouble::Failed(_) | Trouble::Interrupted => Verdict::Red,
        };
        self.interrupted |= *trouble == Trouble::Interrupted;
        self.complaints.push(trouble.to_string());
    }

    pub(crate) fn audit(&mut self, audit: &Audit) {
        self.acknowledged = audit.acknowledged;
        self.lost = audit.lost;
        self.duplicated = audit.duplicated;
        self.unknown = audit.unknown;
        for complaint in audit.complaints() {
            self.verdict = Verdict::Red;
            self.complaints.push(complaint);
        }
        if audit.acknowledged == 0 {
            self.verdict = Verdict::Red;
            self.complaints
                .push("nothing was acknowledged, so nothing is proved".into());
        }
    }

    /// After everything has been measured: figures against aims.
    pub(crate) fn close(&mut self) {
        let misses = self.misses();
        if self.strict {
            let missed = self.figures.iter().filter(|figure| figure.is_missed());
            let missed: Vec<String> = misses.into_iter().chain(missed.map(Figure::text)).collect();
            if !missed.is_empty() && self.verdict == Verdict::Green {
                self.verdict = Verdict::Red;
            }
            self.complaints.extend(missed);
        } else {
            self.notes.extend(misses);
        }
        if self.verdict == Verdict::Skipped {
            self.directory = None;
        }
    }

    fn misses(&self) -> Vec<String> {
        let pairs = [
            ("gap p99", &self.gap, self.gap_aim),
            ("recovery p99", &self.recovery, self.recovery_aim),
        ];
        let misses = pairs.into_iter().filter_map(|(name, is, aim)| {
            let (is, aim) = (is.as_ref()?.p99, aim?);
            (is > aim).then(|| format!("{name} of {is:.0} ms misses its aim of {aim:.0} ms"))
        });
        misses.collect()
    }

    pub(crate) fn is_green(&self) -> bool {
        self.verdict == Verdict::Green
    }
}

/// All drills of one command.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) started_unix_s: u64,
    pub(crate) machine: Machine,
    pub(crate) program: String,
    pub(crate) replicas: usize,
    pub(crate) clients: u32,
    pub(crate) batch: u32,
    pub(crate) seed: u64,
    pub(crate) drills: Vec<Outcome>,
}

impl Report {
    pub(crate) fn new(settings: &Settings) -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            started_unix_s: since.map_or(0, |since| since.as_secs()),
            machine: Machine::this(),
            program: settings.program.display().to_string(),
            replicas: settings.replicas,
            clients: settings.clients,
            batch: settings.batch,
            seed: settings.seed,
            drills: Vec::new(),
        }
    }

    pub(crate) fn is_green(&self) -> bool {
        self.drills
            .iter()
            .all(|drill| drill.verdict != Verdict::Red)
    }

    pub(crate) fn write(&self, json: Option<&Path>, html: Option<&Path>) -> Result<(), String> {
        let put = |path: &Path, text: String| {
            std::fs::write(path, text)
                .map_err(|error| format!("cannot write {}: {error}", path.display()))
        };
        if let Some(path) = json {
            let text = serde_json::to_string_pretty(self)
                .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
            put(path, text + "\n")?;
        }
        if let Some(path) = html {
            put(path, html::page(self))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let distribution = |n: u32| Distribution::of((1..=n).map(f64::from)).unwrap();
        let figures = |n| {
            let d = distribution(n);
            (d.p50, d.p99, d.max)
        };
        assert_eq!(figures(1), (1.0, 1.0, 1.0));
        assert_eq!(figures(50), (25.0, 50.0, 50.0));
        assert_eq!(figures(200), (100.0, 198.0, 200.0));
        assert!(Distribution::of(std::iter::empty()).is_none());
    }

    #[test]
    fn timelines_count_what_was_acknowledged() {
        let timeline = Timeline::of(
            &[(0, 7), (5_000_000, 7), (10_000_000, 7), (39_000_000, 7)],
            40_000_000,
        );
        assert_eq!(timeline.acknowledged, [14, 7, 0, 7]);
        let hour = 3_600_000_000_000;
        let timeline = Timeline::of(&[(hour - 1, 1)], hour);
        assert_eq!(timeline.acknowledged.len(), 1000);
        assert_eq!(timeline.acknowledged.iter().sum::<u64>(), 1);
    }

    #[test]
    fn misses_are_notes_unless_aims_are_strict() {
        let close = |strict, max| {
            let mut outcome = Outcome::new(&crate::catalog::ALL[1], strict);
            outcome.gap = Distribution::of([max].into_iter());
            outcome.close();
            (
                outcome.verdict,
                outcome.notes.len(),
                outcome.complaints.len(),
            )
        };
        assert_eq!(close(false, 199.0), (Verdict::Green, 0, 0));
        assert_eq!(close(false, 201.0), (Verdict::Green, 1, 0));
        assert_eq!(close(true, 201.0), (Verdict::Red, 0, 1));
    }
}
