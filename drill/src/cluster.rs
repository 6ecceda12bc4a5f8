//! Replicas as an operator has them: a program, a directory each, a list of addresses.
//!
//! ```text
//!   DIR/replica-0/       data directory       DIR/replica-0.log    what it said, over all its starts
//!   DIR/replica-1/       ...
//! ```
//!
//! All listen on loopback, on ports that were free. Clients dial those; replicas dial each other through
//! links of their own where the drill wants to cut them. A replica that ends without having been told to is
//! a failed drill, whatever the account says.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use stampede_bench::engine::Clock;
use stampede_bench::pace::Nanos;
use stampede_client::Options;

use crate::args::Settings;
use crate::catalog::Drill;
use crate::links::Links;
use crate::process::{Line, Process};
use crate::trouble::Trouble;

/// Identity of the cluster: not zero, so that a mistaken default would show.
const CLUSTER: u128 = 3;
/// Ports below those that the kernel takes for outgoing connections.
const PORT_MIN: u16 = 20_000;
const PORT_MAX: u16 = 32_000;
/// Journal entries looked at, the newest.
const ENTRIES_MAX: u64 = 2_000;
/// How long a replica may take to stop in order.
const STOP_MAX: Nanos = 30_000_000_000;
/// A port that nobody listens on.
const DISCARD: u16 = 9;

#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) directory: PathBuf,
    pub(crate) address: SocketAddr,
    log: PathBuf,
    process: Option<Process>,
    /// When it was started last.
    started: Nanos,
}

/// A committed entry of a journal, where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) op: u64,
    pub(crate) file: PathBuf,
    pub(crate) offset: u64,
}

/// Reads the JSON of `stampede inspect journal`.
fn entries_of(json: &[u8], journal: &Path) -> Option<Vec<Entry>> {
    let document: serde_json::Value = serde_json::from_slice(json).ok()?;
    let log = &document["journal"];
    let commit = log["log"]["commit"].as_u64()?;
    let rows = log["rows"].as_array()?.iter();
    let live = rows.filter(|row| row["status"] == "live");
    let entries = live.filter_map(|row| {
        let file = row["file"].as_u64()?;
        Some(Entry {
            op: row["op"].as_u64()?,
            file: journal.join(format!("journal-{file:04}.seg")),
            offset: row["offset"].as_u64()?,
        })
    });
    Some(entries.filter(|entry| entry.op <= commit).collect())
}

#[derive(Debug)]
pub(crate) struct Cluster {
    program: PathBuf,
    journal_mebibytes: u64,
    scrub_mebibytes: u64,
    /// Sessions that it is formatted for, where that is not the default.
    sessions: Option<u32>,
    clock: Clock,
    pub(crate) replicas: Vec<Replica>,
    links: Option<Links>,
}

impl Cluster {
    /// Replicas below `directory`, which is made; not formatted yet.
    pub(crate) fn new(
        settings: &Settings,
        directory: &Path,
        drill: &Drill,
        clock: Clock,
    ) -> Result<Self, Trouble> {
        fs::create_dir_all(directory)
            .map_err(|error| Trouble::failed(format!("{}: {error}", directory.display())))?;
        let mut ports = Ports::new();
        let replicas = (0..settings.replicas).map(|index| {
            Ok(Replica {
                directory: directory.join(format!("replica-{index}")),
                address: ports.next()?,
                log: directory.join(format!("replica-{index}.log")),
                process: None,
                started: 0,
            })
        });
        Ok(Self {
            program: settings.program.clone(),
            journal_mebibytes: drill.journal_mebibytes,
            scrub_mebibytes: drill.scrub_mebibytes,
            sessions: drill.seats.map(|seats| settings.clients + seats),
            clock,
            replicas: replicas.collect::<Result<_, Trouble>>()?,
            links: None,
        })
    }

    /// Has replicas reach each other over links that can be cut, from their next start on; what is to
    /// be known about the kind of links.
    pub(crate) fn lay_links(&mut self, namespaces: bool) -> Result<Option<String>, Trouble> {
        let addresses: Vec<SocketAddr> = self.replicas.iter().map(|it| it.address).collect();
        let (links, note) = Links::lay(&addresses, namespaces)?;
        for (index, replica) in self.replicas.iter_mut().enumerate() {
            replica.address = links.address_of(index).unwrap_or(replica.address);
        }
        self.links = Some(links);
        Ok(note)
    }

    pub(crate) fn links(&mut self) -> &mut Links {
        let links = self.links.as_mut();
        links.expect("the story lays links before it cuts them")
    }

    pub(crate) fn count(&self) -> usize {
        self.replicas.len()
    }

    pub(crate) fn majority(&self) -> usize {
        self.count() / 2 + 1
    }

    /// Makes a data directory with `stampede format` or `stampede recover`.
    pub(crate) fn make(&self, command: &str, index: usize) -> Result<(), Trouble> {
        let output = Command::new(&self.program)
            .arg(command)
            .arg(format!("--cluster={CLUSTER}"))
            .arg(format!("--replica={index}"))
            .arg(format!("--replica-count={}", self.count()))
            .arg(format!("--journal-size={}MiB", self.journal_mebibytes))
            .args(self.sessions.map(|count| format!("--clients-max={count}")))
            .arg(&self.replicas[index].directory)
            .output()
            .map_err(|error| {
                Trouble::failed(format!("cannot run {}: {error}", self.program.display()))
            })?;
        if output.status.success() {
            return Ok(());
        }
        Err(Trouble::failed(format!(
            "stampede {command} of replica {index}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )))
    }

    /// How a client speaks to one replica only: at the places of the others nobody answers.
    pub(crate) fn options_for_one(&self, index: usize) -> Options {
        let mut options = self.options();
        for (other, address) in options.addresses.iter_mut().enumerate() {
            if other != index {
                address.set_port(DISCARD);
            }
        }
        options
    }

    /// How clients reach it.
    pub(crate) fn options(&self) -> Options {
        let addresses = self.replicas.iter().map(|replica| replica.address);
        Options::new(CLUSTER, addresses.collect())
    }

    /// Starts a replica's process.
    pub(crate) fn launch(&mut self, index: usize) -> Result<(), Trouble> {
        let own: Vec<SocketAddr> = self.replicas.iter().map(|it| it.address).collect();
        let links = self.links.as_ref();
        let addresses = links.map_or(own.as_slice(), |links| links.addresses_for(index));
        let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
        let replica = &mut self.replicas[index];
        assert!(replica.process.is_none(), "replica {index} runs already");
        let log = File::options().create(true).append(true).open(&replica.log);
        let log =
            log.map_err(|error| Trouble::failed(format!("{}: {error}", replica.log.display())))?;
        let mut command = links.map_or_else(
            || Command::new(&self.program),
            |links| links.command(index, &self.program),
        );
        command
            .arg("start")
            .arg(format!("--addresses={}", addresses.join(",")))
            .arg(format!("--scrub={}MiB", self.scrub_mebibytes))
            .arg(&replica.directory);
        replica.started = self.clock.now();
        replica.process = Some(Process::start(command, log, self.clock)?);
        Ok(())
    }

    /// Replicas whose process is there.
    pub(crate) fn running(&self) -> usize {
        let processes = self.replicas.iter();
        processes
            .filter(|replica| replica.process.is_some())
            .count()
    }

    /// Stops a replica in order.
    pub(crate) fn stop(&mut self, index: usize) -> Result<(), Trouble> {
        let Some(mut process) = self.replicas[index].process.take() else {
            return Ok(());
        };
        process.signal(libc::SIGTERM);
        let end = self.clock.now() + STOP_MAX;
        while process.ended().is_none() {
            if self.clock.now() > end {
                return Err(Trouble::failed(format!(
                    "replica {index} does not stop when it is told to"
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// The id of a replica's process.
    pub(crate) fn process(&self, index: usize) -> Option<u32> {
        self.replicas[index].process.as_ref().map(Process::id)
    }

    /// What `stampede inspect` finds in the journal of a replica that does not run: its newest entries
    /// that are committed.
    pub(crate) fn inspect_journal(&self, index: usize) -> Result<Vec<Entry>, Trouble> {
        let directory = &self.replicas[index].directory;
        let output = Command::new(&self.program)
            .arg("inspect")
            .arg("--json")
            .arg(format!("--limit={ENTRIES_MAX}"))
            .arg("journal")
            .arg(directory)
            .output()
            .map_err(|error| Trouble::failed(format!("stampede inspect: {error}")))?;
        entries_of(&output.stdout, &directory.join("journal")).ok_or_else(|| {
            Trouble::failed(format!(
                "stampede inspect of replica {index} says nothing of a journal: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ))
        })
    }

    /// kill -9 of all of these at once.
    pub(crate) fn kill(&mut self, indexes: &[usize]) {
        for index in indexes {
            if let Some(process) = &mut self.replicas[*index].process {
                process.signal(libc::SIGKILL);
            }
        }
        for index in indexes {
            if let Some(mut process) = self.replicas[*index].process.take() {
                process.wait();
            }
        }
    }

    pub(crate) fn pause(&mut self, index: usize) {
        let replica = &mut self.replicas[index];
        if let Some(process) = &mut replica.process {
            process.signal(libc::SIGSTOP);
        }
    }

    pub(crate) fn resume(&mut self, index: usize) {
        let replica = &mut self.replicas[index];
        if let Some(process) = &mut replica.process {
            process.signal(libc::SIGCONT);
        }
    }

    /// A replica that should be running and is not.
    pub(crate) fn check(&mut self) -> Result<(), Trouble> {
        for (index, replica) in self.replicas.iter_mut().enumerate() {
            let Some(process) = &mut replica.process else {
                continue;
            };
            if let Some(status) = process.ended() {
                let tail = process.tail(4);
                replica.process = None;
                return Err(Trouble::failed(format!(
                    "replica {index} ended by itself ({status}): {tail}"
                )));
            }
        }
        Ok(())
    }

    /// The first line with `text` that a replica has said since `start`, in its present life.
    pub(crate) fn said(&self, index: usize, text: &str, start: Nanos) -> Option<Line> {
        self.replicas[index].process.as_ref()?.said(text, start)
    }

    /// Whether a replica is, as it said last, as far as the primary, or the primary itself.
    pub(crate) fn is_near(&self, index: usize) -> bool {
        const NEAR: [&str; 2] = ["caught up with the primary", " serving: primary"];
        const NOT: [&str; 3] = ["catching up:", "not serving:", "recovering:"];
        let process = self.replicas[index].process.as_ref();
        let said = process.and_then(|it| it.said_last(&[NEAR.as_slice(), &NOT].concat()));
        said.is_some_and(|line| NEAR.iter().any(|text| line.text.contains(text)))
    }

    /// When its present process was started.
    pub(crate) fn started(&self, index: usize) -> Nanos {
        self.replicas[index].started
    }
}

/// Free ports on loopback, one after the other.
struct Ports {
    next: u16,
}

impl Ports {
    fn new() -> Self {
        let range = u32::from(PORT_MAX - PORT_MIN);
        // Drills that run at the same time begin at different places.
        let offset = std::process::id().wrapping_mul(61) % range;
        Self {
            next: PORT_MIN + u16::try_from(offset).expect("below the range"),
        }
    }

    fn next(&mut self) -> Result<SocketAddr, Trouble> {
        for _ in PORT_MIN..PORT_MAX {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.next));
            self.next = if self.next + 1 < PORT_MAX {
                self.next + 1
            } else {
                PORT_MIN
            };
            if TcpListener::bind(address).is_ok() {
                return Ok(address);
            }
        }
        Err(Trouble::failed("no free port on loopback"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_entries_are_read_from_what_inspect_says() {
        let row =
            |op, status| format!(r#"{{"op":{op},"status":"{status}","file":2,"offset":4096}}"#);
        let rows = [row(7, "live"), row(7, "superseded"), row(9, "live")].join(",");
        let json = format!(r#"{{"journal":{{"log":{{"commit":8}},"rows":[{rows}]}}}}"#);
        let entries = entries_of(json.as_bytes(), Path::new("j")).unwrap();
        let expected = Entry {
            op: 7,
            file: PathBuf::from("j/journal-0002.seg"),
            offset: 4096,
        };
        assert_eq!(entries, [expected]);
        assert!(entries_of(b"nonsense", Path::new("j")).is_none());
    }
}
