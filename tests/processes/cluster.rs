//! Real replicas on loopback, each a process with a directory of its own under `target/`.
//!
//! Nothing is shared with other tests: ports are tried before they are given out, directories have
//! the test's name. A cluster kills its processes when it goes, and keeps its directory, logs included,
//! when the test has failed.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use stampede::limits::SESSIONS_DEFAULT;
use stampede_client::{Client, Options};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_stampede");

/// The smallest journal, so that checkpoints come often and disks fill slowly.
const JOURNAL_SIZE: &str = "64MiB";

/// How long a process may take to listen, or to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// One replica: its directory always, its process sometimes.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) directory: PathBuf,
    pub(crate) address: SocketAddr,
    log: PathBuf,
    process: Option<Child>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) cluster: u128,
    pub(crate) directory: PathBuf,
    pub(crate) replicas: Vec<Replica>,
}

/// A port on loopback that nobody listens on. Below the range from which the kernel takes ports for
/// outgoing connections, so that none of those is in the way later.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let process = u16::try_from(std::process::id() % 600).expect("below 600");
    loop {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (process * 20 + offset) % 12_000;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// An empty directory for one test, on the disk that holds `target/`.
pub(crate) fn test_directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if directory.exists() {
        fs::remove_dir_all(&directory).expect("what an earlier run left can be removed");
    }
    fs::create_dir_all(&directory).expect("target/ can be written");
    directory
}

/// The arguments of `stampede format` for one replica.
pub(crate) fn format_arguments(
    cluster: u128,
    replica: usize,
    count: usize,
    path: &Path,
) -> Vec<String> {
    let number = |name: &str, value: &dyn ToString| format!("--{name}={}", value.to_string());
    vec![
        "format".to_owned(),
        number("cluster", &cluster),
        number("replica", &replica),
        number("replica-count", &count),
        number("journal-size", &JOURNAL_SIZE),
        "--quiet".to_owned(),
        path.display().to_string(),
    ]
}

impl Cluster {
    /// Formats and starts so many replicas.
    pub(crate) fn start(name: &str, count: usize) -> Self {
        Self::start_with(name, count, SESSIONS_DEFAULT)
    }

    /// The same, with room for so many sessions.
    pub(crate) fn start_with(name: &str, count: usize, sessions: usize) -> Self {
        Self::made(name, 42, count, |mut arguments| {
            arguments.push(format!("--clients-max={sessions}"));
            arguments
        })
    }

    /// The same, where the last one was formatted with one option more than the others.
    pub(crate) fn start_with_misfit(name: &str, count: usize, option: &str) -> Self {
        let last = format!("--replica={}", count - 1);
        Self::made(name, 42, count, |mut arguments| {
            if arguments.contains(&last) {
                arguments.push(option.to_owned());
            }
            arguments
        })
    }

    /// A new cluster that begins with an image.
    pub(crate) fn restore(name: &str, cluster: u128, count: usize, image: &Path) -> Self {
        Self::made(name, cluster, count, |mut arguments| {
            arguments[0] = "restore".to_owned();
            arguments.push(format!("--from={}", image.display()));
            arguments
        })
    }

    /// Makes directories with the arguments of format, changed by `with`, and starts all replicas.
    fn made(
        name: &str,
        cluster: u128,
        count: usize,
        with: impl Fn(Vec<String>) -> Vec<String>,
    ) -> Self {
        let directory = test_directory(name);
        let replicas = (0..count).map(|index| Replica {
            directory: directory.join(format!("replica-{index}")),
            address: free_address(),
            log: directory.join(format!("replica-{index}.log")),
            process: None,
        });
        let mut cluster = Self {
            cluster,
            replicas: replicas.collect(),
            directory,
        };
        for index in 0..count {
            let path = &cluster.replicas[index].directory;
            let status = Command::new(PROGRAM)
                .args(with(format_arguments(cluster.cluster, index, count, path)))
                .status()
                .expect("the program can be run");
            assert!(status.success(), "format of replica {index}: {status}");
        }
        for index in 0..count {
            cluster.launch(index);
        }
        for index in 0..count {
            cluster.wait_until_listening(index);
        }
        cluster
    }

    /// All addresses, as the command line and clients want them.
    pub(crate) fn addresses(&self) -> String {
        let texts: Vec<String> = self
            .replicas
            .iter()
            .map(|r| r.address.to_string())
            .collect();
        texts.join(",")
    }

    /// Starts a replica's process.
    pub(crate) fn launch(&mut self, index: usize) {
        let addresses = self.addresses();
        let replica = &mut self.replicas[index];
        assert!(replica.process.is_none(), "replica {index} runs already");
        let log = File::options().create(true).append(true).open(&replica.log);
        let log = log.expect("a log can be written");
        let child = Command::new(PROGRAM)
            .args(["start", "--pin=never", &format!("--addresses={addresses}")])
            .arg(&replica.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        replica.process = Some(child.expect("the program can be run"));
    }

    /// Waits until a replica takes connections.
    pub(crate) fn wait_until_listening(&mut self, index: usize) {
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(self.replicas[index].address).is_err() {
            if let Some(status) = self.exited(index) {
                panic!("replica {index} stopped ({status}):\n{}", self.log(index));
            }
            assert!(
                Instant::now() < end,
                "replica {index} listens not:\n{}",
                self.log(index)
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The status of a replica's process, if it is over.
    pub(crate) fn exited(&mut self, index: usize) -> Option<ExitStatus> {
        let process = self.replicas[index].process.as_mut()?;
        process.try_wait().expect("our own child")
    }

    /// Of a replica that was launched.
    pub(crate) fn process_id(&self, index: usize) -> u32 {
        self.replicas[index].process.as_ref().expect("it runs").id()
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, index: usize) {
        if let Some(mut process) = self.replicas[index].process.take() {
            let early = process.try_wait().expect("our own child");
            assert!(
                early.is_none(),
                "replica {index} stopped by itself:\n{}",
                self.log(index)
            );
            process.kill().expect("our own child");
            process.wait().expect("our own child");
        }
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn stop(&mut self, index: usize, signal: i32) -> ExitStatus {
        let mut process = self.replicas[index].process.take().expect("it runs");
        let pid = i32::try_from(process.id()).expect("a process id");
        // SAFETY: no memory is involved; the process is our own child and has not been waited for,
        // so the id cannot be another's.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = process.try_wait().expect("our own child") {
                return status;
            }
            assert!(
                Instant::now() < end,
                "replica {index} does not stop:\n{}",
                self.log(index)
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Everything a replica has logged.
    pub(crate) fn log(&self, index: usize) -> String {
        fs::read_to_string(&self.replicas[index].log).unwrap_or_default()
    }

    /// Memory that a replica's process holds.
    pub(crate) fn memory_mib(&self, index: usize) -> u64 {
        let process = self.replicas[index].process.as_ref().expect("it runs");
        let status = fs::read_to_string(format!("/proc/{}/status", process.id()));
        let status = status.expect("our own child");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        kib.expect("a number").parse::<u64>().expect("a number") / 1024
    }

    /// A registered client that waits so long for each answer.
    pub(crate) fn client(&self, deadline: Duration) -> Client {
        let addresses = self
            .replicas
            .iter()
            .map(|replica| replica.address)
            .collect();
        let mut options = Options::new(self.cluster, addresses);
        options.deadline = Some(deadline);
        Client::connect(options).expect("a running cluster registers clients")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for replica in &mut self.replicas {
            if let Some(mut process) = replica.process.take() {
                drop(process.kill());
                drop(process.wait());
            }
        }
        if std::thread::panicking() {
            eprintln!("directories and logs are in {}", self.directory.display());
            for (index, replica) in self.replicas.iter().enumerate() {
                let log = fs::read_to_string(&replica.log).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let tail = &lines[lines.len().saturating_sub(8)..];
                eprintln!("── replica {index}\n{}", tail.join("\n"));
            }
        } else {
            drop(fs::remove_dir_all(&self.directory));
        }
    }
}
