//! The `stampede` command as a person meets it: real processes, exit codes, and what they say.
//!
//! Everything runs on this machine, on ports below those that the kernel hands out by itself.

#![expect(
    clippy::disallowed_methods,
    reason = "processes live in the real world, and are waited for"
)]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, and the backtrace says where"
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_stampede");
/// The smallest journal: formatting is most of what these tests do.
const JOURNAL: &str = "64MiB";

fn stampede(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().unwrap()
}

/// Exit code, standard output, standard error.
fn said(output: &Output) -> (Option<i32>, String, String) {
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// The command fails with this code, and its message holds all of these words.
#[track_caller]
fn refused(arguments: &[&str], code: i32, words: &[&str]) {
    let (status, output, error) = said(&stampede(arguments));
    assert_eq!(status, Some(code), "{arguments:?}: {error}");
    assert_eq!(output, "", "results only: {arguments:?}");
    for word in words {
        assert!(
            error.contains(word),
            "{arguments:?}: `{word}` not in: {error}"
        );
    }
}

/// A directory below the build directory: the one for temporary files may be in memory.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn port() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 11_000 + u16::try_from(std::process::id() % 1000).unwrap() * 10;
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port.to_string();
        }
    }
}

fn format(parent: &Path, replica: &str, count: &str) -> PathBuf {
    let path = parent.join(replica);
    let (code, output, error) = said(&stampede(&[
        "format",
        "--cluster",
        "7",
        "--replica",
        replica,
        "--replica-count",
        count,
        "--journal-size",
        JOURNAL,
        path.to_str().unwrap(),
    ]));
    assert_eq!(code, Some(0), "{error}");
    assert!(
        output.contains(&format!("replica {replica} of {count}")),
        "{output}"
    );
    path
}

/// A running replica; killed when it is dropped.
struct Replica {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
}

impl Replica {
    fn start(directory: &Path, addresses: &str) -> Self {
        let mut child = Command::new(BINARY)
            .args(["start", "--addresses", addresses])
            .arg(directory)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// Reads the log up to a line that holds these words.
    #[track_caller]
    fn expect(&mut self, words: &str) -> String {
        let mut all = String::new();
        loop {
            let start = all.len();
            if self.log.read_line(&mut all).unwrap() == 0 {
                panic!("`{words}` was never logged:\n{all}");
            }
            if all[start..].contains(words) {
                return all;
            }
        }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.unwrap().success());
    }

    fn wait(&mut self) -> Option<i32> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the replica does not end");
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bench(addresses: &str, transfers: &str) {
    let (code, output, error) = said(&stampede(&[
        "bench",
        "--cluster",
        "7",
        "--addresses",
        addresses,
        "--transfers",
        transfers,
        "--accounts",
        "100",
        "--no-progress",
    ]));
    assert_eq!(code, Some(0), "{output}{error}");
}

#[test]
fn a_replica_serves_stops_and_serves_again() {
    let parent = directory();
    let data = format(parent.path(), "0", "1");
    let port = port();
    for _ in 0..2 {
        let mut replica = Replica::start(&data, &port);
        replica.expect(&format!("listening on 127.0.0.1:{port}"));
        replica.expect("serving: primary");
        bench(&port, "20k");
        replica.signal("TERM");
        assert_eq!(replica.wait(), Some(0));
    }
    // Killed, it finds everything again.
    let mut replica = Replica::start(&data, &port);
    replica.expect("serving: primary");
    bench(&port, "20k");
    replica.signal("KILL");
    assert_eq!(replica.wait(), None);
    let mut replica = Replica::start(&data, &port);
    let log = replica.expect("serving: primary");
    assert!(!log.contains("log to op 0"), "{log}");
    bench(&port, "20k");
    replica.signal("INT");
    assert_eq!(replica.wait(), Some(0));
}

#[test]
fn three_replicas_serve_together_and_without_one() {
    let parent = directory();
    let data = ["0", "1", "2"].map(|index| format(parent.path(), index, "3"));
    let addresses = [port(), port(), port()].join(",");
    let mut replicas = data
        .each_ref()
        .map(|directory| Replica::start(directory, &addresses));
    for replica in &mut replicas {
        replica.expect("serving");
    }
    bench(&addresses, "20k");
    replicas[2].signal("KILL");
    replicas[2].wait();
    bench(&addresses, "20k");
    for replica in &mut replicas[..2] {
        replica.signal("TERM");
        assert_eq!(replica.wait(), Some(0));
    }
}

#[test]
fn mistakes_of_start_are_explained() {
    let parent = directory();
    let data = format(parent.path(), "1", "3");
    let data = data.to_str().unwrap();
    let missing = parent.path().join("nowhere");
    let missing = missing.to_str().unwrap();
    let empty = directory();
    let empty = empty.path().to_str().unwrap();

    refused(
        &["start", "--addresses", "1,2,3", missing],
        1,
        &[missing, "does not exist", "stampede format"],
    );
    refused(
        &["start", "--addresses", "1,2,3", empty],
        1,
        &[empty, "not formatted", "stampede format"],
    );
    refused(
        &["start", "--addresses", "1,2", data],
        2,
        &["2 entries", "3 replicas"],
    );
    refused(
        &["start", "--addresses", "1,2,2", data],
        2,
        &["127.0.0.1:2", "twice"],
    );
    refused(
        &["start", "--addresses", "1,2,three hundred", data],
        2,
        &["three hundred"],
    );
    refused(
        &["start", "--addresses", "1,2,3", "--cluster", "8", data],
        2,
        &["cluster 7, not 8"],
    );
    refused(
        &["start", "--addresses", "1,2,3", "--replica", "0", data],
        2,
        &["replica 1, not 0"],
    );
    refused(&["start", data], 2, &["--addresses"]);
    refused(
        &["start", "--addresses", "1,203.0.113.9:3001,3", data],
        1,
        &["203.0.113.9:3001", "does not belong"],
    );
}

#[test]
fn one_port_and_one_directory_serve_one_process() {
    let parent = directory();
    let (first, second) = (directory(), directory());
    let (first, second) = (
        format(first.path(), "0", "1"),
        format(second.path(), "0", "1"),
    );
    drop(parent);
    let (port, other) = (port(), port());
    let mut replica = Replica::start(&first, &port);
    replica.expect("serving");
    let id = replica.child.id().to_string();
    let first = first.to_str().unwrap();
    refused(
        &["start", "--addresses", &other, first],
        1,
        &["another process", &id, first],
    );
    let second = second.to_str().unwrap();
    refused(
        &["start", "--addresses", &port, second],
        1,
        &["127.0.0.1", &port, "taken"],
    );
}

#[test]
fn format_refuses_what_it_must_not_do() {
    let parent = directory();
    let data = format(parent.path(), "0", "1");
    let data = data.to_str().unwrap();
    let base = [
        "format",
        "--cluster",
        "7",
        "--replica",
        "0",
        "--replica-count",
        "1",
        "--journal-size",
    ];
    let with = |size, path| [&base[..], &[size, path]].concat();
    refused(&with(JOURNAL, data), 1, &[data, "never overwrites"]);

    let fresh = parent.path().join("fresh");
    let fresh = fresh.to_str().unwrap();
    refused(&with("1KiB", fresh), 2, &["--journal-size", "64 MiB"]);
    refused(&with("much", fresh), 2, &["much", "256MiB"]);
    assert!(!Path::new(fresh).exists());

    // Memory is no disk. Not every machine has this one.
    let memory = Path::new("/dev/shm");
    if std::fs::exists(memory.join(".")).unwrap_or(false) {
        let path = memory.join(format!("stampede-{}", std::process::id()));
        refused(
            &with(JOURNAL, path.to_str().unwrap()),
            1,
            &["direct I/O", "ext4"],
        );
        assert!(!path.exists(), "what a failed format made is removed");
    }
}

#[test]
fn the_machine_is_described() {
    let (code, output, _) = said(&stampede(&["version", "--verbose"]));
    assert_eq!(code, Some(0));
    for word in ["stampede 0.", "kernel", "io_uring", "client releases"] {
        assert!(output.contains(word), "{output}");
    }
    let (code, output, _) = said(&stampede(&["--version"]));
    assert_eq!((code, output.starts_with("stampede ")), (Some(0), true));
    let (code, _, error) = said(&stampede(&[]));
    assert_eq!((code, error.contains("Usage")), (Some(2), true));
}
