//! What a drill can say: the verbs of its story, and what is measured while it is told.
//!
//! Everything that waits does so in short steps, between which it looks whether a replica has ended by
//! itself, a client has complained, or somebody pressed Ctrl-C; and nothing waits for longer than its
//! patience. Measuring is done afterwards from the clients' books: a verb only notes instants.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use stampede_bench::engine::Clock;
use stampede_bench::pace::Nanos;
use stampede_bench::random::Random;

use crate::args::Settings;
use crate::books::{Books, ClientBooks};
use crate::catalog::Drill;
use crate::cluster::Cluster;
use crate::load::{self, Captive, Load, LoadOptions};
use crate::report::{Distribution, Mark, Outcome, Timeline};
use crate::signal;
use crate::trouble::Trouble;
use crate::verdict::{self, Audit};

/// Between two looks at a condition. Short beside everything that is measured in this way.
const STEP: Duration = Duration::from_millis(1);
/// How long anything may take that a cluster does by itself.
const PATIENCE: Duration = Duration::from_secs(60);
/// Fewer batches than this are no load: a drill under it would prove nothing.
const BATCHES_MIN: u64 = 20;

/// Two instants, and what lies between them.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: Nanos,
    to: Nanos,
}

#[derive(Debug)]
pub(crate) struct Scene {
    drill: &'static Drill,
    settings: Settings,
    clock: Clock,
    directory: PathBuf,
    cluster: Cluster,
    load: Option<Load>,
    random: Random,
    marks: Vec<Mark>,
    gaps: Vec<Span>,
    recoveries: Vec<Span>,
    forbidden: Vec<(Nanos, Nanos)>,
    notes: Vec<String>,
    captives: Vec<ClientBooks>,
}

impl Scene {
    /// A formatted cluster in a directory of its own.
    pub(crate) fn new(drill: &'static Drill, settings: &Settings) -> Result<Self, Trouble> {
        let clock = Clock::start();
        let name = format!("{}-{}", drill.name, std::process::id());
        let directory = settings.directory.join(name);
        if directory.exists() {
            return Err(Trouble::failed(format!(
                "{} is there already: remove it, or name another --dir",
                directory.display()
            )));
        }
        let cluster = Cluster::format(
            &settings.program,
            &directory,
            settings.replicas,
            drill.journal_size,
            clock,
        )?;
        Ok(Self {
            drill,
            settings: settings.clone(),
            clock,
            directory,
            cluster,
            load: None,
            random: Random::new(settings.seed, 0xd1),
            marks: Vec::new(),
            gaps: Vec::new(),
            recoveries: Vec::new(),
            forbidden: Vec::new(),
            notes: Vec::new(),
            captives: Vec::new(),
        })
    }

    // ── the cast ────────────────────────────────────────────────────────────────────────────────

    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.cluster.count()).collect()
    }

    /// The primary of the highest view that clients have heard of.
    pub(crate) fn primary(&self) -> usize {
        let view = self.load.as_ref().map_or(0, Load::view);
        view as usize % self.cluster.count()
    }

    /// All others, in an order that is drawn.
    pub(crate) fn backups(&mut self) -> Vec<usize> {
        let primary = self.primary();
        let mut backups: Vec<usize> = self.all();
        backups.retain(|index| *index != primary);
        let turn = self.random.below(backups.len() as u64);
        backups.rotate_left(usize::try_from(turn).expect("few replicas"));
        backups
    }

    pub(crate) fn any_backup(&mut self) -> usize {
        self.backups()[0]
    }

    pub(crate) fn running(&self) -> usize {
        self.cluster.running()
    }

    pub(crate) fn majority(&self) -> usize {
        self.cluster.majority()
    }

    /// A client that speaks to this replica only.
    pub(crate) fn captive(&mut self, index: usize) -> Result<Captive, Trouble> {
        self.load().captive(self.cluster.options_for_one(index))
    }

    /// Lets a captive go; what it was told is judged with the rest.
    pub(crate) fn release(&mut self, captive: Captive) -> Result<(), Trouble> {
        self.captives.push(captive.finish()?);
        Ok(())
    }

    // ── the story ───────────────────────────────────────────────────────────────────────────────

    /// Starts all replicas and the load, and waits until it flows.
    pub(crate) fn start(&mut self) -> Result<(), Trouble> {
        let all = self.all();
        self.restart(&all)?;
        self.begin_load()
    }

    pub(crate) fn begin_load(&mut self) -> Result<(), Trouble> {
        let options = LoadOptions {
            cluster: self.cluster.options(),
            clients: self.settings.clients,
            batch: self.settings.batch,
        };
        self.load = Some(Load::start(&options, self.clock)?);
        self.wait_until("all clients have a session", |scene| scene.load().is_up())?;
        self.mark("load begins");
        self.wait_until("load flows", |scene| {
            scene.load().acknowledged() >= BATCHES_MIN
        })
    }

    /// Does something as often as was asked for.
    pub(crate) fn repeat(
        &mut self,
        mut once: impl FnMut(&mut Self) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        for _ in 0..self.settings.runs.unwrap_or(self.drill.runs) {
            once(self)?;
        }
        Ok(())
    }

    /// Load, for the time that was asked for.
    pub(crate) fn steady(&mut self) -> Result<(), Trouble> {
        let end = self.now() + nanos(self.settings.steady);
        while self.now() < end {
            self.step()?;
        }
        Ok(())
    }

    /// kill -9, of all of these at once.
    pub(crate) fn kill(&mut self, indexes: &[usize]) {
        self.mark(&format!("kill -9 {}", names(indexes)));
        self.cluster.kill(indexes);
    }

    /// Starts processes; does not wait for them.
    pub(crate) fn restart(&mut self, indexes: &[usize]) -> Result<(), Trouble> {
        self.mark(&format!("start {}", names(indexes)));
        for index in indexes {
            self.cluster.launch(*index)?;
        }
        Ok(())
    }

    /// SIGSTOP.
    pub(crate) fn pause(&mut self, index: usize) {
        self.mark(&format!("SIGSTOP {}", names(&[index])));
        self.cluster.pause(index);
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self, index: usize) {
        self.mark(&format!("SIGCONT {}", names(&[index])));
        self.cluster.resume(index);
    }

    /// Watches for a while in which nothing may be acknowledged that is asked meanwhile.
    pub(crate) fn no_service(&mut self) -> Result<(), Trouble> {
        let span = self.span(|scene| scene.steady())?;
        self.forbidden.push((span.from, span.to));
        Ok(())
    }

    /// Waits until a request is acknowledged that was sent from now on.
    pub(crate) fn service_resumes(&mut self) -> Result<(), Trouble> {
        let now = self.now();
        self.wait_until("a request is acknowledged", |scene| {
            scene.load().serves_since(now)
        })
    }

    /// Waits until a replica says that it serves, in its present life.
    pub(crate) fn serving(&mut self, index: usize) -> Result<(), Trouble> {
        let started = self.cluster.started(index);
        self.wait_until(&format!("replica {index} serves"), |scene| {
            scene.cluster.said(index, " serving: ", started).is_some()
        })
    }

    // ── measuring ───────────────────────────────────────────────────────────────────────────────

    /// The longest gap without an acknowledgement while this happens is one sample.
    pub(crate) fn gap(
        &mut self,
        what: impl FnOnce(&mut Self) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let span = self.span(what)?;
        self.gaps.push(span);
        Ok(())
    }

    /// The time that this takes is one sample of recovery.
    pub(crate) fn recovery(
        &mut self,
        what: impl FnOnce(&mut Self) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let span = self.span(what)?;
        self.recoveries.push(span);
        Ok(())
    }

    fn span(
        &mut self,
        what: impl FnOnce(&mut Self) -> Result<(), Trouble>,
    ) -> Result<Span, Trouble> {
        let from = self.now();
        what(self)?;
        let to = self.now();
        Ok(Span { from, to })
    }

    pub(crate) fn mark(&mut self, text: &str) {
        let at = self.now();
        self.marks.push(Mark {
            at_s: seconds(at),
            text: text.to_owned(),
        });
    }

    // ── waiting ─────────────────────────────────────────────────────────────────────────────────

    fn now(&self) -> Nanos {
        self.clock.now()
    }

    fn load(&self) -> &Load {
        self.load.as_ref().expect("the story begins the load first")
    }

    fn wait_until(
        &mut self,
        what: &str,
        condition: impl FnMut(&Self) -> bool,
    ) -> Result<(), Trouble> {
        self.wait_within(PATIENCE, what, condition)
    }

    pub(crate) fn wait_within(
        &mut self,
        patience: Duration,
        what: &str,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Result<(), Trouble> {
        let end = self.now() + nanos(patience);
        while !condition(self) {
            if self.now() >= end {
                return Err(Trouble::failed(format!(
                    "waited {patience:?} in vain until {what}"
                )));
            }
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Trouble> {
        signal::check()?;
        self.cluster.check()?;
        if let Some(trouble) = self.load.as_ref().and_then(|load| load.troubles().pop()) {
            return Err(Trouble::failed(trouble));
        }
        std::thread::sleep(STEP);
        Ok(())
    }

    // ── the end ─────────────────────────────────────────────────────────────────────────────────

    /// Ends the load, holds the books against the cluster, ends the cluster.
    pub(crate) fn judge(&mut self, played: Result<(), Trouble>) -> Outcome {
        let ended = self.now();
        let mut outcome = Outcome::new(self.drill, self.settings.strict);
        outcome.directory = Some(self.directory.display().to_string());
        if let Err(trouble) = &played {
            outcome.trouble(trouble);
        }
        let mut books = self.load.take().map(Load::finish).unwrap_or_default();
        books.captives = std::mem::take(&mut self.captives);
        // Without a cluster that answers there is nothing to hold the books against.
        if played.is_ok() {
            match self.audit(&books) {
                Ok(audit) => outcome.audit(&audit),
                Err(trouble) => outcome.trouble(&trouble),
            }
        }
        let all = self.all();
        self.cluster.kill(&all);
        self.measure(&mut outcome, &books, ended);
        outcome.close();
        outcome
    }

    fn audit(&self, books: &Books) -> Result<Audit, Trouble> {
        let mut client = load::connect(&self.cluster.options(), PATIENCE)?;
        verdict::audit(books, &self.forbidden, &mut client)
    }

    fn measure(&self, outcome: &mut Outcome, books: &Books, ended: Nanos) {
        let acknowledgements = books.acknowledgements();
        let gap =
            |span: &Span| milliseconds(verdict::longest_gap(&acknowledgements, span.from, span.to));
        let length = |span: &Span| milliseconds(span.to - span.from);
        outcome.gap = Distribution::of(self.gaps.iter().map(gap));
        outcome.recovery = Distribution::of(self.recoveries.iter().map(length));
        outcome.notes.clone_from(&self.notes);
        outcome.seconds = seconds(ended);
        outcome.marks.clone_from(&self.marks);
        outcome.timeline = Timeline::of(&acknowledgements, books.batch, ended);
    }

    /// Removes what the drill has written.
    pub(crate) fn remove(self) {
        // What cannot be removed is in the way of nothing but space, and its owner finds it by name.
        let _ = fs::remove_dir_all(&self.directory);
        let _ = fs::remove_dir(&self.settings.directory);
    }
}

fn names(indexes: &[usize]) -> String {
    let names: Vec<String> = indexes.iter().map(usize::to_string).collect();
    format!("replica {}", names.join(", "))
}

pub(crate) fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e9
}

fn milliseconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e6
}
