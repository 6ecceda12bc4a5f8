//! The replica thread's loop: completions become inputs, outputs become operations.
//!
//! ```text
//!          ┌──────────────────────────────────────────────────────────────┐
//!          ▼                                                              │
//!   read the clocks ─► completions, answers, tick ─► driver ─► outputs ─► submit, and sleep
//!                         (inputs, in order)                     until something completes,
//!                                                                a thread wakes us, or the tick
//! ```
//!
//! One `io_uring_enter` for each round submits everything the round has caused. What takes long by
//! itself (verifying a large message) is followed by a submission of its own, so that the disk
//! does not wait for the processor.
//!
//! There is no wiring here: what an input means is the driver's affair.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::bus::Bus;
use super::clock::Clock;
use super::disk::Disk;
use super::ring::{Completion, Kind, Ring, Wait};
use super::wake::Wake;
use super::workers::{Execute, Workers};
use super::{Driver, Error, Report};
use crate::protocol::Time;
use crate::replica::io::{Fatal, Input, Output};

/// How long what is under way may take after a stop was asked for.
const STOP_MAX: Duration = Duration::from_secs(5);
/// How long answers to clients may take of that: those who do not read are not waited for.
const STOP_REPLIES_MAX: Duration = Duration::from_millis(500);
/// How long the kernel may take to give back what is in flight when every socket has been shut down.
const DRAIN_MAX: Duration = Duration::from_secs(3);

/// Inputs of which the processing is worth a submission of its own: half of the time a device takes
/// for the message.
const LARGE_MESSAGE: usize = 64 * 1024;

pub(super) struct World<D, E: Execute> {
    pub(super) driver: D,
    pub(super) ring: Ring,
    pub(super) bus: Bus,
    pub(super) disk: Disk,
    pub(super) workers: Workers<E>,
    pub(super) wake: Arc<Wake>,
    pub(super) clock: Clock,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) inputs: VecDeque<Input>,
    pub(super) outputs: Vec<Output>,
    pub(super) completions: Vec<Completion>,
    pub(super) next_tick: u64,
    pub(super) tick: u64,
    pub(super) rounds: u64,
    pub(super) fatal: Option<Fatal>,
    /// The replica wants to be opened again.
    pub(super) reopen: bool,
}

impl<D: Driver, E: Execute> World<D, E> {
    /// Runs until a stop is asked for, or the replica stops itself.
    pub(super) fn run(mut self) -> Result<Report, Error> {
        self.wake.arm(&mut self.ring);
        self.bus.accept(&mut self.ring);
        let now = self.clock.read();
        self.driver.start(now, &mut self.outputs);
        self.carry_out(now);
        let mut result = Ok(());
        while !self.stop.load(Ordering::Relaxed)
            && !self.reopen
            && self.fatal.is_none()
            && result.is_ok()
        {
            result = self.round();
        }
        if result.is_ok() && self.fatal.is_none() {
            result = self.finish_work();
        }
        self.end(result)
    }

    /// One turn of the loop.
    fn round(&mut self) -> Result<(), Error> {
        self.rounds += 1;
        let now = self.clock.read();
        self.collect(now);
        if now.monotonic >= self.next_tick {
            // A late tick is not followed by others at once: time passes, ticks are only a rhythm.
            self.next_tick = now.monotonic + self.tick;
            self.bus
                .on_tick(now.monotonic, &mut self.ring, &mut self.inputs);
            self.inputs.push_back(Input::Tick);
        }
        self.deliver(now)?;
        if self.bus.has_waiting() {
            self.bus.resume(&mut self.ring, &mut self.inputs);
        }
        if self.fatal.is_some() || self.reopen {
            return Ok(());
        }
        self.sleep()
    }

    /// Submits, and sleeps unless there is something to do.
    fn sleep(&mut self) -> Result<(), Error> {
        let wait = if self.inputs.is_empty() && !self.workers.has_answers() {
            self.wake.before_sleep();
            let stopping = self.stop.load(Ordering::Relaxed);
            if self.workers.has_answers() || stopping {
                Wait::No
            } else {
                let now = self.clock.monotonic();
                Wait::Until(Duration::from_nanos(self.next_tick.saturating_sub(now)))
            }
        } else {
            Wait::No
        };
        let result = self.ring.enter(wait).map_err(Error::Enter);
        self.wake.after_sleep();
        result
    }

    /// Turns what has completed and been answered into inputs.
    fn collect(&mut self, now: Time) {
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.completions(&mut completions);
        for completion in completions.drain(..) {
            self.on_completion(completion, now.monotonic);
        }
        self.completions = completions;
        while let Some(input) = self.workers.take() {
            self.inputs.push_back(input);
        }
    }

    fn on_completion(&mut self, completion: Completion, now: u64) {
        let (ring, inputs) = (&mut self.ring, &mut self.inputs);
        match completion.token.kind {
            Kind::Wake => self.wake.arm(ring),
            Kind::Accept => self.bus.on_accepted(completion, now, ring),
            Kind::Receive => self.bus.on_received(completion, now, ring, inputs),
            Kind::Send => self.bus.on_sent(completion, now, ring, inputs),
            Kind::Connect => self.bus.on_connected(completion, now, ring, inputs),
            Kind::Aside => {}
            Kind::Disk => inputs.extend(self.disk.on_completion(completion, ring)),
        }
    }

    /// Gives the driver its inputs, and carries out what it wants.
    fn deliver(&mut self, now: Time) -> Result<(), Error> {
        while let Some(input) = self.inputs.pop_front() {
            let large = matches!(&input, Input::Received { message, .. }
                if message.frame_capacity() > LARGE_MESSAGE);
            self.driver.on_input(input, now, &mut self.outputs);
            self.carry_out(now);
            if self.fatal.is_some() {
                return Ok(());
            }
            if large && !self.inputs.is_empty() {
                self.flush(now);
                if self.ring.has_pushed() {
                    self.ring.enter(Wait::No).map_err(Error::Enter)?;
                }
            }
        }
        self.flush(now);
        Ok(())
    }

    fn flush(&mut self, now: Time) {
        self.bus
            .flush(now.monotonic, &mut self.ring, &mut self.inputs);
    }

    fn carry_out(&mut self, now: Time) {
        let mut outputs = std::mem::take(&mut self.outputs);
        let (ring, inputs) = (&mut self.ring, &mut self.inputs);
        for output in outputs.drain(..) {
            match output {
                Output::SendReplica { to, message } => self.bus.send_replica(to, message),
                Output::Dial { replica } => self.bus.dial_now(replica, now.monotonic, ring),
                Output::SendClient {
                    connection,
                    message,
                    size,
                } => {
                    let message = (message, size);
                    self.bus
                        .send_client(connection, message, now.monotonic, inputs);
                }
                Output::Close { connection, reason } => {
                    self.bus
                        .close_gently(connection, reason, now.monotonic, ring, inputs);
                }
                Output::JournalWrite(write) => self.disk.write(write, ring),
                Output::JournalRead {
                    token,
                    file,
                    offset,
                    size,
                    message,
                } => self.disk.read(token, (file, offset, size), message, ring),
                Output::SuperblockWrite {
                    token,
                    offset,
                    sector,
                } => self.disk.write_superblock(token, offset, sector, ring),
                Output::Task(task) => inputs.extend(self.workers.start(task).map(Input::Done)),
                Output::Checkpoint(task) => self.workers.build(task),
                Output::Library(task) => self.workers.library(task),
                Output::Reopen => self.reopen = true,
                Output::Stop(fatal) => self.fatal = Some(fatal),
            }
        }
        self.outputs = outputs;
    }

    /// After a stop was asked for: what was begun is finished, nothing new is taken.
    fn finish_work(&mut self) -> Result<(), Error> {
        tracing::info!("stopping: finishing what is under way");
        self.bus.stop_accepting();
        let start = Instant::now();
        loop {
            let waited = start.elapsed();
            let busy = self.disk.writes_in_flight() > 0
                || self.workers.is_executing()
                || !self.inputs.is_empty();
            let replying = waited < STOP_REPLIES_MAX && self.bus.is_sending_to_clients();
            if !(busy || replying) {
                return Ok(());
            }
            if waited >= STOP_MAX {
                tracing::warn!(
                    writes = self.disk.writes_in_flight(),
                    "the disk did not finish within {STOP_MAX:?}; what it had not confirmed was not \
                     acknowledged to anybody"
                );
                return Ok(());
            }
            // Without its sleep, which ends at once while a stop is wanted.
            let now = self.clock.read();
            self.collect(now);
            self.deliver(now)?;
            if self.fatal.is_some() {
                return Ok(());
            }
            self.ring
                .enter(Wait::Until(Duration::from_millis(1)))
                .map_err(Error::Enter)?;
        }
    }

    /// Gives everything back to the system, so that no memory goes while the kernel uses it.
    fn end(mut self, mut result: Result<(), Error>) -> Result<Report, Error> {
        let now = self.clock.read().monotonic;
        self.bus.stop_accepting();
        self.bus.close_all(now, &mut self.ring, &mut self.inputs);
        super::wake::signal(self.wake.descriptor());
        let start = Instant::now();
        let mut lost = None;
        while self.ring.in_flight() > 0 {
            if start.elapsed() > DRAIN_MAX {
                lost = Some(self.ring.in_flight());
                break;
            }
            if self
                .ring
                .enter(Wait::Until(Duration::from_millis(10)))
                .is_err()
            {
                lost = Some(self.ring.in_flight());
                break;
            }
            let mut completions = std::mem::take(&mut self.completions);
            self.ring.completions(&mut completions);
            for completion in completions.drain(..) {
                if completion.token.kind != Kind::Wake {
                    self.on_completion(completion, now);
                }
            }
            self.completions = completions;
        }
        let mut report = Report::new(&self.bus, &self.workers, self.rounds);
        report.reopen = self.reopen;
        let Self {
            driver,
            ring,
            bus,
            disk,
            workers,
            wake,
            inputs,
            outputs,
            fatal,
            ..
        } = self;
        let ended = workers.stop(Instant::now() + DRAIN_MAX);
        if report.reopen && !(ended && lost.is_none()) {
            // What does not end may still write to these files.
            result = result.and(Err(Error::Busy));
        }
        if let Some(count) = lost {
            // The kernel may still write into this memory: it stays until the process ends.
            tracing::warn!(
                count,
                "operations did not end; leaving their memory to the system"
            );
            std::mem::forget((driver, ring, bus, disk, wake, inputs, outputs));
        }
        result?;
        match fatal {
            Some(fatal) => Err(Error::Fatal(fatal)),
            None => Ok(report),
        }
    }
}
