//! Faults: what the plan draws, done to machines, disks and links; and the part of the vocabulary of
//! scenarios that is about damage.
//!
//! Nothing here decides whether a fault may be: the `atlas` does for disks, and everything else may
//! happen at any time to any number of members.

use std::fmt::Display;

use super::super::atlas::Atlas;
use super::super::disk::Frame;
use super::super::faults::{Damage, Fault};
use super::super::network::Node;
use super::super::queue::{Instant, MILLISECOND};
use super::{Event, Simulation};
use crate::message::Op;
use crate::protocol::ReplicaIndex;

/// A link that passes and fails by turns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flap {
    from: Node,
    to: Node,
    period: Instant,
    until: Instant,
    /// It fails now.
    down: bool,
}

impl Simulation {
    pub(super) fn on_fault(&mut self) {
        let fault = self.faults.draw();
        let now = self.now();
        self.trace.record(now, &[8, self.faults.tally.total()], || {
            format!("fault: {fault:?}")
        });
        match fault {
            Fault::Crash { replica, down } => self.queue.push(now, Event::Crash { replica, down }),
            Fault::CrashPrimary { down } => {
                if let Some(replica) = self.primary() {
                    self.queue.push(now, Event::Crash { replica, down });
                }
            }
            Fault::IsolatePrimary { duration } => {
                if let Some(replica) = self.primary() {
                    for (a, b) in self.pairs(&[replica]) {
                        self.cut_both_for(a, b, duration);
                    }
                }
            }
            Fault::Blackout { down_max } => {
                for replica in self.members() {
                    let at = now + self.random.below(5 * MILLISECOND);
                    let down = self.random.below(down_max);
                    self.queue.push(at, Event::Crash { replica, down });
                }
            }
            Fault::Partition { group, duration } => {
                let group: Vec<u8> = self.members().filter(|r| group & 1 << r != 0).collect();
                // Cables are pulled, or packets vanish while connections look well.
                let noticed = self.random.below(2) == 0;
                for (a, b) in self.pairs(&group) {
                    self.cut_both_for(a, b, duration);
                    if noticed {
                        self.sever(a, b);
                    }
                }
            }
            Fault::OneWay { from, to, duration } => {
                self.cut_for(Node::Replica(from), Node::Replica(to), duration);
            }
            Fault::Deaf { replica, duration } => {
                for other in self.members().filter(|r| *r != replica) {
                    self.cut_for(Node::Replica(other), Node::Replica(replica), duration);
                }
            }
            Fault::Pause { replica, duration } => self.pause(replica, duration),
            Fault::Clock { replica, jump } => self.set_clock(replica, jump),
            Fault::Slow {
                replica,
                factor,
                duration,
            } => {
                self.hosts[usize::from(replica)].speed = self.options.speed.slower(factor);
                self.queue.push(now + duration, Event::Hurry { replica });
            }
            Fault::Damage { replica, damage } => {
                self.damage(replica, damage);
            }
            Fault::Write { replica, fault } => {
                self.hosts[usize::from(replica)].set_next_write(Some(fault));
            }
            Fault::Full { replica, duration } => {
                self.set_room(replica, Some(0));
                self.queue.push(now + duration, Event::Room { replica });
            }
            Fault::SetBack { replica, duration } => {
                self.copy_disk(replica);
                self.queue
                    .push(now + duration / 4, Event::Start { replica });
                self.queue
                    .push(now + 2 * duration, Event::PutBack { replica });
            }
            Fault::LostDisk { replica, down } => {
                if self.lose_disk(replica) {
                    self.queue.push(now + down, Event::Start { replica });
                }
            }
            Fault::Bridge {
                bridge,
                group,
                duration,
            } => {
                let group: Vec<u8> = self.members().filter(|r| group & 1 << r != 0).collect();
                let reaches_both = Node::Replica(bridge);
                for (a, b) in self.pairs(&group) {
                    if a != reaches_both && b != reaches_both {
                        self.cut_both_for(a, b, duration);
                    }
                }
            }
            Fault::Partial { pairs, duration } => {
                let all = self.members().flat_map(|b| (0..b).map(move |a| (a, b)));
                let cut = all.enumerate().filter(|(bit, _)| pairs >> bit & 1 == 1);
                for (_, (a, b)) in cut.collect::<Vec<_>>() {
                    self.cut_both_for(Node::Replica(a), Node::Replica(b), duration);
                }
            }
            Fault::Flap {
                from,
                to,
                period,
                duration,
            } => {
                self.flaps.push(Flap {
                    from: Node::Replica(from),
                    to: Node::Replica(to),
                    period,
                    until: now + duration,
                    down: false,
                });
                self.on_flap(self.flaps.len() - 1);
            }
            Fault::Delay {
                from,
                to,
                longer,
                duration,
            } => {
                let (from, to) = (Node::Replica(from), Node::Replica(to));
                self.network.delay(from, to, longer);
                self.queue.push(now + duration, Event::Hasten { from, to });
            }
            Fault::Noise { from, to, messages } => self.add_noise(from, to, messages),
            Fault::ClientNoise { to, messages } => {
                let client = self.random.below(u64::from(self.options.client_count));
                let client = u32::try_from(client).expect("below a number of clients");
                self.add_noise_to_client(client, to, messages);
            }
            Fault::CheckpointError { replica, after } => {
                self.hosts[usize::from(replica)].fail_checkpoints(after);
            }
            Fault::Release { replica, down } => {
                self.change_release(replica);
                self.queue.push(now + down, Event::Start { replica });
            }
        }
        if let Some(wait) = self.faults.wait() {
            self.queue.push(now + wait, Event::Fault);
        }
    }

    // ── what disks do ───────────────────────────────────────────────────────────────────────

    /// Damages what the disk of a replica holds, if the atlas has something to give; whether it had.
    pub fn damage(&mut self, replica: ReplicaIndex, damage: Damage) -> bool {
        let index = usize::from(replica);
        let atlas = Atlas::new(&self.hosts, &self.log);
        let random = &mut self.random_disks;
        if damage == Damage::Superblock {
            let copies = atlas.superblock_copies(replica);
            let Some(copy) = (!copies.is_empty()).then(|| *random.pick(&copies)) else {
                return false;
            };
            self.hosts[index].superblock.rot(copy, random);
            self.damaged(replica, damage, &format_args!("copy {copy}"));
            return true;
        }
        if damage == Damage::Checkpoint {
            let allowed = atlas.may_damage_checkpoint(replica);
            if allowed && self.hosts[index].rots_anywhere() {
                let file = self.hosts[index].let_rot();
                self.damaged(replica, damage, &file);
            } else if allowed {
                self.hosts[index].damage_checkpoint();
                self.damaged(replica, damage, &"the one in force");
            }
            return allowed;
        }
        let Some(frame) = atlas.pick_frame(replica, random) else {
            return false;
        };
        self.damage_frame(replica, &frame, damage);
        true
    }

    /// Damages the entry of one operation in the journal of a replica, if the atlas allows it; whether
    /// it does.
    pub fn damage_entry(&mut self, replica: ReplicaIndex, op: Op, damage: Damage) -> bool {
        let Some(frame) = Atlas::new(&self.hosts, &self.log).frame_of(replica, op) else {
            return false;
        };
        self.damage_frame(replica, &frame, damage);
        true
    }

    fn damage_frame(&mut self, replica: ReplicaIndex, frame: &Frame, damage: Damage) {
        let random = &mut self.random_disks;
        let astray = match damage {
            Damage::Misdirected => Atlas::new(&self.hosts, &self.log).pick_frame(replica, random),
            Damage::Rot
            | Damage::Latent
            | Damage::LostWrite
            | Damage::Checkpoint
            | Damage::Superblock => None,
        };
        let journal = &mut self.hosts[usize::from(replica)].journal;
        match damage {
            Damage::Rot => journal.rot(frame, random),
            Damage::Latent => journal.spoil(frame, random),
            Damage::LostWrite => journal.unwrite(frame, random),
            Damage::Misdirected => {
                // What should be in one place is over another one.
                if let Some(victim) = astray.filter(|victim| victim != frame) {
                    journal.overwrite(&victim, frame);
                }
                journal.unwrite(frame, random);
            }
            Damage::Checkpoint | Damage::Superblock => unreachable!("they are no frames"),
        }
        let over = astray.map(|victim| (victim.op, victim.position));
        let over = over.map_or(String::new(), |(op, at)| {
            format!(", over op {op} at position {at}")
        });
        let place = format_args!("op {} at position {}{over}", frame.op, frame.position);
        self.damaged(replica, damage, &place);
    }

    fn damaged(&mut self, replica: ReplicaIndex, damage: Damage, what: &dyn Display) {
        self.counts.damaged += 1;
        let now = self.now();
        let words = [10, u64::from(replica), damage as u64];
        let what = format!("{damage:?} of {what}");
        self.transcript
            .note(now, format!("r{replica}"), format!("DAMAGE: {what}"));
        self.trace
            .record(now, &words, || format!("r{replica}: {what}"));
    }

    /// The link passes or fails from now on, until it is its turn to do the other.
    pub(super) fn on_flap(&mut self, index: usize) {
        let now = self.now();
        let flap = &mut self.flaps[index];
        let was_down = flap.down;
        flap.down = !was_down && now < flap.until;
        if flap.down {
            self.network.cut(flap.from, flap.to);
        } else if was_down {
            self.network.mend(flap.from, flap.to);
        }
        if now < flap.until {
            self.queue.push(now + flap.period, Event::Flap(index));
        }
    }

    fn cut_both_for(&mut self, a: Node, b: Node, duration: Instant) {
        self.cut_for(a, b, duration);
        self.cut_for(b, a, duration);
    }

    fn cut_for(&mut self, from: Node, to: Node, duration: Instant) {
        self.network.cut(from, to);
        self.queue
            .push(self.now() + duration, Event::Mend { from, to });
    }
}
