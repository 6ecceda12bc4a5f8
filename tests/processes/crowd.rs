//! Hundreds of sessions at once, and ten thousand: each asks, all are answered, nobody is pushed out.
//!
//! One thread drives all of them, in rounds: everybody asks for a transfer of its own, then everybody
//! is listened to until everybody has its answer. Requests go to the primary as far as the client
//! knows; who has no answer for a while, or whose connection broke, sends the same bytes again, to
//! the next replica. An answer other than "created" would be the answer
//! to a second execution.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use stampede::limits::SESSIONS_MAX;
use stampede::runtime::host::raise_open_files;
use stampede_client::session::{Event, REGISTER_SIZE};
use stampede_client::wire::{Account, CreateResult, HEADER_SIZE, Operation, Transfer, multibatch};
use stampede_client::{Inbox, Session};
use zerocopy::{FromBytes, IntoBytes};

use super::cluster::Cluster;

/// Without an answer, the request is sent again after this.
const AGAIN: Duration = Duration::from_millis(700);
/// A round takes no longer, elections and restarts included.
const PATIENCE: Duration = Duration::from_secs(60);

/// One session, on a connection to one replica at a time.
struct Member {
    session: Session,
    /// The request in flight, or the last one.
    message: Vec<u8>,
    replica: usize,
    stream: Option<TcpStream>,
    inbox: Inbox,
    sent: Instant,
    answered: bool,
}

/// See the module.
struct Crowd {
    addresses: Vec<SocketAddr>,
    members: Vec<Member>,
    round: u64,
    /// Requests sent again.
    repeated: u64,
}

impl Member {
    fn turn_to(&mut self, replica: usize) {
        if self.replica != replica {
            (self.replica, self.stream) = (replica, None);
        }
    }

    fn send(&mut self, addresses: &[SocketAddr]) {
        self.sent = Instant::now();
        if self.stream.is_none() {
            self.inbox.clear();
            self.stream = TcpStream::connect(addresses[self.replica]).ok();
            if let Some(stream) = &self.stream {
                stream.set_nonblocking(true).expect("a socket of ours");
                stream.set_nodelay(true).expect("a socket of ours");
            }
        }
        // A few hundred bytes fit a socket's buffer, or it is not worth having.
        let sent = self.stream.as_mut().map(|s| s.write_all(&self.message));
        if !matches!(sent, Some(Ok(()))) {
            self.stream = None;
        }
    }

    /// Takes what has come. Gives whether the connection still stands.
    fn listen(&mut self) -> bool {
        let Some(stream) = &mut self.stream else {
            return false;
        };
        match stream.read(self.inbox.spare()) {
            Ok(0) => return false,
            Ok(count) => self.inbox.filled(count),
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
        while let Some((header, body)) = self.inbox.message().expect("a server of ours") {
            match self.session.receive(header, body).expect("a right answer") {
                Event::Registered => self.answered = true,
                Event::Reply { body, .. } => {
                    let results = multibatch::decode(body, size_of::<CreateResult>());
                    let results: Vec<_> = results.expect("verified").iter().collect();
                    let result =
                        CreateResult::read_from_bytes(results[0].elements).expect("one result");
                    assert!(result.is_created(), "executed twice? {result:?}");
                    self.answered = true;
                }
                Event::Evicted(reason) => panic!("a client was evicted: {reason}"),
                Event::Pong { .. } | Event::Ignored(_) => {}
            }
        }
        true
    }
}

impl Crowd {
    /// Registers so many clients.
    fn gather(cluster: &Cluster, count: usize) -> Self {
        let addresses: Vec<_> = cluster.replicas.iter().map(|r| r.address).collect();
        let member = |index: usize| Member {
            session: Session::new(cluster.cluster, index as u128 + 1),
            message: Vec::new(),
            // Not all know the primary.
            replica: index % addresses.len(),
            stream: None,
            inbox: Inbox::new(cluster.cluster),
            sent: Instant::now(),
            answered: false,
        };
        let mut crowd = Self {
            members: (0..count).map(member).collect(),
            addresses,
            round: 0,
            repeated: 0,
        };
        for member in &mut crowd.members {
            member.message.resize(REGISTER_SIZE, 0);
            let size = member.session.register(&mut member.message);
            assert_eq!(size.expect("nothing is in flight"), REGISTER_SIZE);
            member.send(&crowd.addresses);
        }
        crowd.listen();
        crowd
    }

    fn transfer(&self, index: usize, round: u64) -> Transfer {
        Transfer {
            id: (index as u128 + 1) << 64 | u128::from(round),
            debit_account_id: 1,
            credit_account_id: 2,
            amount: 1,
            ledger: 7,
            code: 1,
            ..Transfer::default()
        }
    }

    /// Everybody asks.
    fn ask(&mut self) {
        self.round += 1;
        for index in 0..self.members.len() {
            let transfer = self.transfer(index, self.round);
            let mut body = transfer.as_bytes().to_vec();
            body.resize(body.len() + 128, 0);
            let events = size_of::<Transfer>();
            let counts = std::iter::once(1);
            let trailer = multibatch::encode_trailer(&mut body, events, events, counts);
            body.truncate(trailer);
            let member = &mut self.members[index];
            member.message.clear();
            member.message.resize(HEADER_SIZE, 0);
            member.message.extend_from_slice(&body);
            member
                .session
                .request(Operation::CreateTransfers, &mut member.message, body.len())
                .expect("answered before");
            member.answered = false;
            member.turn_to(member.session.primary(self.addresses.len()));
            member.send(&self.addresses);
        }
    }

    /// Until everybody has its answer.
    fn listen(&mut self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut missing = 0;
            for member in &mut self.members {
                if member.answered {
                    continue;
                }
                let stands = member.listen();
                if member.answered {
                    continue;
                }
                missing += 1;
                if !stands || member.sent.elapsed() > AGAIN {
                    member.stream = member.stream.take().filter(|_| stands);
                    member.turn_to((member.replica + 1) % self.addresses.len());
                    self.repeated += 1;
                    member.send(&self.addresses);
                }
            }
            if missing == 0 {
                return;
            }
            assert!(Instant::now() < end, "{missing} clients got no answer");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Every transfer that was answered is there.
    fn count(&self, cluster: &Cluster) -> usize {
        let mut client = cluster.client(PATIENCE);
        let rounds = 1..=self.round;
        let ids: Vec<u128> = rounds
            .flat_map(|round| (0..self.members.len()).map(move |index| (index, round)))
            .map(|(index, round)| self.transfer(index, round).id)
            .collect();
        ids.chunks(8000)
            .map(|ids| client.lookup_transfers(ids).expect("answered").len())
            .sum()
    }
}

fn create_accounts(cluster: &Cluster) {
    let account = |id| Account {
        id,
        ledger: 7,
        code: 1,
        ..Account::default()
    };
    let mut client = cluster.client(PATIENCE);
    let results = client.create_accounts(&[account(1), account(2)]);
    assert!(results.expect("answered").iter().all(|r| r.is_created()));
}

#[test]
fn a_crowd_of_sessions_is_served_across_kills_of_every_replica() {
    const SESSIONS: usize = 400;
    let mut cluster = Cluster::start("crowd", 3);
    create_accounts(&cluster);
    let mut crowd = Crowd::gather(&cluster, SESSIONS);
    for round in 0..6 {
        crowd.ask();
        if round % 2 == 1 {
            // Some have been answered, others are on the way.
            cluster.kill(round % 3);
            crowd.listen();
            cluster.launch(round % 3);
            cluster.wait_until_listening(round % 3);
        } else {
            crowd.listen();
        }
    }
    // All at once, with requests on the way: what was executed is known from disk alone.
    crowd.ask();
    for replica in 0..3 {
        cluster.kill(replica);
    }
    for replica in 0..3 {
        cluster.launch(replica);
        cluster.wait_until_listening(replica);
    }
    crowd.listen();
    println!(
        "{SESSIONS} sessions, {} rounds, {} requests sent again",
        crowd.round, crowd.repeated
    );
    assert_eq!(crowd.count(&cluster), SESSIONS * 7);
}

/// The memory of a replica is the same for a thousand sessions and for all.
#[test]
fn as_many_sessions_as_there_can_be_are_served_in_bounded_memory() {
    /// Message buffers, and what replies take with a journal of the smallest size, twice; the rest of the process.
    const MEMORY_MAX_MIB: u64 = 164 + 2 * 8 + 180;
    // A connection takes a descriptor here, too.
    let descriptors = usize::try_from(raise_open_files()).expect("it fits");
    let sessions = (SESSIONS_MAX - 2).min(descriptors.saturating_sub(200));
    // And one for each of two clients, before and after, that need not stay.
    let mut cluster = Cluster::start_with("crowd-all", 1, sessions + 2);
    create_accounts(&cluster);
    let begun = Instant::now();
    let mut crowd = Crowd::gather(&cluster, sessions);
    println!("{sessions} sessions registered in {:.2?}", begun.elapsed());
    for _ in 0..3 {
        let begun = Instant::now();
        crowd.ask();
        crowd.listen();
        println!("all asked, all answered in {:.2?}", begun.elapsed());
    }
    let memory = cluster.memory_mib(0);
    assert!(memory <= MEMORY_MAX_MIB, "{memory} MiB");
    crowd.ask();
    cluster.kill(0);
    let begun = Instant::now();
    cluster.launch(0);
    cluster.wait_until_listening(0);
    crowd.listen();
    println!(
        "killed, everybody answered after {:.2?}; {memory} MiB, {} sent again",
        begun.elapsed(),
        crowd.repeated
    );
    assert_eq!(crowd.count(&cluster), sessions * 4);
}
