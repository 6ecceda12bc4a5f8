//! Introductions: who the other members are, in which of their lives, and over which connection each
//! speaks.
//!
//! ```text
//!   dialler                                  listener
//!      ├── hello: configuration, my life ───────►│ a later life than I know: taken note of, durably
//!      │◄── welcome: I know you in that life ────┤
//!      │◄── welcome: behind, I know a later one ─┤ the dialler's files were set back
//!      ├── everything else ─────────────────────►│ only from the connection of the latest life
//! ```
//!
//! Two promises follow. A message of a former life is never taken for one of the present life, however
//! long it was on the way, because it came on another connection. And a member whose files were set
//! back to an older copy learns of it from anybody who has heard it since.
//!
//! It learns of it also when the copy was started so often before anybody heard of it that it seems to be
//! the later one: a hello proves which lives came before.
//!
//! A life is durable before the hello that names it, and noted durably before the welcome that says
//! so: both may crash in between.

use zerocopy::IntoBytes;

use super::io::ConnectionId;
use super::superblock::{Life, Past, State};
use crate::limits::MEMBERS_MAX;
use crate::message::{Command, Header, View};
use crate::mutant::Mutant;
use crate::protocol::ReplicaIndex;

/// In `operation` of a hello: the sender may not vote.
const RECOVERING: u8 = 1;
/// In `operation` of a welcome: the sender knows a later life than the addressee named.
const BEHIND: u8 = 1;

/// A hello that is not answered is said again after this. Nanoseconds.
const HELLO_RESEND_NS: u64 = 100_000_000;

/// What is known of a member.
#[derive(Debug, Clone, Copy, Default)]
struct Peer {
    /// Its latest life; durable, or about to be.
    life: Life,
    /// That life is durable here.
    noted: bool,
    /// Where it speaks in that life, and where it spoke before that: a hello that was long on the way
    /// may name the elder of two connections, and then that one is closed.
    inbound: Option<ConnectionId>,
    before: Option<ConnectionId>,
    /// Our connection to it stands.
    connected: bool,
    /// When to say (again) on it who we are; `u64::MAX` once it has said that it knows.
    greet_at: u64,
    /// What it is still to be told: the life it named, and whether we know a later one.
    welcome: Option<(Life, bool)>,
}

/// What follows from a hello.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Introduction {
    /// A connection of the life that is known.
    Again,
    /// A new life, to be noted durably.
    New { life: Life, recovering: bool },
    /// An earlier life than is known: from before a restart, or from files that were set back.
    Old,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Peers {
    peers: [Peer; MEMBERS_MAX],
    /// This replica's life, and whether it may be spoken of: it is durable.
    life: Life,
    durable: bool,
}

impl Peers {
    pub(super) fn new(state: &State) -> Self {
        let peers = state.members.map(|life| Peer {
            life,
            noted: true,
            ..Peer::default()
        });
        Self {
            peers,
            life: state.life(),
            durable: false,
        }
    }

    /// Begins a life of this replica, to be made durable.
    pub(super) fn begin_life(&mut self, life: Life) {
        self.life = life;
        self.durable = false;
        for peer in &mut self.peers {
            peer.greet_at = 0;
        }
    }

    /// A life of this replica is durable.
    pub(super) fn life_is_durable(&mut self, life: Life) {
        self.durable = life == self.life;
    }

    pub(super) fn connected(&mut self, replica: ReplicaIndex, connected: bool) {
        let peer = &mut self.peers[usize::from(replica)];
        peer.connected = connected;
        peer.greet_at = 0;
    }

    pub(super) fn is_connected(&self, replica: ReplicaIndex) -> bool {
        self.peers[usize::from(replica)].connected
    }

    /// A hello came. Whatever follows, the sender is to be told. `past` is its proof that it has lived the
    /// life that is known here: an older copy of its files may have been started as often, or more often.
    pub(super) fn introduce(
        &mut self,
        connection: ConnectionId,
        hello: &Header,
        past: &Past,
    ) -> Introduction {
        let peer = &mut self.peers[usize::from(hello.replica)];
        let life = life_of(hello);
        // One that says that it has forgotten need not prove the contrary; a standby never promised
        // anything.
        let is_standby = u64::from(hello.replica) >= hello.commit;
        let proved = hello.operation == RECOVERING
            || is_standby
            || peer.life.starts == 0
            || past.includes(peer.life, life.starts);
        let old = life != peer.life && (life.starts <= peer.life.starts || !proved);
        if old && !Mutant::IgnoresRollback.is_on() {
            peer.welcome = Some((life, true));
            return Introduction::Old;
        }
        let before = peer.inbound.replace(connection);
        peer.welcome = Some((life, false));
        if life == peer.life {
            if before != Some(connection) {
                peer.before = before;
            }
            return Introduction::Again;
        }
        peer.before = None;
        peer.life = life;
        peer.noted = false;
        let recovering = hello.operation == RECOVERING;
        Introduction::New { life, recovering }
    }

    /// A member's life is durable here.
    pub(super) fn noted(&mut self, replica: ReplicaIndex, life: Life) {
        let peer = &mut self.peers[usize::from(replica)];
        peer.noted |= life == peer.life;
    }

    /// Who speaks on this connection.
    pub(super) fn speaker(&self, connection: ConnectionId) -> Option<ReplicaIndex> {
        let mut peers = (0u8..).zip(&self.peers);
        peers
            .find(|(_, peer)| [peer.inbound, peer.before].contains(&Some(connection)))
            .map(|(replica, _)| replica)
    }

    /// A connection is gone: whose voice it was, if it has no other.
    pub(super) fn closed(&mut self, connection: ConnectionId) -> Option<ReplicaIndex> {
        let replica = self.speaker(connection)?;
        let peer = &mut self.peers[usize::from(replica)];
        let before = peer.before.take().filter(|before| *before != connection);
        if peer.inbound == Some(connection) {
            peer.inbound = before;
        }
        peer.inbound.is_none().then_some(replica)
    }

    /// The members that are to be told something now: first who we are, then that they are welcome.
    /// `say` says it, and fails when no buffer is free. A hello is repeated until it is answered: without
    /// it, nothing that this replica says counts.
    pub(super) fn tell(
        &mut self,
        hello: &Header,
        view: View,
        now: u64,
        past: &Past,
        mut say: impl FnMut(ReplicaIndex, Header, &[u8]) -> bool,
    ) {
        if !self.durable {
            return;
        }
        for (replica, peer) in (0u8..).zip(&mut self.peers).filter(|(_, p)| p.connected) {
            if peer.greet_at <= now {
                let mut hello = *hello;
                hello.op = self.life.starts;
                hello.context = u128::from(self.life.number);
                if say(replica, hello, past.as_bytes()) {
                    peer.greet_at = now + HELLO_RESEND_NS;
                }
            }
            let Some((life, behind)) = peer.welcome.filter(|(_, behind)| *behind || peer.noted)
            else {
                continue;
            };
            let mut welcome = Header::new(Command::Welcome, hello.cluster, hello.replica, view);
            welcome.session = life.starts;
            welcome.context = u128::from(life.number);
            welcome.op = peer.life.starts;
            welcome.operation = if behind { BEHIND } else { 0 };
            if say(replica, welcome, &[]) {
                peer.welcome = None;
            }
        }
    }

    /// A welcome came, from a replica that speaks here. `Some(true)` when it is for the present life; `Some(false)` when its sender
    /// knows a later one: then this replica must begin a life after that. `None` when it is for a life
    /// that is over.
    pub(super) fn on_welcome(&mut self, welcome: &Header) -> Option<bool> {
        let named = Life {
            starts: welcome.session,
            number: number_of(welcome),
        };
        if named != self.life {
            return None;
        }
        self.peers[usize::from(welcome.replica)].greet_at = u64::MAX;
        Some(welcome.operation != BEHIND)
    }

    /// The life to begin for a replica that is known to have had one with so many starts.
    pub(super) fn life_after(&self, starts: u64) -> Life {
        Life {
            starts: self.life.starts.max(starts) + 1,
            number: self.life.number,
        }
    }
}

/// What a hello says besides the life, which [`Peers::tell`] fills in.
pub(super) fn hello(state: &State, view: View, recovering: bool) -> Header {
    let mut header = Header::new(Command::Hello, state.cluster, state.replica, view);
    header.commit = u64::from(state.replica_count);
    header.events = u32::from(state.standby_count);
    header.session = u64::from(state.sessions_max);
    header.timestamp = state.segment_size * u64::from(state.segment_count);
    header.operation = if recovering { RECOVERING } else { 0 };
    header
}

fn life_of(hello: &Header) -> Life {
    Life {
        starts: hello.op,
        number: number_of(hello),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a number of 64 bits in a wider field"
)]
fn number_of(header: &Header) -> u64 {
    header.context as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::superblock::Identity;

    fn state(replica: u8) -> State {
        State::format(&Identity {
            cluster: 7,
            replica,
            replica_count: 3,
            standby_count: 0,
            sessions_max: 64,
            segment_size: 1 << 26,
            segment_count: 16,
            recovering: false,
            journal_id: 99,
        })
    }

    fn greeting(starts: u64, number: u64) -> Header {
        let mut header = hello(&state(1), 0, false);
        header.op = starts;
        header.context = u128::from(number);
        header
    }

    /// Of a replica that has had these lives, and no others.
    fn past(lives: &[(u64, u64)]) -> Past {
        let mut past = Past::default();
        let mut former = 0;
        for (starts, number) in lives.iter().copied() {
            past.begin(former, Life { starts, number }, false);
            former = starts;
        }
        past
    }

    #[test]
    fn one_that_has_rejoined_is_not_doubted_for_a_life_that_it_has_forgotten() {
        let mut peers = Peers::new(&state(0));
        peers.introduce(ConnectionId(3), &greeting(5, 50), &past(&[(5, 50)]));
        let mut rejoined = past(&[(4, 40), (5, 55)]);
        let greet = |peers: &mut Peers, starts, past: &Past| {
            peers.introduce(ConnectionId(4), &greeting(starts, starts * 10), past)
        };
        let mut doubted = rejoined;
        let life = |starts| Life {
            starts,
            number: starts * 10,
        };
        doubted.begin(5, life(7), false);
        assert_eq!(greet(&mut peers, 7, &doubted), Introduction::Old);
        rejoined.begin(5, life(7), true);
        rejoined.begin(7, life(8), false);
        let copy = rejoined;
        rejoined.begin(8, life(9), false);
        assert!(matches!(
            greet(&mut peers, 9, &rejoined),
            Introduction::New { .. }
        ));
        // What it has lived since is proved as by anybody else.
        let mut set_back = copy;
        for (former, starts) in [(8, 9), (9, 10)] {
            let number = starts * 10 + 1;
            set_back.begin(former, Life { starts, number }, false);
        }
        let hello = greeting(10, 101);
        let introduced = peers.introduce(ConnectionId(5), &hello, &set_back);
        assert_eq!(introduced, Introduction::Old);
    }

    fn told(peers: &mut Peers) -> Vec<(u8, Header)> {
        let mut said = Vec::new();
        let ours = hello(&state(0), 0, false);
        peers.tell(&ours, 4, 1, &Past::default(), |to, header, _| {
            said.push((to, header));
            true
        });
        said
    }

    #[test]
    fn a_late_hello_on_a_connection_that_closes_silences_nobody() {
        let mut peers = Peers::new(&state(0));
        let hello = greeting(5, 50);
        let [older, newer] = [ConnectionId(3), ConnectionId(4)];
        peers.introduce(newer, &hello, &past(&[(5, 50)]));
        let again = peers.introduce(older, &hello, &past(&[(5, 50)]));
        assert_eq!(again, Introduction::Again);
        assert_eq!(peers.closed(older), None);
        assert_eq!(peers.speaker(newer), Some(1));
        // In the usual order the elder one is closed when the newer one has been introduced.
        peers.introduce(older, &hello, &past(&[(5, 50)]));
        assert_eq!(peers.closed(newer), None);
        assert_eq!(peers.speaker(older), Some(1));
        assert_eq!(peers.closed(older), Some(1));
        // What was said in a former life is never heard.
        peers.introduce(older, &hello, &past(&[(5, 50)]));
        peers.introduce(newer, &greeting(6, 60), &past(&[(5, 50), (6, 60)]));
        assert_eq!(peers.speaker(older), None);
    }

    #[test]
    fn nothing_is_said_before_the_own_life_is_durable() {
        let mut peers = Peers::new(&state(0));
        let life = Life {
            starts: 1,
            number: 5,
        };
        peers.begin_life(life);
        peers.connected(1, true);
        assert_eq!(told(&mut peers), []);
        peers.life_is_durable(life);
        let said = told(&mut peers);
        assert_eq!(said.len(), 1);
        assert_eq!((said[0].0, said[0].1.op, said[0].1.context), (1, 1, 5));
        assert_eq!(told(&mut peers), []);
    }

    #[test]
    fn a_new_life_is_welcomed_once_it_is_noted() {
        let mut peers = Peers::new(&state(0));
        peers.life_is_durable(Life::default());
        peers.connected(1, true);
        told(&mut peers);
        let introduced = peers.introduce(ConnectionId(3), &greeting(2, 9), &past(&[(2, 9)]));
        let life = Life {
            starts: 2,
            number: 9,
        };
        assert_eq!(
            introduced,
            Introduction::New {
                life,
                recovering: false
            }
        );
        assert_eq!(told(&mut peers), []);
        peers.noted(1, life);
        let said = told(&mut peers);
        assert_eq!(
            (said[0].1.command(), said[0].1.view),
            (Some(Command::Welcome), 4)
        );
        assert_eq!(peers.speaker(ConnectionId(3)), Some(1));
        assert_eq!(peers.closed(ConnectionId(3)), Some(1));
        assert_eq!(peers.speaker(ConnectionId(3)), None);
    }

    #[test]
    fn files_that_were_set_back_are_noticed_also_when_they_were_started_as_often() {
        let mut peers = Peers::new(&state(0));
        peers.life_is_durable(Life::default());
        peers.connected(1, true);
        peers.introduce(ConnectionId(3), &greeting(5, 50), &past(&[(5, 50)]));
        for (starts, number) in [(4, 40), (5, 51)] {
            let introduced = peers.introduce(
                ConnectionId(4),
                &greeting(starts, number),
                &past(&[(starts, number)]),
            );
            assert_eq!(introduced, Introduction::Old);
            let welcome = told(&mut peers).pop().expect("it is told").1;
            assert_eq!((welcome.operation, welcome.op), (BEHIND, 5));
            // What it does with that: a life after the one that is known.
            let mut other = Peers::new(&state(1));
            other.begin_life(Life { starts, number });
            assert_eq!(other.on_welcome(&welcome), Some(false));
            assert_eq!(other.life_after(welcome.op).starts, 6);
        }
        assert_eq!(peers.speaker(ConnectionId(3)), Some(1), "the latest life");
    }

    #[test]
    fn an_older_copy_that_was_started_more_often_is_noticed_all_the_same() {
        let mut peers = Peers::new(&state(0));
        peers.introduce(ConnectionId(3), &greeting(5, 50), &past(&[(5, 50)]));
        let mut introduce = |starts, number, lives: &[(u64, u64)]| {
            peers.introduce(ConnectionId(4), &greeting(starts, number), &past(lives))
        };
        let is_new = |it| matches!(it, Introduction::New { .. });
        // Set back to before its fifth start, and started three times since.
        let copy = [(4, 40), (5, 55), (6, 66), (7, 77)];
        assert_eq!(introduce(7, 77, &copy), Introduction::Old);
        let honest = [(4, 40), (5, 50), (6, 60), (9, 90)];
        assert!(is_new(introduce(9, 90, &honest)));
        // There was no eighth start.
        assert_eq!(introduce(10, 100, &[(8, 80), (10, 100)]), Introduction::Old);
        // Longer ago than anybody can prove.
        assert!(is_new(introduce(40, 400, &[(40, 400)])));
        let mut recovering = greeting(41, 410);
        recovering.operation = RECOVERING;
        assert!(is_new(peers.introduce(
            ConnectionId(5),
            &recovering,
            &past(&copy)
        )));
    }
}
