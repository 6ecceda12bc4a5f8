//! A replica that runs on a thread of the test, and clients for it.

use std::collections::{BTreeMap, VecDeque};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use zerocopy::IntoBytes;

use super::super::*;
use super::echo::{Builder, CLIENT, Copier, Echo, Seen};
use crate::limits::HEADER_SIZE;
use crate::message::{Command, Header, Pool, PoolConfig};
use crate::store::MemoryStorage;

/// As many as a small number of sessions has.
pub(super) const CONNECTIONS_MAX: usize = crate::limits::connections_max(64);

pub(super) struct Running {
    pub(super) address: SocketAddr,
    pub(super) stop: Stop,
    pub(super) pool: Pool,
    pub(super) seen: Arc<Seen>,
    pub(super) thread: JoinHandle<Result<Report, Error>>,
    pub(super) directory: tempfile::TempDir,
}

pub(super) fn open_file(path: &Path, writable: bool) -> OwnedFd {
    std::fs::write(path, vec![0; 64 << 20]).unwrap();
    let mut options = OpenOptions::new();
    options.read(true).write(writable);
    let direct = options.clone().custom_flags(libc::O_DIRECT).open(path);
    // Where temporary files live in memory there is no direct I/O, and nothing to lose by that here.
    direct.or_else(|_| options.open(path)).unwrap().into()
}

pub(super) struct Setup {
    pub(super) pool: PoolConfig,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) replica: u8,
    pub(super) writable: bool,
    pub(super) tick: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            pool: PoolConfig {
                small: 2000,
                medium: 40,
                large: 60,
                huge_pages: false,
            },
            addresses: vec![free_address()],
            replica: 0,
            writable: true,
            tick: 5_000_000,
        }
    }
}

/// An address that nobody listens on. Below the range from which the kernel takes ports for those
/// who dial, and never the same twice.
pub(super) fn free_address() -> SocketAddr {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed) + u64::from(std::process::id()) * 37;
        let port = u16::try_from(10_000 + number % 20_000).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if std::net::TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

impl Running {
    pub(super) fn start(setup: Setup) -> Self {
        let pool = Pool::new(&setup.pool).unwrap();
        let seen = Arc::new(Seen::default());
        let stop = Stop::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let files = Files::of(
            vec![open_file(&directory.path().join("journal"), setup.writable)],
            open_file(&directory.path().join("superblock"), true),
        );
        let address = setup.addresses[usize::from(setup.replica)];
        let listener = Listener::bind(address).unwrap();
        let driver = Echo {
            pool: pool.clone(),
            seen: Arc::clone(&seen),
            offset: 0,
            token: 0,
            writing: BTreeMap::new(),
            reading: BTreeMap::new(),
            executing: VecDeque::new(),
            held: Vec::new(),
            superblock: Vec::new(),
            checkpoint: None,
            hold_ticks: 0,
            op: 0,
            peers: Vec::new(),
        };
        let config = Config {
            replica: setup.replica,
            addresses: setup.addresses,
            connections_max: CONNECTIONS_MAX,
            pin: Pin::Never,
            tick: setup.tick,
        };
        let (shared, stopper) = (pool.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let parts = Parts {
                listener,
                pool: shared,
                files,
                driver,
                executor: Copier(0),
                builder: Builder,
                librarians: std::array::from_fn(|_| {
                    Librarian::new(Box::new(MemoryStorage::default()))
                }),
            };
            run(&config, parts, &stopper)
        });
        Self {
            address,
            stop,
            pool,
            seen,
            thread,
            directory,
        }
    }

    pub(super) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// Stops, and checks that nothing has leaked.
    pub(super) fn stop(self) -> Report {
        self.stop.request();
        let report = self.thread.join().unwrap().unwrap();
        assert!(self.pool.is_whole(), "{:?}", self.pool);
        report
    }
}

pub(super) struct Client(pub(super) TcpStream);

impl Client {
    pub(super) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    pub(super) fn send(&mut self, operation: u8, body: &[u8]) {
        self.0.write_all(&encode(operation, CLIENT, body)).unwrap();
    }

    pub(super) fn receive(&mut self) -> (Header, Vec<u8>) {
        self.try_receive().expect("an answer")
    }

    /// `None` when the connection is closed instead.
    pub(super) fn try_receive(&mut self) -> Option<(Header, Vec<u8>)> {
        let mut header = [0; HEADER_SIZE];
        self.0.read_exact(&mut header).ok()?;
        let header: Header = zerocopy::transmute!(header);
        header.verify().unwrap();
        let mut body = vec![0; header.body_size()];
        self.0.read_exact(&mut body).unwrap();
        header.verify_body(&body).unwrap();
        Some((header, body))
    }

    pub(super) fn call(&mut self, operation: u8, body: &[u8]) {
        self.send(operation, body);
        assert_eq!(self.receive().1, body);
    }

    /// The other side has closed, after at most this many bytes.
    pub(super) fn expect_end(mut self) -> usize {
        let mut rest = Vec::new();
        let _ = self.0.read_to_end(&mut rest);
        rest.len()
    }
}

pub(super) fn encode(operation: u8, replica: u8, body: &[u8]) -> Vec<u8> {
    let mut header = Header::new(Command::Request, 1, replica, 0);
    header.operation = operation;
    header.size = u32::try_from(HEADER_SIZE + body.len()).unwrap();
    header.seal(body);
    [header.as_bytes(), body].concat()
}

pub(super) fn body(size: usize, seed: u8) -> Vec<u8> {
    (0..size)
        .map(|index| u8::try_from((index * 31 + usize::from(seed)) % 251).unwrap())
        .collect()
}

pub(super) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
