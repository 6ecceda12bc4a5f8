//! The lending side: which checkpoint another replica may fetch from here, and its blocks.
//!
//! A checkpoint that was offered is kept until its borrower has been silent for a while, one for each
//! replica, so that the sweep before a new checkpoint does not pull files from under a transfer. Blocks
//! are read by the librarian, a few at a time and in the order in which they were asked for; what was
//! not yet read waits here as a few numbers, not as a buffer.

use std::collections::VecDeque;

use super::wire;
use super::{Context, Stretch};
use crate::limits::{LENDING_READS_MAX, MEMBERS_MAX, TRANSFER_WINDOW};
use crate::message::{Claim, Command, Header, Message, Op};
use crate::protocol::ReplicaIndex;
use crate::replica::io::Output;
use crate::replica::library::LibraryTask;
use crate::replica::superblock::State;
use crate::store::{BLOCK_SIZE, ManifestRef};

/// A borrower that has been silent for this long has gone elsewhere, or is done.
const PIN_NS: u64 = 10_000_000_000;

/// Each borrower has a window of requests, and may ask for some again.
const QUEUE_MAX: usize = 2 * TRANSFER_WINDOW * MEMBERS_MAX;

/// A checkpoint that is kept for a borrower.
#[derive(Debug, Clone, Copy)]
struct Pin {
    manifest: ManifestRef,
    until: u64,
}

#[derive(Debug, Clone, Copy)]
struct Wanted {
    by: ReplicaIndex,
    op: Op,
    stretch: Stretch,
}

/// See the module.
#[derive(Debug, Default)]
pub(in crate::replica) struct Lender {
    /// By borrower.
    pins: [Option<Pin>; MEMBERS_MAX],
    queue: VecDeque<Wanted>,
    reading: usize,
}

impl Lender {
    /// Checkpoints whose files must stay besides that in force, when others are about to be swept. What
    /// is over now is forgotten, and cannot be borrowed again.
    pub(in crate::replica) fn kept(&mut self, now: u64) -> impl Iterator<Item = ManifestRef> + '_ {
        for pin in &mut self.pins {
            pin.take_if(|pin| now >= pin.until);
        }
        self.pins.iter().flatten().map(|pin| pin.manifest)
    }

    /// Another replica asks for a checkpoint. Only a replica that holds the log of its view offers one,
    /// and only to replicas in that view; see the module of the transfer.
    pub(super) fn on_get_checkpoint(
        &mut self,
        header: &Header,
        state: &State,
        world: &mut Context<'_>,
    ) {
        let manifest = state.manifest().filter(|m| m.op >= header.op);
        let (Some(manifest), true) = (manifest, header.view == world.view) else {
            return;
        };
        self.pin(header.replica, manifest, world.now);
        let offer = wire::Offer {
            op: state.checkpoint_op,
            checksum: state.checkpoint_checksum,
            timestamp: state.checkpoint_timestamp,
            manifest,
        };
        world.send_offer(header.replica, &offer);
    }

    fn pin(&mut self, by: ReplicaIndex, manifest: ManifestRef, now: u64) {
        self.pins[usize::from(by)] = Some(Pin {
            manifest,
            until: now + PIN_NS,
        });
    }

    /// Another replica asks for a block.
    pub(super) fn on_get_block(&mut self, header: &Header, state: &State, world: &mut Context<'_>) {
        let by = header.replica;
        let Some(stretch) = wire::stretch(header).filter(|s| (1..=BLOCK_SIZE).contains(&s.size))
        else {
            return;
        };
        let pinned = self.pins[usize::from(by)].filter(|pin| pin.manifest.op == header.op);
        // After a restart of this replica its pins are forgotten; its checkpoint in force is as good.
        let in_force = state.manifest().filter(|m| m.op == header.op);
        match pinned.map(|pin| pin.manifest).or(in_force) {
            Some(manifest) => self.pin(by, manifest, world.now),
            // In every later checkpoint, too; whoever asks knows what it must be.
            None if stretch.name.kind.is_chunk() => {}
            None => return world.send_gone(by, header.op, stretch),
        }
        if self.queue.len() < QUEUE_MAX {
            let op = header.op;
            self.queue.push_back(Wanted { by, op, stretch });
        }
        self.read(world);
    }

    /// Starts reads, as many as may be under way. Buffers that consensus needs are not taken: then the
    /// requests wait.
    pub(super) fn read(&mut self, world: &mut Context<'_>) {
        while self.reading < LENDING_READS_MAX
            && let Some(Wanted { by, op, stretch }) = self.queue.front().copied()
        {
            if !world.pool.has_room(stretch.size, Claim::Behind) {
                return;
            }
            let Some(mut message) = world.pool.acquire(stretch.size) else {
                return;
            };
            self.queue.pop_front();
            self.reading += 1;
            *message.header_mut() = wire::block(world.header(Command::Block), op, stretch);
            let task = LibraryTask::Read {
                to: by,
                stretch,
                message,
            };
            world.outputs.push(Output::Library(task));
        }
    }

    /// The librarian has read a block.
    pub(super) fn on_read(&mut self, to: ReplicaIndex, message: Message, world: &mut Context<'_>) {
        self.reading -= 1;
        world.outputs.push(Output::SendReplica { to, message });
        self.read(world);
    }
}
