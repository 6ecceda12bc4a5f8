//! What a drill can say: the verbs of its story, and what is measured while it is told.
//!
//! Everything that waits does so in short steps, between which it looks whether a replica has ended by
//! itself, a client has complained, or somebody pressed Ctrl-C; and nothing waits for longer than its
//! patience. Measuring is done afterwards from the clients' books: a verb only notes instants.

mod guests;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use stampede_bench::engine::Clock;
use stampede_bench::pace::Nanos;
use stampede_bench::random::Random;

use crate::args::Settings;
use crate::books::{self, Books, ClientBooks};
use crate::catalog::Drill;
use crate::cluster::{Cluster, Entry};
use crate::disks::{self, Throttle};
use crate::guests::Guests;
use crate::load::{self, Captive, Load, LoadOptions, PRELOADERS};
use crate::report::{Aim, Distribution, Figure, Mark, Outcome, Timeline};
use crate::signal;
use crate::trouble::Trouble;
use crate::verdict::{self, Audit};

/// Between two looks at a condition. Short beside everything that is measured in this way.
const STEP: Duration = Duration::from_millis(1);
/// How long anything may take that a cluster does by itself.
const PATIENCE: Duration = Duration::from_secs(60);
/// And what moves much data.
const PATIENCE_LONG: Duration = Duration::from_secs(180);
/// How long a read may take that needs nothing but a majority's memory.
const PATIENCE_READ: Duration = Duration::from_secs(5);
/// Without any acknowledgement for so long, service has stopped.
const SILENCE: Duration = Duration::from_millis(1500);
/// Bytes of a journal entry in which bits are flipped: header and payload of the smallest batch, not
/// the padding behind them.
const ENTRY_BYTES: u64 = 384;

/// Of a segment's file, so many at least.
const SEGMENT_BYTES: u64 = 1 << 20;
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
    guests: Guests,
    figures: Vec<Measure>,
    throttle: Option<Throttle>,
    mounts: Vec<PathBuf>,
}

/// What is compared when the books are closed.
#[derive(Clone, Copy, Debug)]
enum Measure {
    Latency {
        before: Span,
        meanwhile: Span,
        aim: f64,
    },
    Throughput {
        before: Span,
        meanwhile: Span,
        aim: f64,
    },
    /// Under way, told of by the primary that dies, and by the next one.
    Evictions {
        clients: u32,
        sessions: u32,
        under_way: usize,
        before: usize,
        after: usize,
    },
}

impl Measure {
    fn figure(&self, books: &Books, acknowledgements: &[(Nanos, u64)]) -> Figure {
        match *self {
            Self::Latency {
                before,
                meanwhile,
                aim,
            } => {
                let p99 = |span: Span| {
                    let latencies = books.latencies(span.from, span.to);
                    let rank = (latencies.len() * 99).div_ceil(100).max(1) - 1;
                    latencies
                        .get(rank)
                        .map_or(f64::NAN, |nanos| milliseconds(*nanos))
                };
                let (before, meanwhile) = (p99(before), p99(meanwhile));
                Figure {
                    name: format!("p99 of a batch {before:.2} ms, meanwhile {meanwhile:.2} ms:"),
                    value: meanwhile / before,
                    unit: "times",
                    aim: Some(Aim::AtMost(aim)),
                }
            }
            Self::Throughput {
                before,
                meanwhile,
                aim,
            } => {
                let rate = |span: Span| verdict::rate(acknowledgements, span.from, span.to);
                let (before, meanwhile) = (rate(before), rate(meanwhile));
                Figure {
                    name: format!("{before:.0} transfers/s, meanwhile {meanwhile:.0}:"),
                    value: meanwhile / before,
                    unit: "times",
                    aim: Some(Aim::AtLeast(aim)),
                }
            }
            Self::Evictions {
                clients,
                sessions,
                under_way,
                before,
                after,
            } => Figure {
                name: format!(
                    "{clients} clients with {sessions} sessions, {under_way} told while it spoke, {before} told and back with the first primary, {after} with the next:"
                ),
                value: (under_way + before + after) as f64,
                unit: "evictions",
                aim: None,
            },
        }
    }
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
        let cluster = Cluster::new(settings, &directory, drill, clock)?;
        // Their accounts follow those of the load.
        let first = settings.clients + PRELOADERS;
        let guests = Guests::new(drill.seats.unwrap_or(0), first, settings.batch, clock);
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
            guests,
            figures: Vec::new(),
            throttle: None,
            mounts: Vec::new(),
        })
    }

    // ── the stage ───────────────────────────────────────────────────────────────────────────────

    /// Links between replicas that can be cut.
    pub(crate) fn lay_links(&mut self) -> Result<(), Trouble> {
        let note = self.cluster.lay_links(!self.settings.relay)?;
        self.notes.extend(note);
        Ok(())
    }

    /// A file system of its own for each replica, a little larger than its journal.
    pub(crate) fn small_disks(&mut self, mebibytes: u64) -> Result<(), Trouble> {
        disks::own_mounts()?;
        for index in self.all() {
            let image = self.directory.join(format!("disk-{index}.img"));
            let directory = &self.cluster.replicas[index].directory;
            disks::mount_small(&image, directory, mebibytes)?;
            self.mounts.push(directory.clone());
        }
        Ok(())
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

    /// Formats and starts all replicas and the load, and waits until it flows.
    pub(crate) fn start(&mut self) -> Result<(), Trouble> {
        let all = self.all();
        for index in &all {
            self.cluster.make("format", *index)?;
        }
        self.restart(&all)?;
        self.begin_load()
    }

    pub(crate) fn begin_load(&mut self) -> Result<(), Trouble> {
        let options = LoadOptions {
            cluster: self.cluster.options(),
            clients: self.settings.clients,
            batch: self.settings.batch,
            preload: self.settings.preload,
            guests: crate::guests::count(self.drill.seats.unwrap_or(0)),
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
        self.pass(self.settings.steady)
    }

    fn pass(&mut self, time: Duration) -> Result<(), Trouble> {
        let end = self.now() + nanos(time);
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

    /// Stops a replica in order.
    pub(crate) fn stop(&mut self, index: usize) -> Result<(), Trouble> {
        self.mark(&format!("stop {}", names(&[index])));
        self.cluster.stop(index)
    }

    /// Load until so many times its journal has been written, at a sector for each batch.
    pub(crate) fn outgrow_journals(&mut self, times: f64) -> Result<(), Trouble> {
        let sectors = self.drill.journal_mebibytes as f64 * 256.0 * times;
        let begin = self.load().acknowledged();
        self.mark(&format!("load for {times} journals"));
        self.wait_within(PATIENCE_LONG, "the journals are outgrown", |scene| {
            (scene.load().acknowledged() - begin) as f64 > sectors
        })
    }

    // ── links ───────────────────────────────────────────────────────────────────────────────────

    /// Lets nothing pass between a replica and all others.
    pub(crate) fn isolate(&mut self, index: usize) -> Result<(), Trouble> {
        self.mark(&format!("cut {} off", names(&[index])));
        self.set_links(false, |from, to| from == index || to == index)
    }

    /// Lets nothing pass to a replica; it can still speak.
    pub(crate) fn deafen(&mut self, index: usize) -> Result<(), Trouble> {
        self.mark(&format!("deafen {}", names(&[index])));
        self.set_links(false, |_, to| to == index)
    }

    /// Lets nothing pass between any two.
    pub(crate) fn scatter(&mut self) -> Result<(), Trouble> {
        self.set_links(false, |_, _| true)?;
        self.mark("all links are cut");
        Ok(())
    }

    pub(crate) fn heal(&mut self) -> Result<(), Trouble> {
        self.mark("heal all links");
        self.set_links(true, |_, _| true)
    }

    fn set_links(
        &mut self,
        open: bool,
        which: impl Fn(usize, usize) -> bool,
    ) -> Result<(), Trouble> {
        for from in self.all() {
            for to in self.all() {
                if from != to && which(from, to) {
                    self.cluster.links().set(from, to, open)?;
                }
            }
        }
        Ok(())
    }

    /// What happens meanwhile may not end a view.
    pub(crate) fn same_view(
        &mut self,
        what: impl FnOnce(&mut Self) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let before = self.load().view();
        what(self)?;
        let after = self.load().view();
        if before == after {
            return Ok(());
        }
        Err(Trouble::failed(format!(
            "view {before} was left for view {after} without need"
        )))
    }

    // ── disks ───────────────────────────────────────────────────────────────────────────────────

    /// Removes a replica's directory.
    pub(crate) fn lose_disk(&mut self, index: usize) -> Result<(), Trouble> {
        self.mark(&format!("remove the directory of {}", names(&[index])));
        let directory = &self.cluster.replicas[index].directory;
        fs::remove_dir_all(directory)
            .map_err(|error| Trouble::failed(format!("{}: {error}", directory.display())))
    }

    /// `stampede recover`.
    pub(crate) fn recover(&mut self, index: usize) -> Result<(), Trouble> {
        self.mark(&format!("recover {}", names(&[index])));
        self.cluster.make("recover", index)
    }

    /// Keeps a copy of a stopped replica's directory.
    pub(crate) fn copy_directory(&mut self, index: usize) -> Result<(), Trouble> {
        self.mark(&format!("copy the directory of {}", names(&[index])));
        let directory = self.cluster.replicas[index].directory.clone();
        disks::copy(&directory, &directory.with_extension("copy"))
    }

    /// Puts the copy in the place of what has become of the original.
    pub(crate) fn put_back(&mut self, index: usize) -> Result<(), Trouble> {
        self.mark(&format!(
            "put the old directory of {} back",
            names(&[index])
        ));
        let directory = self.cluster.replicas[index].directory.clone();
        fs::remove_dir_all(&directory)
            .and_then(|()| fs::rename(directory.with_extension("copy"), &directory))
            .map_err(|error| Trouble::failed(format!("{}: {error}", directory.display())))
    }

    /// Flips a bit in `count` committed entries of each of these stopped replicas' journals, no entry
    /// on two of them.
    pub(crate) fn corrupt(&mut self, indexes: &[usize], count: usize) -> Result<(), Trouble> {
        self.mark(&format!("flip bits of {}", names(indexes)));
        let mut journals = Vec::new();
        for index in indexes {
            journals.push(self.cluster.inspect_journal(*index)?);
        }
        // What one has not written another may not lose: only what all of them hold is touched.
        let ops =
            |journal: &Vec<Entry>| -> BTreeSet<u64> { journal.iter().map(|it| it.op).collect() };
        let held = journals.iter().map(ops);
        let common = held.reduce(|a, b| a.intersection(&b).copied().collect());
        let common = common.unwrap_or_default();
        let share = indexes.len() as u64;
        for (journal, turn) in journals.iter().zip(0..) {
            let own = |entry: &&Entry| common.contains(&entry.op) && entry.op % share == turn;
            let mut own: Vec<&Entry> = journal.iter().filter(own).collect();
            if own.len() < count {
                return Err(Trouble::failed(format!(
                    "only {} entries can be damaged, not {count}: longer load is needed (--steady)",
                    own.len()
                )));
            }
            for _ in 0..count {
                let pick = self.random.below(own.len() as u64);
                let entry = own.swap_remove(usize::try_from(pick).expect("few entries"));
                let (byte, bit) = (self.random.below(ENTRY_BYTES), self.random.below(8));
                let bit = u32::try_from(bit).expect("below eight");
                disks::flip(&entry.file, entry.offset + byte, bit)?;
            }
        }
        Ok(())
    }

    /// Flips a bit in a file of full chunks of each of these running replicas, no file on two of them.
    /// Gives the time before which nobody can have noticed.
    pub(crate) fn damage_segments(&mut self, indexes: &[usize]) -> Result<Nanos, Trouble> {
        let before = self.now();
        self.mark(&format!("flip a bit in a segment of {}", names(indexes)));
        for (turn, index) in indexes.iter().enumerate() {
            let checkpoints = self.cluster.replicas[*index].directory.join("checkpoints");
            let file = checkpoints.join(format!("transfers-{turn:020}"));
            let offset = self.random.below(SEGMENT_BYTES);
            let bit = u32::try_from(self.random.below(8)).expect("below eight");
            disks::flip(&file, offset, bit)?;
        }
        Ok(before)
    }

    /// Has the disk of a running replica take few writes from now on.
    pub(crate) fn slow_disk(&mut self, index: usize, writes_per_s: u32) -> Result<(), Trouble> {
        let throttle = Throttle::on(&self.cluster.replicas[index].directory, writes_per_s)?;
        let process = self.cluster.process(index);
        throttle.add(process.ok_or_else(|| Trouble::failed("the slow replica does not run"))?)?;
        self.mark(&format!(
            "disk of {}: {writes_per_s} writes/s",
            names(&[index])
        ));
        self.throttle = Some(throttle);
        Ok(())
    }

    pub(crate) fn fast_disk(&mut self) {
        self.mark("disk as before");
        self.throttle = None;
    }

    /// Leaves no room on a replica's file system.
    pub(crate) fn fill_disk(&mut self, index: usize) -> Result<(), Trouble> {
        self.mark(&format!("fill the disk of {}", names(&[index])));
        disks::fill(&self.cluster.replicas[index].directory)
    }

    /// Makes room again.
    pub(crate) fn free_disk(&mut self, index: usize) -> Result<(), Trouble> {
        self.mark(&format!("free the disk of {}", names(&[index])));
        disks::free(&self.cluster.replicas[index].directory)
    }

    // ── waiting for what must happen ────────────────────────────────────────────────────────────

    /// Waits until a replica has said that it is as far as the primary, or leads.
    pub(crate) fn caught_up(&mut self, index: usize) -> Result<(), Trouble> {
        let what = format!("replica {index} has caught up");
        self.wait_within(PATIENCE_LONG, &what, |scene| scene.cluster.is_near(index))
    }

    /// Waits until a replica has said this, in its present life.
    pub(crate) fn says(&mut self, index: usize, text: &str) -> Result<(), Trouble> {
        let started = self.cluster.started(index);
        self.says_since(index, text, started)
    }

    /// Waits until a replica has said this, at this time or later.
    pub(crate) fn says_since(
        &mut self,
        index: usize,
        text: &str,
        since: Nanos,
    ) -> Result<(), Trouble> {
        self.wait_until(&format!("replica {index} says `{text}`"), |scene| {
            scene.cluster.said(index, text, since).is_some()
        })
    }

    /// Proves that a replica counts: so many others are killed that the majority is one with it or none.
    pub(crate) fn counts(&mut self, index: usize) -> Result<(), Trouble> {
        let mut others = self.backups();
        others.retain(|other| *other != index);
        let spare = self.cluster.count() - self.cluster.majority();
        if index == self.primary() {
            // It leads: that is proof enough.
            return self.service_resumes();
        }
        others.truncate(spare);
        self.kill(&others);
        self.service_resumes()?;
        self.steady()?;
        self.restart(&others)?;
        others.iter().try_for_each(|other| self.caught_up(*other))
    }

    /// Waits until nothing more is acknowledged.
    pub(crate) fn service_stops(&mut self) -> Result<(), Trouble> {
        let mut last = (self.now(), self.load().acknowledged());
        let end = self.now() + nanos(PATIENCE_LONG);
        while self.now() - last.0 < nanos(SILENCE) {
            if self.now() > end {
                return Err(Trouble::failed("waited in vain until service stops"));
            }
            let acknowledged = self.load().acknowledged();
            if acknowledged != last.1 {
                last = (self.now(), acknowledged);
            }
            self.step()?;
        }
        self.mark("service has stopped");
        Ok(())
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

    /// While no write is, a read must be answered.
    pub(crate) fn reads_are_served(&mut self) -> Result<(), Trouble> {
        let mut client = load::connect(&self.cluster.options(), PATIENCE_READ)?;
        let found = client.lookup_accounts(&[books::pot_of(0)]);
        self.mark("read");
        match found {
            Ok(accounts) if accounts.len() == 1 => Ok(()),
            Ok(_) => Err(Trouble::failed(
                "an account is not there while the disks are full",
            )),
            Err(error) => Err(Trouble::failed(format!(
                "a read was not answered while the disks were full: {error}"
            ))),
        }
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

    /// The p99 of a batch before and while something happens, as a ratio that should be at most `aim`.
    pub(crate) fn latency_ratio(
        &mut self,
        what: impl FnOnce(&mut Self) -> Result<(), Trouble>,
        aim: f64,
    ) -> Result<(), Trouble> {
        let (before, meanwhile) = self.compare(what)?;
        self.figures.push(Measure::Latency {
            before,
            meanwhile,
            aim,
        });
        Ok(())
    }

    /// The throughput while something happens, as a share of that before, which should be at least `aim`.
    pub(crate) fn throughput_ratio(
        &mut self,
        what: impl FnOnce(&mut Self) -> Result<(), Trouble>,
        aim: f64,
    ) -> Result<(), Trouble> {
        let (before, meanwhile) = self.compare(what)?;
        self.figures.push(Measure::Throughput {
            before,
            meanwhile,
            aim,
        });
        Ok(())
    }

    fn compare(
        &mut self,
        what: impl FnOnce(&mut Self) -> Result<(), Trouble>,
    ) -> Result<(Span, Span), Trouble> {
        let before = self.span(|scene| scene.steady())?;
        Ok((before, self.span(what)?))
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
        books.clients.extend(self.guests.take_books());
        // Without a cluster that answers there is nothing to hold the books against.
        if played.is_ok() {
            match self.audit(&books) {
                Ok(audit) => outcome.audit(&audit),
                Err(trouble) => outcome.trouble(&trouble),
            }
        }
        let all = self.all();
        self.cluster.kill(&all);
        self.throttle = None;
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
        let figures = self.figures.iter();
        outcome.figures = figures
            .map(|it| it.figure(books, &acknowledgements))
            .collect();
        outcome.seconds = seconds(ended);
        outcome.marks.clone_from(&self.marks);
        outcome.timeline = Timeline::of(&acknowledgements, ended);
    }

    /// Removes what the drill has written.
    pub(crate) fn remove(self) {
        self.mounts.iter().for_each(|mount| disks::unmount(mount));
        // What cannot be removed is in the way of nothing but space, and its owner finds it by name.
        let _ = fs::remove_dir_all(&self.directory);
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
