//! Links that can be cut: a relay on loopback between every two replicas.
//!
//! ```text
//!   replica 0 ──dials──► relay 0→1 ──dials──► replica 1
//!               gate 0→1 ─────────►   bytes pass while their gate is open; while it is closed they
//!             ◄───────── gate 1→0     wait, as behind a cable that TCP retransmits over
//! ```
//!
//! A closed gate is not a closed connection: nothing is refused and nobody is told, which is what makes
//! partitions hard. What was on its way arrives when the gate opens again. One thing differs from a
//! cable: a replica that dials while the gate is closed gets a connection that says nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::trouble::Trouble;

/// How soon a pump sees that a gate has opened or that the relay has ended.
const LOOK: Duration = Duration::from_millis(5);
const CHUNK: usize = 64 * 1024;

/// Whether bytes pass from one replica to another.
#[derive(Debug)]
struct Gate {
    open: AtomicBool,
}

#[derive(Debug)]
pub(crate) struct Relays {
    count: usize,
    /// From `a` to `b` at `a * count + b`.
    gates: Vec<Arc<Gate>>,
    /// Where `a` dials to reach `b`, at the same place; its own address where they are equal.
    addresses: Vec<SocketAddr>,
    over: Arc<AtomicBool>,
}

impl Relays {
    /// A relay for every ordered pair of replicas, all gates open.
    pub(crate) fn between(replicas: &[SocketAddr]) -> Result<Self, Trouble> {
        let count = replicas.len();
        let gates: Vec<Arc<Gate>> = (0..count * count)
            .map(|_| {
                Arc::new(Gate {
                    open: AtomicBool::new(true),
                })
            })
            .collect();
        let over = Arc::new(AtomicBool::new(false));
        let mut addresses = Vec::with_capacity(count * count);
        for from in 0..count {
            for (to, target) in replicas.iter().enumerate() {
                if from == to {
                    addresses.push(*target);
                    continue;
                }
                let there = Arc::clone(&gates[from * count + to]);
                let back = Arc::clone(&gates[to * count + from]);
                addresses.push(listen(*target, there, back, &over).map_err(|error| {
                    Trouble::failed(format!("a relay cannot listen on loopback: {error}"))
                })?);
            }
        }
        Ok(Self {
            count,
            gates,
            addresses,
            over,
        })
    }

    /// The addresses of all replicas, as one of them has to dial them.
    pub(crate) fn addresses_for(&self, replica: usize) -> &[SocketAddr] {
        &self.addresses[replica * self.count..(replica + 1) * self.count]
    }

    /// Lets bytes pass from one replica to another, or not.
    pub(crate) fn set(&self, from: usize, to: usize, open: bool) {
        self.gates[from * self.count + to]
            .open
            .store(open, Ordering::Release);
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
    }
}

/// Takes connections for `target` until the relays are over; where they are taken.
fn listen(
    target: SocketAddr,
    there: Arc<Gate>,
    back: Arc<Gate>,
    over: &Arc<AtomicBool>,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let over = Arc::clone(over);
    std::thread::spawn(move || {
        while !over.load(Ordering::Acquire) {
            match listener.accept() {
                // A replica that is not there: its dialler finds the connection closed.
                Ok((near, _)) => drop(join(near, target, &there, &back, &over)),
                Err(_) => std::thread::sleep(LOOK),
            }
        }
    });
    Ok(address)
}

/// One connection: two streams, a pump for each direction.
fn join(
    near: TcpStream,
    target: SocketAddr,
    there: &Arc<Gate>,
    back: &Arc<Gate>,
    over: &Arc<AtomicBool>,
) -> std::io::Result<()> {
    let far = TcpStream::connect(target)?;
    for stream in [&near, &far] {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
    }
    let directions = [
        (near.try_clone()?, far.try_clone()?, there),
        (far, near, back),
    ];
    for (from, to, gate) in directions {
        let (gate, over) = (Arc::clone(gate), Arc::clone(over));
        std::thread::spawn(move || pump(from, to, &gate, &over));
    }
    Ok(())
}

/// Moves bytes while the gate is open; ends with the stream, and takes the other direction with it.
fn pump(mut from: TcpStream, mut to: TcpStream, gate: &Gate, over: &AtomicBool) {
    let mut chunk = vec![0; CHUNK];
    'all: while !over.load(Ordering::Acquire) {
        let count = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if is_early(error.kind()) => continue,
            Err(_) => break,
        };
        // Looked at after the read: bytes that arrive when the gate has closed wait for it.
        while !gate.open.load(Ordering::Acquire) {
            if over.load(Ordering::Acquire) {
                break 'all;
            }
            std::thread::sleep(LOOK);
        }
        if to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    // Whoever is still there learns that the other one is not; a stream that is closed already is no
    // trouble.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// Nothing there yet.
fn is_early(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two endpoints that speak through a relay: the one that dialled, and the one that was dialled.
    fn pair() -> (Relays, TcpStream, TcpStream) {
        let [listener, other] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = [other.local_addr().unwrap(), listener.local_addr().unwrap()];
        let relays = Relays::between(&addresses).unwrap();
        let near = TcpStream::connect(relays.addresses_for(0)[1]).unwrap();
        let (far, _) = listener.accept().unwrap();
        for stream in [&near, &far] {
            let patience = Some(Duration::from_secs(10));
            stream.set_read_timeout(patience).unwrap();
        }
        (relays, near, far)
    }

    fn set_all(relays: &Relays, open: bool) {
        relays.set(0, 1, open);
        relays.set(1, 0, open);
    }

    fn says(from: &mut TcpStream, to: &mut TcpStream, text: &[u8]) {
        from.write_all(text).unwrap();
        hears(to, text);
    }

    fn hears(to: &mut TcpStream, text: &[u8]) {
        let mut heard = vec![0; text.len()];
        to.read_exact(&mut heard).unwrap();
        assert_eq!(heard, text);
    }

    fn hears_nothing(to: &mut TcpStream) {
        to.set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let error = to.read(&mut [0]).unwrap_err();
        assert!(is_early(error.kind()), "{error}");
        to.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    }

    #[test]
    fn bytes_pass_both_ways() {
        let (relays, mut near, mut far) = pair();
        says(&mut near, &mut far, b"prepare");
        says(&mut far, &mut near, b"prepare_ok");
        assert_eq!(relays.addresses_for(0).len(), 2);
    }

    #[test]
    fn a_cut_in_one_direction_leaves_the_other() {
        let (relays, mut near, mut far) = pair();
        relays.set(0, 1, false);
        near.write_all(b"lost?").unwrap();
        says(&mut far, &mut near, b"commit");
        hears_nothing(&mut far);
        // Not lost: late.
        relays.set(0, 1, true);
        hears(&mut far, b"lost?");
    }

    #[test]
    fn a_cut_link_heals_without_anybody_having_noticed() {
        let (relays, mut near, mut far) = pair();
        set_all(&relays, false);
        near.write_all(b"one").unwrap();
        far.write_all(b"two").unwrap();
        hears_nothing(&mut near);
        hears_nothing(&mut far);
        set_all(&relays, true);
        hears(&mut far, b"one");
        hears(&mut near, b"two");
    }

    #[test]
    fn an_end_is_passed_on() {
        let (_relays, near, mut far) = pair();
        drop(near);
        assert_eq!(far.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_replica_that_is_not_there_is_not_there_through_the_relay_either() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gone = listener.local_addr().unwrap();
        drop(listener);
        let relays = Relays::between(&[gone, gone]).unwrap();
        let mut near = TcpStream::connect(relays.addresses_for(0)[1]).unwrap();
        near.set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let end = near.read(&mut [0]);
        assert!(!matches!(end, Ok(1..)), "{end:?}");
    }
}
