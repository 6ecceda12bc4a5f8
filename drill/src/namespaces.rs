//! A network namespace for each replica, and one for the drill and its clients, which routes between
//! them and drops what it is told to.
//!
//! ```text
//!   replica 0            drill, clients                  replica 1
//!   10.77.0.2 ── veth ── 10.77.0.1   10.77.1.1 ── veth ── 10.77.1.2
//!                          rule: from 10.77.0.2 to 10.77.1.2 blackhole
//! ```
//!
//! A rule that says `blackhole` drops the packets of one direction between two replicas without a word
//! to anybody; TCP retransmits, with growing pauses, as over a broken cable. Everything is made in the
//! namespace that the drill has moved to, so the machine's own network is left alone and the kernel
//! clears all of it away when the last process has ended.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::process::{end_with_this_thread, run};
use crate::trouble::Trouble;

#[derive(Debug)]
pub(crate) struct Namespaces {
    addresses: Vec<SocketAddr>,
    /// One sleeping process each keeps a namespace alive while its replica does not run.
    holders: Vec<Child>,
    cut: BTreeSet<(usize, usize)>,
}

/// The router's end and the replica's end of a link.
fn ends(replica: usize) -> [Ipv4Addr; 2] {
    let subnet = u8::try_from(replica).expect("few replicas");
    [1, 2].map(|end| Ipv4Addr::new(10, 77, subnet, end))
}

impl Namespaces {
    /// Moves this thread, and all that it starts from now on, to a namespace of its own, and makes one
    /// for each replica; the ports stay. The reason where the machine does not permit it.
    pub(crate) fn make(replicas: &[SocketAddr]) -> Result<Self, String> {
        own_network().map_err(|error| error.to_string())?;
        ip(&["link", "set", "lo", "up"])?;
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").map_err(|error| error.to_string())?;
        let mut made = Self {
            addresses: Vec::new(),
            holders: Vec::new(),
            cut: BTreeSet::new(),
        };
        for (index, replica) in replicas.iter().enumerate() {
            let [_, own] = ends(index);
            made.addresses.push(SocketAddr::from((own, replica.port())));
            made.holders
                .push(hold().map_err(|error| error.to_string())?);
            made.connect(index)?;
        }
        Ok(made)
    }

    /// A cable between the router and one replica.
    fn connect(&self, index: usize) -> Result<(), String> {
        let process = self.holders[index].id().to_string();
        let name = format!("replica{index}");
        let [router, own] = ends(index);
        ip(&[
            "link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns", &process,
        ])?;
        ip(&["addr", "add", &format!("{router}/24"), "dev", &name])?;
        ip(&["link", "set", &name, "up"])?;
        let inside = |arguments: &[&str]| {
            let place = format!("--net=/proc/{process}/ns/net");
            run("nsenter", &[&[place.as_str(), "ip"], arguments].concat())
        };
        inside(&["link", "set", "lo", "up"])?;
        inside(&["addr", "add", &format!("{own}/24"), "dev", "eth0"])?;
        inside(&["link", "set", "eth0", "up"])?;
        inside(&["route", "add", "default", "via", &router.to_string()])
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(crate) fn command(&self, replica: usize, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        let process = self.holders[replica].id();
        command.arg(format!("--net=/proc/{process}/ns/net"));
        command.arg("--").arg(program);
        command
    }

    pub(crate) fn set(&mut self, from: usize, to: usize, open: bool) -> Result<(), Trouble> {
        if from == to || self.cut.contains(&(from, to)) != open {
            return Ok(());
        }
        let verb = if open { "del" } else { "add" };
        let [[_, source], [_, target]] = [ends(from), ends(to)];
        let (source, target) = (source.to_string(), target.to_string());
        ip(&["rule", verb, "from", &source, "to", &target, "blackhole"])
            .map_err(Trouble::failed)?;
        if open {
            self.cut.remove(&(from, to));
        } else {
            self.cut.insert((from, to));
        }
        Ok(())
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            // One that has ended already holds nothing.
            let _ = holder.kill();
            let _ = holder.wait();
        }
        for index in 0..self.holders.len() {
            // The next drill of this process makes links of the same names.
            let _ = ip(&["link", "del", &format!("replica{index}")]);
        }
        let open: Vec<(usize, usize)> = self.cut.iter().copied().collect();
        for (from, to) in open {
            let _ = self.set(from, to, true);
        }
    }
}

fn own_network() -> std::io::Result<()> {
    // SAFETY: unshare changes which network this thread sees; no memory is involved.
    match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// A process that does nothing, in a network namespace of its own.
fn hold() -> std::io::Result<Child> {
    let mut command = Command::new("sleep");
    command
        .arg("infinity")
        .stdin(Stdio::null())
        .process_group(0);
    end_with_this_thread(&mut command);
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(own_network) };
    command.spawn()
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    run("ip", arguments)
}
