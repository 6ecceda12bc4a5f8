//! State transfer: a replica that cannot catch up through the log fetches another one's checkpoint, and
//! goes on from there.
//!
//! ```text
//!   who lacks                                           who has
//!      ├── get_checkpoint (at least this op) ─────────────►│
//!      │◄── checkpoint: op, its prepare, manifest ─────────┤   keeps the files from now on
//!      ├── get_block, get_block, … ───────────────────────►│
//!      │◄── block, block, … ───────────────────────────────┤
//!      │ all files durable, then the superblock refers to them, then: reopen
//!      ├── get_prepares (from there on) ──────────────────►│   as after any restart
//! ```
//!
//! It is wanted when the others' journals no longer reach back to what this replica lacks, which is also
//! how one begins that was made anew; and when its own checkpoint is damaged or gone. Meanwhile it goes on
//! with its log as well as it can. Nothing that it has is given up before the replacement is durable, and
//! the replacement is taken up the way any restart takes it up: by `open`. There is no second way to
//! install a state.
//!
//! **Why this is safe.** A checkpoint is of committed operations; whoever holds one holds a prefix of every
//! later log, and whatever this replica acknowledged before is in that prefix or died in a view change.
//! `view` and `log_view` stay as they are. The log may then reach beyond what `log_view` alone would
//! explain, which misleads nobody: the operations that the checkpoint ends with were durable on a
//! replication quorum of a later view, every view-change quorum meets that one, and prefers its log. One
//! more thing is needed: a checkpoint is taken only from a replica that holds the log of the view that
//! this replica is in. So what the checkpoint ends with belongs to the log of this view, also when the
//! view's own announcement, which names a lower operation, comes late.
//!
//! | file | what it does |
//! | --- | --- |
//! | here | when a transfer is wanted, and what happens at its end |
//! | `fetch` | from an offer to durable files |
//! | `lend` | offers, and blocks for others |
//! | `mend` | one damaged file of the own checkpoint |
//! | `wire` | messages |

pub(super) mod fetch;
#[cfg(test)]
mod fetch_test;
pub(super) mod lend;
pub(super) mod mend;
mod wire;

use super::Replica;
use super::io::Output;
use super::library::{LibraryDone, Stretch};
use super::superblock::{Change, Checkpoint};
use crate::message::{Command, Header, Message, Op, Pool, View};
use crate::protocol::{ReplicaIndex, Time};
use crate::vsr::Status;

/// What both sides need of the replica around them.
pub(super) struct Context<'a> {
    cluster: u128,
    replica: ReplicaIndex,
    view: View,
    now: u64,
    pool: &'a Pool,
    outputs: &'a mut Vec<Output>,
}

impl Context<'_> {
    fn header(&self, command: Command) -> Header {
        Header::new(command, self.cluster, self.replica, self.view)
    }

    /// Without a free buffer it is not sent: whoever waits will ask again.
    fn send(&mut self, to: ReplicaIndex, header: Header, body: &[u8]) {
        if let Some(mut message) = self.pool.acquire(body.len()) {
            message.fill(header, body);
            let message = message.freeze();
            self.outputs.push(Output::SendReplica { to, message });
        }
    }

    fn send_get_checkpoint(&mut self, to: ReplicaIndex, least: Op) {
        let mut header = self.header(Command::GetCheckpoint);
        header.op = least;
        self.send(to, header, &[]);
    }

    fn send_offer(&mut self, to: ReplicaIndex, offer: &wire::Offer) {
        let (header, body) = offer.write(self.header(Command::Checkpoint));
        self.send(to, header, &body);
    }

    fn send_gone(&mut self, to: ReplicaIndex, op: Op, stretch: Stretch) {
        let header = wire::block(self.header(Command::Block), op, stretch);
        self.send(to, header, &[]);
    }
}

/// Those who carry out a transfer.
struct Hands<'a> {
    fetcher: &'a mut fetch::Fetcher,
    lender: &'a mut lend::Lender,
    mender: &'a mut mend::Mender,
}

impl Replica {
    /// Those who do the work, and what they need.
    fn transfer<'a>(
        &'a mut self,
        now: Time,
        outputs: &'a mut Vec<Output>,
    ) -> (Hands<'a>, Context<'a>) {
        let state = self.superblock.state();
        let context = Context {
            cluster: state.cluster,
            replica: state.replica,
            view: self.vsr.view(),
            now: now.monotonic,
            pool: &self.pool,
            outputs,
        };
        let hands = Hands {
            fetcher: &mut self.fetcher,
            lender: &mut self.lender,
            mender: &mut self.mender,
        };
        (hands, context)
    }

    /// A message of a transfer.
    pub(super) fn on_transfer(&mut self, message: Message, now: Time, outputs: &mut Vec<Output>) {
        let header = *message.header();
        let state = *self.superblock.state();
        if header.replica == state.replica {
            return;
        }
        let offers = self.vsr.status() == Status::Normal && !self.checkpoint_lost;
        let (hands, mut context) = self.transfer(now, outputs);
        match header.command() {
            Some(Command::GetCheckpoint) if offers => {
                hands
                    .lender
                    .on_get_checkpoint(&header, &state, &mut context);
            }
            Some(Command::GetBlock) => hands.lender.on_get_block(&header, &state, &mut context),
            Some(Command::Checkpoint) => {
                if let Some(offer) = wire::Offer::read(&message) {
                    hands.fetcher.on_offer(&header, offer, &mut context);
                }
            }
            Some(Command::Block) if hands.mender.expects(&header) => {
                hands.mender.on_block(message, &mut context);
            }
            Some(Command::Block) => hands.fetcher.on_block(message, &mut context),
            _ => {}
        }
    }

    pub(super) fn on_library(&mut self, done: LibraryDone, now: Time, outputs: &mut Vec<Output>) {
        if let LibraryDone::Scrubbed(step) = done {
            return self.on_scrubbed(step, outputs);
        }
        let Some(done) = self.on_mended(done, now, outputs) else {
            return;
        };
        let (hands, mut context) = self.transfer(now, outputs);
        match done {
            LibraryDone::Read { to, message } => hands.lender.on_read(to, message, &mut context),
            done @ (LibraryDone::Checked { .. }
            | LibraryDone::Written { .. }
            | LibraryDone::Listed { .. }
            | LibraryDone::Synced { .. }) => hands.fetcher.on_done(done, &mut context),
            LibraryDone::Scrubbed(_) => unreachable!("it was the scrub's"),
        }
        self.install(outputs);
    }

    pub(super) fn tick_transfer(&mut self, now: Time, outputs: &mut Vec<Output>) {
        let least = if self.checkpoint_lost {
            Some(self.superblock.state().checkpoint_op.max(1))
        } else {
            let beyond = self.vsr.is_beyond_reach();
            beyond.then(|| self.vsr.executed() + 1)
        };
        // Its own files are good as far as they are known: it was opened with them.
        let manifest = self.superblock.state().manifest();
        let own = manifest.filter(|_| !self.checkpoint_lost);
        let (hands, mut context) = self.transfer(now, outputs);
        hands.fetcher.tick(least, own, &mut context);
        hands.lender.read(&mut context);
        self.install(outputs);
        if let (Some(manifest), false) = (own, self.installing || self.fetcher.is_active()) {
            let (hands, mut context) = self.transfer(now, outputs);
            hands.mender.tick(&manifest, &mut context);
            self.reopen_mended(outputs);
        }
    }

    fn on_mended(
        &mut self,
        done: LibraryDone,
        now: Time,
        outputs: &mut Vec<Output>,
    ) -> Option<LibraryDone> {
        let Some(manifest) = self.superblock.state().manifest() else {
            return Some(done);
        };
        let (hands, mut context) = self.transfer(now, outputs);
        hands.mender.on_done(done, &manifest, &mut context)
    }

    /// What was damaged may still be read from, where it was taken up before: open everything again. The
    /// checkpoint is installed once more, as it is.
    fn reopen_mended(&mut self, outputs: &mut Vec<Output>) {
        let building = self.checkpoint_of.is_some() || self.checkpoint_written.is_some();
        if !self.mender.is_done() || building || !self.superblock.is_settled() {
            return;
        }
        if let Some(in_force) = self.superblock.state().checkpoint() {
            self.installing = true;
            self.superblock.change(Change::Install(in_force), outputs);
        }
    }

    /// Refers to the checkpoint that was fetched, once everything of it is here. From then on this
    /// replica does nothing any more but wait for that change, and is opened again after it.
    fn install(&mut self, outputs: &mut Vec<Output>) {
        let Some(offer) = self.fetcher.ready().copied() else {
            return;
        };
        // What this replica writes itself must be over: nobody may write when it is opened again.
        let building = self.checkpoint_of.is_some() || self.checkpoint_written.is_some();
        let newer = self.checkpoint_lost || offer.op > self.vsr.executed();
        if building || !newer || offer.op < self.superblock.state().checkpoint_op {
            return;
        }
        let journal_start = if self.vsr.log().checksum(offer.op) == Some(offer.checksum) {
            let restart = self.entries.keep(offer.op, false).restart;
            Some(restart).filter(|restart| self.entries.is_durable(*restart))
        } else {
            // What this log holds is in the checkpoint, or was never committed.
            self.entries.end()
        };
        let Some(journal_start) = journal_start else {
            return;
        };
        self.installing = true;
        let checkpoint = Checkpoint {
            op: offer.op,
            prepare_checksum: offer.checksum,
            timestamp: offer.timestamp,
            manifest: offer.manifest,
            journal_start,
            trim_position: 0,
            trimmed: 0,
        };
        self.superblock.change(Change::Install(checkpoint), outputs);
    }
}
