//! The replica as the loop's driver, its executor and its builder on their threads.
//!
//! Nothing but names: the loop's traits on one side, the replica's methods on the other; one judgement,
//! which tasks are quick; and what an operator reads about views.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use stampede_client::wire::operation::{Kind, Operation};

use super::workers::{Build, Execute};
use super::{Driver, Output};
use crate::limits::{HEADER_SIZE, PIPELINE_MAX};
use crate::protocol::Time;
use crate::replica::executor::{CheckpointDone, CheckpointTask, Done, Executor, FullDisk, Task};
use crate::replica::ingress::{Inspected, inspect};
use crate::replica::io::Input;
use crate::replica::scrub::Scrubbed;
use crate::replica::{Progress, Replica, Transfer};
use crate::store::{FileName, Storage};
use crate::vsr::Status;
use crate::vsr::clock::{Agreement, TOLERANCE_NS};

/// Up to some 250 events: 25 to 75 us, about what waking another thread costs on both sides. With
/// batches of 100 events this took 1.6 instead of 2.0 us of processor time per event, and a tenth
/// off the median latency; with batches of 400 it makes no difference.
const INLINE_SIZE_MAX: usize = 32 * 1024;

/// The replica, and a log line when its standing changes.
#[derive(Debug)]
pub struct ReplicaDriver {
    replica: Replica,
    standing: Option<(Status, u32, bool, bool)>,
    beyond_reach: bool,
    missing: u64,
    waits_for: Option<u64>,
    clock: ClockNews,
    /// Where checkpoints are written, and whether there was room for the last one.
    checkpoints: PathBuf,
    full: bool,
    /// What was last said of a transfer, and when.
    transfer: Option<(Transfer, u64)>,
    distance: Option<Distance>,
    /// What was last said of the scrub.
    scrubbed: Scrubbed,
    machine_full: bool,
    mending: Option<FileName>,
    /// When each misfit was last spoken of.
    misfits: BTreeMap<u8, u64>,
}

/// How often the progress of a transfer is logged.
const TRANSFER_LOG_NS: u64 = 1_000_000_000;

/// How often the same misfit is logged: it dials again and again.
const MISFIT_LOG_NS: u64 = 60_000_000_000;

/// What an operator has been told of how far this backup is from the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Distance {
    Near,
    Far,
}

/// A healthy backup is at most a pipeline behind; one that is merely busy comes and goes beyond that.
const NEAR: u64 = PIPELINE_MAX as u64;
const FAR: u64 = 16 * NEAR;

/// What an operator has been told of this machine's clock, while it is the primary's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClockNews {
    Well,
    Off,
    Disagreed,
}

/// A clock that is further away from the others than this is worth a line.
const CLOCK_OFF_NS: u64 = 1_000_000_000;

impl ReplicaDriver {
    pub fn new(replica: Replica, checkpoints: PathBuf) -> Self {
        Self {
            replica,
            standing: None,
            beyond_reach: false,
            missing: 0,
            waits_for: None,
            clock: ClockNews::Well,
            checkpoints,
            full: false,
            transfer: None,
            distance: None,
            scrubbed: Scrubbed::default(),
            machine_full: false,
            mending: None,
            misfits: BTreeMap::new(),
        }
    }

    /// How far a checkpoint is that is being fetched.
    fn announce_transfer(&mut self, progress: &Progress, now: Time) {
        let Some(transfer) = progress.transfer else {
            if self.transfer.take().is_some() {
                tracing::info!(
                    "no checkpoint is needed any more: this replica catches up by the log"
                );
            }
            return;
        };
        let (before, at) = *self.transfer.get_or_insert((transfer, now.monotonic));
        let waited = now.monotonic - at;
        if waited < TRANSFER_LOG_NS {
            return;
        }
        self.transfer = Some((transfer, now.monotonic));
        let Transfer {
            donor,
            op,
            done,
            total,
            problem,
        } = transfer;
        if let Some(problem) = problem {
            tracing::error!(
                "a checkpoint cannot be fetched: {problem}; trying again in a few seconds"
            );
            return;
        }
        let Some(donor) = donor else {
            tracing::info!("looking for a replica that has a checkpoint to fetch");
            return;
        };
        let bytes = if before.op == op {
            done.saturating_sub(before.done)
        } else {
            done
        };
        let rate = u128::from(bytes) * 1_000_000_000 / u128::from(waited);
        tracing::info!(
            "fetching the checkpoint of op {op} from replica {donor}: {} of {} MiB, {} MiB/s",
            done >> 20,
            total >> 20,
            rate >> 20
        );
    }

    fn announce(&mut self, now: Time) {
        self.announce_misfits(now);
        let progress = self.replica.progress();
        if progress.beyond_reach && !self.beyond_reach {
            tracing::warn!(
                "this replica stands at op {} and was away for longer than the journals of the others \
                 reach: it fetches a checkpoint from one of them",
                progress.head
            );
        }
        self.beyond_reach = progress.beyond_reach;
        self.announce_damage(&progress);
        self.announce_clock(progress.clock);
        self.announce_room(progress.full);
        self.announce_transfer(&progress, now);
        self.announce_distance(&progress);
        self.announce_scrub(&progress);
        let recovers = progress.recovering && progress.status != Status::Normal;
        let standing = (progress.status, progress.view, progress.serving, recovers);
        if self.standing == Some(standing) {
            return;
        }
        self.standing = Some(standing);
        let (view, head, commit) = (progress.view, progress.head, progress.commit);
        match progress.status {
            Status::Normal if progress.serving => {
                tracing::info!("serving: primary of view {view}, op {head}, committed {commit}");
            }
            Status::Normal => {
                tracing::info!("serving: backup in view {view}, op {head}, committed {commit}");
            }
            // Also when the view's log is on its way already.
            Status::Recovering | Status::CatchUp if recovers => tracing::warn!(
                "recovering: what this disk had promised is not known; no vote until the others have \
                 brought it up to date (view {view}, op {head})"
            ),
            Status::ViewChange | Status::CatchUp | Status::Resigned | Status::Recovering => {
                let status = progress.status;
                tracing::info!(
                    "not serving: {status:?}, view {view}, op {head}, committed {commit}"
                );
            }
        }
    }
}

impl ReplicaDriver {
    fn announce_misfits(&mut self, now: Time) {
        for (replica, differences) in self.replica.take_misfits() {
            let told = self.misfits.get(&replica);
            if told.is_some_and(|told| now.monotonic - told < MISFIT_LOG_NS) {
                continue;
            }
            self.misfits.insert(replica, now.monotonic);
            let differences: Vec<String> = differences.iter().map(ToString::to_string).collect();
            tracing::warn!(
                "refusing replica {replica}, which is not made as this one: {}. These must be the same on all \
                 members of a cluster, and each has its own index: look at the directory and the addresses that it \
                 was started with, and make the one that is wrong anew (`stampede recover`)",
                differences.join("; ")
            );
        }
    }

    fn announce_damage(&mut self, progress: &Progress) {
        match (self.missing, progress.missing) {
            (0, 1..) => tracing::warn!(
                "the disk has damaged {} entries of the journal: fetching them from the others; look for \
                 the disk's own error reports",
                progress.missing
            ),
            (1.., 0) => tracing::info!("all damaged entries of the journal are restored"),
            _ => {}
        }
        self.missing = progress.missing;
        if let Some(op) = progress
            .waits_for
            .filter(|_| self.waits_for != progress.waits_for)
        {
            tracing::error!(
                "view {} cannot begin: op {op} may have been acknowledged, and none of the replicas that \
                 are here has it whole. Start the others: one of them may have it",
                progress.view
            );
        }
        self.waits_for = progress.waits_for;
    }

    fn announce_scrub(&mut self, progress: &Progress) {
        if progress.machine_full && !self.machine_full {
            tracing::error!(
                "the ledger is full: clients that create accounts or transfers are sent away from now on, \
                 queries and look-ups are answered; --accounts-max, --transfers-max and --timeouts-max of \
                 `stampede start` say how much it may hold"
            );
        } else if !progress.machine_full && self.machine_full {
            tracing::info!("the ledger has room again");
        }
        self.machine_full = progress.machine_full;
        if progress.scrubbed.rounds > self.scrubbed.rounds && self.scrubbed.rounds == 0 {
            tracing::info!(
                "all checkpoint files have been read once: they are as they were written"
            );
        }
        self.scrubbed = progress.scrubbed;
        if self.mending == progress.mending {
            return;
        }
        match (self.mending, progress.mending) {
            (_, Some(file)) => tracing::error!(
                "checkpoint file {file} is damaged: fetching it from another replica{}; look for the disk's \
                 own error reports",
                if progress.halted {
                    ", and executing nothing until it is whole"
                } else {
                    ""
                }
            ),
            (Some(file), None) => tracing::info!("checkpoint file {file} is whole again"),
            (None, None) => {}
        }
        self.mending = progress.mending;
    }

    fn announce_room(&mut self, full: Option<FullDisk>) {
        if full.is_some() == self.full {
            return;
        }
        self.full = full.is_some();
        let path = self.checkpoints.display();
        match full {
            Some(FullDisk { needed, room }) => tracing::error!(
                "the disk is full: a checkpoint in {path} needs about {:.1} MiB and there is room for {:.1} MiB, \
                 {:.1} MiB are lacking. Free some, or make the disk (or quota) larger: this replica tries again \
                 every second. Until then it leaves being the primary to others, or takes only requests that \
                 read",
                mebibytes(needed),
                mebibytes(room),
                mebibytes(needed.saturating_sub(room)),
            ),
            None => tracing::info!("there is room in {path} again: the checkpoint is written"),
        }
    }

    fn announce_distance(&mut self, progress: &Progress) {
        let Some(behind) = progress.behind else {
            return;
        };
        let distance = match behind {
            0..=NEAR => Distance::Near,
            FAR.. => Distance::Far,
            _ => return,
        };
        if self.distance == Some(distance) {
            return;
        }
        self.distance = Some(distance);
        let op = progress.executed;
        match distance {
            Distance::Near => tracing::info!("caught up with the primary at op {op}"),
            Distance::Far => {
                tracing::info!("catching up: {behind} operations behind the primary at op {op}");
            }
        }
    }

    fn announce_clock(&mut self, agreement: Agreement) {
        let (news, ahead) = match agreement {
            // Says nothing new.
            Agreement::Unheard => return,
            Agreement::Disagreed => (ClockNews::Disagreed, 0),
            Agreement::Agreed { ahead } if ahead.unsigned_abs() > CLOCK_OFF_NS => {
                (ClockNews::Off, ahead)
            }
            Agreement::Agreed { .. } => (ClockNews::Well, 0),
        };
        if news == self.clock {
            return;
        }
        self.clock = news;
        match news {
            ClockNews::Off => tracing::warn!(
                "the clock of this machine is {:.1} s {} a majority of the replicas' clocks; timestamps \
                 follow the majority. Check its time synchronization",
                Duration::from_nanos(ahead.unsigned_abs()).as_secs_f64(),
                if ahead > 0 { "ahead of" } else { "behind" },
            ),
            ClockNews::Disagreed => tracing::warn!(
                "no majority of the replicas' clocks agrees to within {:.1} s; timestamps go on by this \
                 machine's monotonic clock. Check time synchronization on all replicas",
                Duration::from_nanos(TOLERANCE_NS).as_secs_f64(),
            ),
            ClockNews::Well => tracing::info!("the clock of this machine agrees with the others'"),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl Driver for ReplicaDriver {
    fn inspect(header: &[u8; HEADER_SIZE]) -> Result<Inspected, &'static str> {
        inspect(header)
    }

    fn start(&mut self, now: Time, outputs: &mut Vec<Output>) {
        self.replica.start(now, outputs);
    }

    fn on_input(&mut self, input: Input, now: Time, outputs: &mut Vec<Output>) {
        let tick = matches!(input, Input::Tick);
        self.replica.on_input(input, now, outputs);
        if tick {
            self.announce(now);
        }
    }
}

impl Execute for Executor {
    fn run(&mut self, task: Task) -> Option<Done> {
        Executor::run(self, task)
    }

    fn prepare(&self) -> Option<Box<dyn FnMut() + Send>> {
        Executor::prepare(self)
    }

    /// Queries are never quick: a filter is small, but what it asks for may lie on the disk.
    fn is_quick(task: &Task) -> bool {
        let Task::Apply {
            prepare,
            checkpoint: false,
            ..
        } = task
        else {
            return false;
        };
        let header = prepare.header();
        let kind = Operation::from_code(header.operation).map(Operation::kind);
        header.size as usize <= INLINE_SIZE_MAX
            && matches!(
                kind,
                Some(
                    Kind::Register
                        | Kind::Noop
                        | Kind::CreateAccounts
                        | Kind::CreateTransfers
                        | Kind::LookupAccounts
                )
            )
    }
}

/// How long a builder that is ahead of the log waits before it looks again.
const PAUSE: Duration = Duration::from_millis(1);

/// The builder's disk.
impl<S: Storage + 'static> Build for S {
    fn build(&mut self, task: CheckpointTask) -> CheckpointDone {
        task.write(self, || std::thread::sleep(PAUSE))
    }
}
