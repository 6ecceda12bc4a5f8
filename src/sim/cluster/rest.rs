//! How a run ends: faults stop, what is broken mends, everybody catches up within a bound, and what
//! was promised is counted.

use super::super::check::{Liveness, check_pool, hold};
use super::super::host::Speed;
use super::super::network::{Network, Quality};
use super::super::options::Report;
use super::super::queue::Queue;
use super::super::random::{Random, Stream};
use super::{Checked, Event, Simulation};
use crate::message::Op;
use crate::protocol::ReplicaIndex;
use crate::replica::TICK_NS;
use crate::vsr::{Status, quorum};

impl Simulation {
    /// Ends all faults, waits until everybody has caught up, and checks what must hold at rest.
    /// Nothing is left of the cluster afterwards.
    ///
    /// # Errors
    /// The first property that did not hold.
    pub fn finish(&mut self) -> Checked<Report> {
        self.calm = true;
        self.network.heal();
        self.network.set_quality(Quality::GOOD);
        let now = self.now();
        self.paused.fill(now);
        self.finish_upgrade();
        // What a slow machine has begun is over as soon as it is not slow any more.
        let is_work = |event: &Event| matches!(event, Event::Done { .. });
        self.queue
            .bring_forward(now + Speed::GOOD.build_max, is_work);
        for replica in self.members() {
            let host = &mut self.hosts[usize::from(replica)];
            host.speed = Speed::GOOD;
            host.heal();
            self.start(replica)?;
        }
        // What is asked already must be answered; how long the rest would take is nobody's promise.
        for client in &mut self.clients {
            client.requests_left = 0;
        }
        let liveness = Liveness::new(self.options.calm_max, now);
        self.wait(liveness)?;
        for index in 0..self.options.client_count {
            self.ask_for_accounts(index);
        }
        self.wait(liveness)?;
        self.counts.settled = self.now() - now;
        self.go_on_without_a_minority()?;
        self.check_at_rest()?;
        let report = self.report();
        self.switch_off()?;
        Ok(report)
    }

    /// A quorum alone answers, and whoever was off catches up.
    fn go_on_without_a_minority(&mut self) -> Checked {
        let Some(first) = self.options.off_at_the_end else {
            return Ok(());
        };
        let count = self.options.replica_count;
        let quorum = quorum::replication(count).max(quorum::view_change(count));
        let minority = u8::try_from(usize::from(count) - quorum).expect("below the count");
        let off = (first..first + minority).map(|replica| replica % count);
        for replica in off.clone() {
            self.crash(replica);
        }
        for index in 0..self.options.client_count {
            self.ask_for_accounts(index);
        }
        let liveness = Liveness::new(self.options.calm_max, self.now());
        while let Some(lacking) = self.unanswered() {
            liveness.at(self.now(), Some(&format!("without a minority, {lacking}")))?;
            self.run_for(5 * TICK_NS)?;
        }
        for replica in off {
            self.start(replica)?;
        }
        self.wait(Liveness::new(self.options.calm_max, self.now()))
    }

    /// Everybody runs the latest release that anybody runs.
    fn finish_upgrade(&mut self) {
        let latest = self.hosts.iter().map(|host| host.release).max();
        for replica in self.members() {
            if Some(self.hosts[usize::from(replica)].release) != latest {
                self.change_release(replica);
            }
        }
    }

    fn wait(&mut self, liveness: Liveness) -> Checked {
        while let Some(lacking) = self.lacking() {
            if let Err(mut violation) = liveness.at(self.now(), Some(&lacking)) {
                for replica in self.members() {
                    let running = self.hosts[usize::from(replica)].replica();
                    let base = running.map(|r| r.vsr().log().base());
                    let progress = self.progress(replica);
                    let refusals: Vec<_> = running.iter().flat_map(|r| r.refusals()).collect();
                    let sure = running.map(|r| r.vsr().is_sure());
                    let missing: Vec<Op> = running
                        .iter()
                        .flat_map(|r| r.vsr().log().missing())
                        .take(8)
                        .collect();
                    violation.what += &format!(
                        "\n  replica {replica}: base {base:?} sure {sure:?} missing {missing:?} {progress:?} {refusals:?}"
                    );
                }
                return Err(violation);
            }
            self.run_for(5 * TICK_NS)?;
        }
        Ok(())
    }

    /// A client that waits, if one does.
    fn unanswered(&self) -> Option<String> {
        let client = self.clients.iter().find(|client| !client.is_done())?;
        let left = client.requests_left;
        Some(format!(
            "client {} waits, {left} requests left",
            client.index
        ))
    }

    /// What is still to be done, if anything is.
    fn lacking(&self) -> Option<String> {
        if let Some(client) = self.unanswered() {
            return Some(client);
        }
        let committed = self.log.head();
        for replica in self.members() {
            let Some(progress) = self.progress(replica) else {
                return Some(format!("replica {replica} is off"));
            };
            let at_rest = progress.status == Status::Normal
                && !progress.checkpoint_lost
                && !progress.halted
                && progress.executed == committed
                && progress.head == committed
                && self.is_healed(replica);
            if !at_rest {
                return Some(format!("replica {replica} of op {committed}: {progress:?}"));
            }
        }
        None
    }

    /// Whether a replica votes, and has all that its disk had damaged.
    fn is_healed(&self, replica: ReplicaIndex) -> bool {
        let running = self.hosts[usize::from(replica)].replica();
        running.is_some_and(|running| {
            let vsr = running.vsr();
            !vsr.is_recovering() && vsr.log().missing().next().is_none()
        })
    }

    /// Every client that has a session looks at everything; the model knows what it must see.
    fn ask_for_accounts(&mut self, index: u32) {
        let client = &mut self.clients[index as usize];
        if client.session.is_registered() {
            let work = client.workload.lookup_all_accounts();
            client.ask(&work, self.acknowledged.highest());
            self.transmit(index);
        }
    }

    fn check_at_rest(&mut self) -> Checked {
        self.replies.check_books()?;
        for replica in self.members() {
            let host = &self.hosts[usize::from(replica)];
            let progress = host.replica().map(|r| r.progress()).expect("all are up");
            self.acknowledged.at_rest(replica, progress.executed)?;
            let Some(digest) = host.digest() else {
                // It needs all files. A scrub may take longer than this to find what has rotted.
                hold!(!host.is_mended(), "state", "replica {replica} has none");
                continue;
            };
            self.digests.on_state(replica, progress.executed, digest)?;
        }
        Ok(())
    }

    fn report(&self) -> Report {
        Report {
            fingerprint: self.trace.fingerprint(),
            simulated: self.now(),
            committed: self.log.head(),
            acknowledged: self.acknowledged.count,
            views: self.counts.views,
            starts: self.counts.starts,
            checkpoints: self.counts.checkpoints.iter().filter(|op| **op > 0).count() as u64,
            digests_compared: self.digests.compared,
            settled: self.counts.settled,
            faults: self.faults.tally,
            damaged: self.counts.damaged,
            set_back: self.counts.set_back,
            lost_disks: self.counts.lost_disks,
            evictions: self.counts.evictions,
            transfers: self.counts.transfers,
        }
    }

    /// Everything goes; every buffer must have come back.
    fn switch_off(&mut self) -> Checked {
        self.queue = Queue::<Event>::default();
        let random = Random::new(0, Stream::Network, 0);
        self.network = Network::new(Quality::GOOD, random);
        for host in &mut self.hosts {
            host.crash();
            for pool in host.pools.drain(..) {
                check_pool(host.index, &pool)?;
            }
        }
        hold!(
            self.network.waiting() == 0,
            "bounds",
            "messages are left in the network"
        );
        Ok(())
    }
}
