//! The runtime: threads, cores, one ring, sockets, disks, clocks. The only code of the product that
//! makes system calls on the way of a request.
//!
//! ```text
//!                  ┌───────────────── replica thread: one io_uring ─────────────────┐
//!   clients   ◄────┤ bus: accept, dial, receive in two steps, send                  │
//!   replicas  ◄────┤                    world: inputs ─► Driver ─► outputs          │
//!   files     ◄────┤ disk: journal, superblock                                      │
//!                  └────────┬────────────────▲────────────────┬───────────▲─────────┘
//!                        Task│            Done│  CheckpointTask│           │CheckpointDone
//!                            │                │     LibraryTask│           │LibraryDone
//!                  ┌────────▼────────────────┴───┐   ┌────────▼───────────┴─────────┐
//!                  │ executor thread             │   │ builder, librarian threads   │
//!                  └─────────────────────────────┘   └──────────────────────────────┘
//! ```
//!
//! | file | what it does |
//! | --- | --- |
//! | `world`, `drive` | the loop, and the replica in it |
//! | `ring`, `refusal` | io_uring, and why there is none |
//! | `bus` | connections |
//! | `disk` | journal and superblock operations |
//! | `workers`, `worker`, `wake`, `cores` | the other threads |
//! | `directory`, `lock`, `storage` | the data directory and its files |
//! | `clock`, `signals`, `host` | time, stops, what the machine is |
//!
//! It contains no wiring: a [`Driver`] takes inputs and gives outputs, as in the simulator.

#![allow(
    clippy::disallowed_methods,
    reason = "this is the room that touches clocks, threads and the environment"
)]

mod bus;
mod clock;
mod cores;
pub mod directory;
mod disk;
mod drive;
pub mod host;
pub mod lock;
mod refusal;
mod ring;
#[cfg(test)]
mod runtime_test;
mod signals;
pub mod storage;
mod wake;
mod worker;
mod workers;
mod world;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use cores::Pin;
pub use disk::Files;
pub use drive::ReplicaDriver;
pub use refusal::{KERNEL_MIN, RingRefused, kernel_release, parse_release};
pub use ring::Features;
pub use workers::{Build, Execute};

use crate::limits::HEADER_SIZE;
use crate::message::Pool;
use crate::protocol::{ReplicaIndex, Time};
use crate::replica::ingress::Inspected;
use crate::replica::io::{Fatal, Input, Output};
use crate::replica::library::{LIBRARIANS, Librarian};

/// What the loop drives: the replica, or something simpler in tests.
pub trait Driver: Send + 'static {
    /// The first look at a header, between the two steps of a receive.
    ///
    /// # Errors
    /// Why the connection is to be closed.
    fn inspect(header: &[u8; HEADER_SIZE]) -> Result<Inspected, &'static str>;

    /// Called once, before the first input.
    fn start(&mut self, now: Time, outputs: &mut Vec<Output>);

    /// Takes an input, appends what is to be done.
    fn on_input(&mut self, input: Input, now: Time, outputs: &mut Vec<Output>);
}

/// How a replica is run.
#[derive(Debug, Clone)]
pub struct Config {
    pub replica: ReplicaIndex,
    /// Of all replicas, by index.
    pub addresses: Vec<SocketAddr>,
    /// Connections at once; see `limits::connections_max`.
    pub connections_max: usize,
    pub pin: Pin,
    /// Nanoseconds between two ticks.
    pub tick: u64,
}

/// Why the runtime did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Ring(#[from] RingRefused),
    #[error(
        "address {0} is taken by another process; stop it (`ss -ltnp` names it), or give this \
         replica another address"
    )]
    PortTaken(SocketAddr),
    #[error(
        "address {0} does not belong to this machine: --addresses lists every replica in the order \
         of their indexes, and this replica listens on its own"
    )]
    AddressNotHere(SocketAddr),
    #[error("cannot listen on {address}: {error}")]
    Listen {
        address: SocketAddr,
        error: io::Error,
    },
    #[error("cannot start the replica's threads: {0}")]
    Threads(io::Error),
    #[error("io_uring_enter failed: {0}")]
    Enter(io::Error),
    #[error(
        "a checkpoint was fetched, but operations on the disk did not end: start this replica again to use it"
    )]
    Busy,
    #[error("{0}")]
    Fatal(Fatal),
}

/// A stop that can be asked for from any thread.
#[derive(Clone)]
pub struct Stop {
    wanted: Arc<AtomicBool>,
    wake: Arc<wake::Wake>,
}

impl Stop {
    /// # Errors
    /// When the system has no eventfd for us.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            wanted: Arc::new(AtomicBool::new(false)),
            wake: Arc::new(wake::Wake::new()?),
        })
    }

    /// Asks the replica to finish what is under way and to end.
    pub fn request(&self) {
        self.wanted.store(true, Ordering::Release);
        wake::signal(self.wake.descriptor());
    }

    /// Whether that has been asked for.
    pub fn is_requested(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// From here on SIGTERM and SIGINT ask for it; the second one ends the process at once.
    ///
    /// # Errors
    /// When the system refuses the handler.
    pub fn on_signals(&self) -> io::Result<()> {
        signals::install(self.wanted.clone(), self.wake.clone())
    }
}

/// What a run has seen, for the log and for tests.
#[derive(Debug, Clone)]
pub struct Report {
    pub rounds: u64,
    pub accepted: u64,
    pub received: u64,
    pub sends: u64,
    pub dropped: u64,
    pub held_back: u64,
    pub tasks_inline: u64,
    pub tasks_handed: u64,
    /// Connections closed, by reason.
    pub closed: BTreeMap<&'static str, u64>,
    /// The replica has another checkpoint now, and is to be opened again.
    pub reopen: bool,
}

impl Report {
    fn new<E: Execute>(bus: &bus::Bus, workers: &workers::Workers<E>, rounds: u64) -> Self {
        let counters = bus.counters().clone();
        Self {
            rounds,
            accepted: counters.accepted,
            received: counters.received,
            sends: counters.sent,
            dropped: counters.dropped,
            held_back: counters.held_back,
            tasks_inline: workers.inline_count,
            tasks_handed: workers.handed_count,
            closed: counters.closed,
            reopen: false,
        }
    }
}

/// The address that a replica will serve on, bound already: before anything slow, so that a port
/// that is taken is an error at once.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// # Errors
    /// The address is taken, or not ours.
    pub fn bind(address: SocketAddr) -> Result<Self, Error> {
        bus::listen(address).map(Self)
    }
}

/// What a replica is run with.
#[derive(Debug)]
pub struct Parts<D, E, B> {
    pub listener: Listener,
    pub pool: Pool,
    pub files: Files,
    pub driver: D,
    pub executor: E,
    pub builder: B,
    pub librarians: [Librarian; LIBRARIANS],
}

/// Runs a replica until a stop is requested (`Ok`) or it must not go on (`Err`). Blocks the calling
/// thread; the replica gets one of its own.
///
/// # Errors
/// See [`Error`].
pub fn run<D: Driver, E: Execute, B: Build>(
    config: &Config,
    parts: Parts<D, E, B>,
    stop: &Stop,
) -> Result<Report, Error> {
    let Parts {
        listener,
        pool,
        files,
        driver,
        executor,
        builder,
        librarians,
    } = parts;
    let cores = cores::Cores::plan(config.pin);
    let workers = workers::Workers::spawn(executor, builder, librarians, &cores, &stop.wake)
        .map_err(Error::Threads)?;
    let (config, stop) = (config.clone(), stop.clone());
    let thread = std::thread::Builder::new()
        .name("replica".to_owned())
        .spawn(move || {
            cores::pin(cores.replica());
            let mut ring = ring::Ring::new()?;
            register(&pool, &mut ring);
            let disk = disk::Disk::new(files, &mut ring);
            tracing::info!(
                "io_uring {}; {} cores, threads {}",
                ring.features(),
                cores.count(),
                if cores.is_pinned() {
                    "pinned"
                } else {
                    "not pinned"
                }
            );
            let clock = clock::Clock::new();
            let seed = clock.read().wall ^ u64::from(std::process::id()) << 32;
            let bus = bus::Bus::new(
                config.connections_max,
                config.replica,
                &config.addresses,
                listener.0,
                pool.clone(),
                D::inspect,
                seed,
            );
            let world = world::World {
                driver,
                ring,
                bus,
                disk,
                workers,
                wake: stop.wake,
                clock,
                stop: stop.wanted,
                inputs: VecDeque::with_capacity(1024),
                outputs: Vec::with_capacity(1024),
                completions: Vec::with_capacity(1024),
                next_tick: 0,
                tick: config.tick,
                rounds: 0,
                fatal: None,
                reopen: false,
            };
            let result = world.run();
            for arena in pool.arenas() {
                arena.set_registered(None);
            }
            result
        })
        .map_err(Error::Threads)?;
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Makes the system back the message buffers with memory: half a second that then need not pass on
/// the way of the first messages, nor when the buffers are registered. For a thread beside the one
/// that reads the journal.
pub fn populate(pool: &Pool) {
    let mut size = 0;
    for arena in pool.arenas() {
        let (start, length) = arena.region();
        size += length;
        // SAFETY: the range is the arena's map, which the pool keeps; populating changes no byte.
        let result =
            unsafe { libc::madvise(start.cast_mut().cast(), length, libc::MADV_POPULATE_WRITE) };
        if result != 0 {
            tracing::debug!("memory is not populated: {}", io::Error::last_os_error());
        }
    }
    let huge = host::huge_pages_kib().unwrap_or_default();
    tracing::info!(
        "message buffers {} MiB; process has {} MiB in huge pages (transparent_hugepage: {})",
        size >> 20,
        huge >> 10,
        host::huge_pages_setting().as_deref().unwrap_or("unknown")
    );
}

/// Tries what a replica would get from this kernel, in words.
///
/// # Errors
/// Why there is no ring.
pub fn probe_ring() -> Result<String, RingRefused> {
    ring::Ring::new().map(|ring| ring.features().flags())
}

/// Registers the message buffers with the ring, if the kernel lets us.
fn register(pool: &Pool, ring: &mut ring::Ring) {
    let regions = pool.arenas().each_ref().map(|arena| arena.region());
    // SAFETY: the world holds a handle of the pool for as long as it holds the ring.
    if unsafe { ring.register_buffers(&regions) } {
        for (index, arena) in (0..).zip(pool.arenas()) {
            arena.set_registered(Some(index));
        }
    } else if let ring::Registration::Refused(why) = &ring.features().buffers {
        tracing::warn!("message buffers are not registered: {why}");
    }
}
