//! The network: connections that deliver in order, or nearly, or break.
//!
//! ```text
//!   dialer ──── forward lane: message, message, closed ────► listener
//!          ◄─── backward lane ──────────────────────────────
//! ```
//!
//! What a connection does, as the worlds promise it to replicas:
//! - a lane delivers what was sent, in order, each message after a random delay; a message may be
//!   lost (as from a full send queue) or come twice (as from a peer that repeats itself);
//! - between replicas a message may be held back, so that those behind it overtake it. A socket does not do
//!   that, but the protocol does not ask for one; what a connection begins with stays the first;
//! - when one end goes, the other learns of it after whatever prefix of the lane still arrives; when
//!   the network cuts both directions, both ends learn of it, each at its own time;
//! - a cut in one direction alone breaks nothing: messages that way vanish, silently.
//!
//! The owner keeps time: `send` and `close` say when a lane wants to be looked at, `take` says what
//! has arrived. This file does not know what a message is.

use std::collections::{BTreeMap, VecDeque};

use super::queue::{Instant, MILLISECOND};
use super::random::Random;
use crate::protocol::ReplicaIndex;

/// A machine on the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Node {
    Replica(ReplicaIndex),
    Client(u32),
}

/// A connection; never used twice in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkId(pub u64);

/// One of the two directions of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// From the dialer to the listener.
    Forward,
    /// From the listener to the dialer.
    Backward,
}

/// How bad the network is.
#[derive(Debug, Clone, Copy)]
pub struct Quality {
    /// Every message takes this long at least,
    pub delay_min: Instant,
    /// and up to this much longer; mostly little.
    pub delay_extra: Instant,
    /// Parts per million.
    pub loss: u32,
    pub duplication: u32,
    /// Of messages between replicas that are held back for a while.
    pub reorder: u32,
    /// Messages waiting in one lane; more are lost.
    pub lane_max: usize,
}

impl Quality {
    /// Machines in one building.
    pub const GOOD: Self = Self {
        delay_min: MILLISECOND / 10,
        delay_extra: MILLISECOND / 2,
        loss: 0,
        duplication: 0,
        reorder: 0,
        lane_max: 256,
    };
}

/// What came out of a lane.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival<M> {
    Message(M),
    /// The connection is over, as seen from this end.
    Closed,
}

/// The lane wants to be looked at then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a lane that nobody looks at delivers nothing"]
pub(crate) struct Wake {
    pub at: Instant,
    pub link: LinkId,
    pub lane: Lane,
}

#[derive(Debug)]
struct Link<M> {
    dialer: Node,
    listener: Node,
    forward: Pipe<M>,
    backward: Pipe<M>,
}

#[derive(Debug)]
struct Pipe<M> {
    /// By time.
    waiting: VecDeque<(Instant, Arrival<M>)>,
    /// When the last one arrives that keeps its order; `None` before the first.
    in_order: Option<Instant>,
    /// Nothing more goes in: the end is in the queue, or has been delivered, or nobody listens.
    shut: bool,
    /// When the lane will be looked at; a wake for another time is out of date.
    armed: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Network<M> {
    quality: Quality,
    random: Random,
    links: BTreeMap<LinkId, Link<M>>,
    next: u64,
    /// Nothing passes from the first to the second, for so many reasons.
    cuts: BTreeMap<(Node, Node), u32>,
    /// What goes to and from these takes so many times longer.
    slow: BTreeMap<Node, u64>,
    /// From the first to the second every message takes so much longer.
    delays: BTreeMap<(Node, Node), Instant>,
    /// So many messages from the first to the second will be damaged on the way.
    noisy: BTreeMap<(Node, Node), u32>,
    pub lost: u64,
    pub duplicated: u64,
    pub held_back: u64,
    pub delivered: u64,
}

impl<M> Pipe<M> {
    const fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            in_order: None,
            shut: false,
            armed: None,
        }
    }
}

impl<M> Link<M> {
    fn pipe(&mut self, lane: Lane) -> &mut Pipe<M> {
        match lane {
            Lane::Forward => &mut self.forward,
            Lane::Backward => &mut self.backward,
        }
    }

    /// Who sends and who receives on a lane.
    fn ends(&self, lane: Lane) -> (Node, Node) {
        match lane {
            Lane::Forward => (self.dialer, self.listener),
            Lane::Backward => (self.listener, self.dialer),
        }
    }

    fn is_over(&self) -> bool {
        [&self.forward, &self.backward]
            .iter()
            .all(|pipe| pipe.shut && pipe.waiting.is_empty())
    }
}

impl Lane {
    const BOTH: [Self; 2] = [Self::Forward, Self::Backward];

    fn other(self) -> Self {
        match self {
            Self::Forward => Self::Backward,
            Self::Backward => Self::Forward,
        }
    }
}

impl<M: Clone> Network<M> {
    pub(crate) fn new(quality: Quality, random: Random) -> Self {
        Self {
            quality,
            random,
            links: BTreeMap::new(),
            next: 1,
            cuts: BTreeMap::new(),
            slow: BTreeMap::new(),
            delays: BTreeMap::new(),
            noisy: BTreeMap::new(),
            lost: 0,
            duplicated: 0,
            held_back: 0,
            delivered: 0,
        }
    }

    pub(crate) fn set_quality(&mut self, quality: Quality) {
        self.quality = quality;
    }

    /// All messages to and from a node take so many times longer.
    pub(crate) fn set_slow(&mut self, node: Node, factor: u64) {
        self.slow.insert(node, factor);
    }

    /// What waits in a lane, counted by the owner.
    pub(crate) fn backlog(&self, id: LinkId, lane: Lane, size: impl Fn(&M) -> usize) -> usize {
        let Some(link) = self.links.get(&id) else {
            return 0;
        };
        let pipe = match lane {
            Lane::Forward => &link.forward,
            Lane::Backward => &link.backward,
        };
        let of = |arrival: &Arrival<M>| match arrival {
            Arrival::Message(message) => size(message),
            Arrival::Closed => 0,
        };
        pipe.waiting.iter().map(|(_, arrival)| of(arrival)).sum()
    }

    /// Whether messages pass from one to the other.
    pub(crate) fn passes(&self, from: Node, to: Node) -> bool {
        self.cuts.is_empty() || !self.cuts.contains_key(&(from, to))
    }

    /// A new connection, if a handshake gets through. Whether anybody listens is the owner's to know.
    pub(crate) fn dial(&mut self, dialer: Node, listener: Node) -> Option<LinkId> {
        if !self.passes(dialer, listener) || !self.passes(listener, dialer) {
            return None;
        }
        let id = LinkId(self.next);
        self.next += 1;
        let link = Link {
            dialer,
            listener,
            forward: Pipe::new(),
            backward: Pipe::new(),
        };
        self.links.insert(id, link);
        Some(id)
    }

    /// The dialer and the listener.
    pub(crate) fn ends(&self, link: LinkId) -> Option<(Node, Node)> {
        self.links.get(&link).map(|l| (l.dialer, l.listener))
    }

    /// Sends along a lane, or loses.
    pub(crate) fn send(
        &mut self,
        id: LinkId,
        lane: Lane,
        message: M,
        now: Instant,
    ) -> Option<Wake> {
        let quality = self.quality;
        let link = self.links.get_mut(&id)?;
        let full = link.pipe(lane).waiting.len() >= quality.lane_max;
        if link.pipe(lane).shut || full || self.random.chance(quality.loss) {
            self.lost += 1;
            return None;
        }
        let twice = self.random.chance(quality.duplication);
        let factor = |node| self.slow.get(&node).copied().unwrap_or(1);
        let slow = factor(link.dialer).max(factor(link.listener));
        let delay = quality.delay_min + self.random.skewed(quality.delay_extra);
        let longer = self.delays.get(&link.ends(lane)).copied().unwrap_or(0);
        let at = now + slow * delay + longer;
        let between_replicas = matches!(link.ends(lane), (Node::Replica(_), Node::Replica(_)));
        let pipe = link.pipe(lane);
        let may_wait = quality.reorder > 0 && between_replicas && pipe.in_order.is_some();
        let held_back = may_wait && self.random.chance(quality.reorder);
        let more = if twice {
            self.duplicated += 1;
            Some((self.random.skewed(quality.delay_extra), message.clone()))
        } else {
            None
        };
        if held_back {
            self.held_back += 1;
            let while_others_pass = 20 * (quality.delay_min + quality.delay_extra);
            let at = at.max(pipe.in_order.unwrap_or(0));
            pipe.insert(at + self.random.skewed(while_others_pass), message);
        } else {
            pipe.put(at, message);
        }
        if let Some((later, message)) = more {
            pipe.put(at + later, message);
        }
        pipe.wake(id, lane)
    }

    /// One end goes: a random prefix of what it had sent still arrives, then the other learns of it.
    /// Nothing reaches the one that has gone.
    pub(crate) fn close(&mut self, id: LinkId, gone: Node, now: Instant) -> Option<Wake> {
        let link = self.links.get_mut(&id)?;
        let lane = if link.dialer == gone {
            Lane::Forward
        } else {
            Lane::Backward
        };
        let back = link.pipe(lane.other());
        back.shut = true;
        back.waiting.clear();
        let wake = self.end(id, lane, now);
        self.forget_if_over(id);
        wake
    }

    /// The connection breaks in the middle: both ends learn of it.
    pub(crate) fn sever(&mut self, id: LinkId, now: Instant) -> [Option<Wake>; 2] {
        Lane::BOTH.map(|lane| self.end(id, lane, now))
    }

    /// Ends a lane after a random prefix of what is on its way.
    fn end(&mut self, id: LinkId, lane: Lane, now: Instant) -> Option<Wake> {
        let delay = self.quality.delay_min + self.random.skewed(self.quality.delay_extra);
        let link = self.links.get_mut(&id)?;
        let pipe = link.pipe(lane);
        if pipe.shut {
            return None;
        }
        let kept = self.random.index(pipe.waiting.len() + 1);
        pipe.waiting.truncate(kept);
        // Whoever was to look at what is gone would come too early.
        pipe.armed = None;
        pipe.end(now + delay);
        pipe.shut = true;
        pipe.wake(id, lane)
    }

    /// Connections with this node at either end.
    pub(crate) fn links_of(&self, node: Node) -> Vec<LinkId> {
        let of = |link: &Link<M>| link.dialer == node || link.listener == node;
        let links = self.links.iter().filter(|(_, link)| of(link));
        links.map(|(id, _)| *id).collect()
    }

    /// Connections between two nodes, whoever dialed.
    pub(crate) fn links_between(&self, a: Node, b: Node) -> Vec<LinkId> {
        let between = |link: &Link<M>| {
            (link.dialer, link.listener) == (a, b) || (link.dialer, link.listener) == (b, a)
        };
        let links = self.links.iter().filter(|(_, link)| between(link));
        links.map(|(id, _)| *id).collect()
    }

    /// Lets nothing through from one to the other from now on, what is under way included.
    pub(crate) fn cut(&mut self, from: Node, to: Node) {
        *self.cuts.entry((from, to)).or_insert(0) += 1;
    }

    /// One reason for a cut is over.
    pub(crate) fn mend(&mut self, from: Node, to: Node) {
        if let Some(reasons) = self.cuts.get_mut(&(from, to)) {
            *reasons -= 1;
            if *reasons == 0 {
                self.cuts.remove(&(from, to));
            }
        }
    }

    /// From now on every message from one to the other takes so much longer; it still keeps its order.
    pub(crate) fn delay(&mut self, from: Node, to: Node, longer: Instant) {
        self.delays.insert((from, to), longer);
    }

    /// So many of the next messages from one to the other will be damaged.
    pub(crate) fn add_noise(&mut self, from: Node, to: Node, messages: u32) {
        *self.noisy.entry((from, to)).or_insert(0) += messages;
    }

    /// Whether the message that has just arrived is one of those.
    pub(crate) fn is_noisy(&mut self, from: Node, to: Node) -> bool {
        let Some(messages) = self.noisy.get_mut(&(from, to)) else {
            return false;
        };
        *messages -= 1;
        if *messages == 0 {
            self.noisy.remove(&(from, to));
        }
        true
    }

    /// All links are as they should be.
    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
        self.slow.clear();
        self.delays.clear();
        self.noisy.clear();
    }

    /// What has arrived at the end of a lane, if anything, and when to look again. The owner looks
    /// when a wake says so.
    pub(crate) fn take(&mut self, wake: Wake) -> (Option<Arrival<M>>, Option<Wake>) {
        let (id, lane) = (wake.link, wake.lane);
        let Some(link) = self.links.get_mut(&id) else {
            return (None, None);
        };
        let (from, to) = link.ends(lane);
        let pipe = link.pipe(lane);
        if pipe.armed != Some(wake.at) {
            return (None, None);
        }
        pipe.armed = None;
        let arrival = pipe.waiting.pop_front();
        let (at, mut arrival) = arrival.map_or((0, None), |(at, arrival)| (at, Some(arrival)));
        assert!(at <= wake.at, "a lane was looked at before its time");
        let wake = pipe.wake(id, lane);
        if let Some(Arrival::Message(_)) = arrival {
            if self.cuts.contains_key(&(from, to)) {
                self.lost += 1;
                arrival = None;
            } else {
                self.delivered += 1;
            }
        }
        self.forget_if_over(id);
        (arrival, wake)
    }

    /// The receiver has no room: the message stays at the front of its lane until `at`.
    pub(crate) fn put_back(
        &mut self,
        id: LinkId,
        lane: Lane,
        message: M,
        at: Instant,
    ) -> Option<Wake> {
        self.delivered -= 1;
        let pipe = self.links.get_mut(&id)?.pipe(lane);
        pipe.waiting.push_front((at, Arrival::Message(message)));
        pipe.in_order = pipe.in_order.max(Some(at));
        // Replaces the wake for the message behind this one.
        pipe.armed = Some(at);
        Some(Wake { at, link: id, lane })
    }

    /// Messages under way.
    pub(crate) fn waiting(&self) -> usize {
        let waiting = |link: &Link<M>| link.forward.waiting.len() + link.backward.waiting.len();
        self.links.values().map(waiting).sum()
    }

    fn forget_if_over(&mut self, id: LinkId) {
        if self.links.get(&id).is_some_and(Link::is_over) {
            self.links.remove(&id);
        }
    }
}

impl<M> Pipe<M> {
    /// Behind everything else that keeps its order, not before its time.
    fn put(&mut self, at: Instant, message: M) {
        let at = at.max(self.in_order.unwrap_or(0));
        self.in_order = Some(at);
        self.insert(at, message);
    }

    /// At its time, whatever is before or behind it.
    fn insert(&mut self, at: Instant, message: M) {
        let place = self.waiting.partition_point(|(other, _)| *other <= at);
        self.waiting.insert(place, (at, Arrival::Message(message)));
    }

    /// Behind everything.
    fn end(&mut self, at: Instant) {
        let last = self.waiting.back().map_or(0, |(at, _)| *at);
        self.waiting.push_back((at.max(last), Arrival::Closed));
    }

    /// When to look next, unless somebody will look by then.
    fn wake(&mut self, link: LinkId, lane: Lane) -> Option<Wake> {
        let (at, _) = self.waiting.front()?;
        if self.armed.is_some_and(|armed| armed <= *at) {
            return None;
        }
        self.armed = Some(*at);
        Some(Wake {
            at: *at,
            link,
            lane,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::queue::Queue;
    use super::super::random::{MILLION, Stream};
    use super::*;

    const A: Node = Node::Replica(0);
    const B: Node = Node::Replica(1);

    struct World {
        network: Network<u32>,
        queue: Queue<Wake>,
        arrived: Vec<(Lane, Arrival<u32>)>,
    }

    impl World {
        fn new(quality: Quality) -> Self {
            Self {
                network: Network::new(quality, Random::new(3, Stream::Network, 0)),
                queue: Queue::default(),
                arrived: Vec::new(),
            }
        }

        fn arm(&mut self, wake: Option<Wake>) {
            if let Some(wake) = wake {
                self.queue.push(wake.at, wake);
            }
        }

        fn send(&mut self, link: LinkId, lane: Lane, messages: std::ops::Range<u32>) {
            for message in messages {
                let wake = self.network.send(link, lane, message, self.queue.now());
                self.arm(wake);
            }
        }

        fn run(&mut self) {
            while let Some(wake) = self.queue.pop() {
                let (arrival, again) = self.network.take(wake);
                self.arrived.extend(arrival.map(|a| (wake.lane, a)));
                self.arm(again);
            }
        }

        fn messages(&self, lane: Lane) -> Vec<u32> {
            let of = |(l, a): &(Lane, Arrival<u32>)| match a {
                Arrival::Message(m) if *l == lane => Some(*m),
                Arrival::Message(_) | Arrival::Closed => None,
            };
            self.arrived.iter().filter_map(of).collect()
        }

        fn closed(&self, lane: Lane) -> bool {
            self.arrived.contains(&(lane, Arrival::Closed))
        }
    }

    #[test]
    fn a_lane_keeps_order() {
        let mut world = World::new(Quality::GOOD);
        let link = world.network.dial(A, B).unwrap();
        world.send(link, Lane::Forward, 0..100);
        world.send(link, Lane::Backward, 200..250);
        world.run();
        assert_eq!(world.messages(Lane::Forward), (0..100).collect::<Vec<_>>());
        assert_eq!(
            world.messages(Lane::Backward),
            (200..250).collect::<Vec<_>>()
        );
        assert_eq!(world.network.waiting(), 0);
    }

    #[test]
    fn lost_and_doubled_messages_leave_the_others_in_order() {
        let quality = Quality {
            loss: MILLION / 5,
            duplication: MILLION / 5,
            ..Quality::GOOD
        };
        let mut world = World::new(quality);
        let link = world.network.dial(A, B).unwrap();
        world.send(link, Lane::Forward, 0..200);
        world.run();
        let arrived = world.messages(Lane::Forward);
        assert!(arrived.is_sorted());
        assert!(world.network.lost > 10 && world.network.duplicated > 10);
        let expected = 200 - world.network.lost + world.network.duplicated;
        assert_eq!(arrived.len() as u64, expected);
    }

    #[test]
    fn messages_that_are_held_back_are_overtaken_but_the_first_is_not() {
        let quality = Quality {
            reorder: MILLION / 5,
            duplication: MILLION / 10,
            ..Quality::GOOD
        };
        let mut world = World::new(quality);
        let link = world.network.dial(A, B).unwrap();
        world.send(link, Lane::Forward, 0..200);
        world.run();
        let mut arrived = world.messages(Lane::Forward);
        assert_eq!(arrived[0], 0);
        assert!(!arrived.is_sorted());
        assert!(world.network.held_back > 10);
        arrived.sort_unstable();
        arrived.dedup();
        assert_eq!(arrived, (0..200).collect::<Vec<_>>());
        // The end is the last that comes.
        world.send(link, Lane::Forward, 200..400);
        let wake = world.network.close(link, A, world.queue.now());
        world.arm(wake);
        world.run();
        assert_eq!(world.arrived.last().map(|(_, a)| a), Some(&Arrival::Closed));

        // Clients' are not.
        let mut world = World::new(quality);
        let link = world.network.dial(Node::Client(1), B).unwrap();
        world.send(link, Lane::Forward, 0..100);
        world.run();
        assert!(world.messages(Lane::Forward).is_sorted());
    }

    #[test]
    fn the_end_that_stays_learns_of_the_other_after_a_prefix() {
        let mut world = World::new(Quality::GOOD);
        let link = world.network.dial(A, B).unwrap();
        world.send(link, Lane::Forward, 0..50);
        world.send(link, Lane::Backward, 100..150);
        let wake = world.network.close(link, A, 0);
        world.arm(wake);
        world.send(link, Lane::Forward, 50..60);
        world.run();
        let arrived = world.messages(Lane::Forward);
        assert!(arrived.len() <= 50);
        assert_eq!(
            arrived,
            (0..u32::try_from(arrived.len()).unwrap()).collect::<Vec<_>>()
        );
        assert!(world.closed(Lane::Forward));
        // Nothing reaches the one that has gone.
        assert!(world.messages(Lane::Backward).is_empty() && !world.closed(Lane::Backward));
        assert!(world.network.links_of(A).is_empty());
    }

    #[test]
    fn a_severed_connection_ends_at_both_ends() {
        let mut world = World::new(Quality::GOOD);
        let link = world.network.dial(A, B).unwrap();
        for wake in world.network.sever(link, 0) {
            world.arm(wake);
        }
        world.run();
        assert!(world.closed(Lane::Forward) && world.closed(Lane::Backward));
        assert!(world.network.links_between(B, A).is_empty());
    }

    #[test]
    fn a_cut_in_one_direction_swallows_that_direction_alone() {
        let mut world = World::new(Quality::GOOD);
        let link = world.network.dial(A, B).unwrap();
        world.network.cut(A, B);
        world.send(link, Lane::Forward, 0..10);
        world.send(link, Lane::Backward, 0..10);
        world.run();
        assert!(world.messages(Lane::Forward).is_empty());
        assert_eq!(world.messages(Lane::Backward).len(), 10);
        world.network.cut(A, B);
        world.network.mend(A, B);
        assert!(world.network.dial(B, A).is_none());
        world.network.mend(A, B);
        assert!(world.network.dial(B, A).is_some());
        world.network.cut(B, A);
        world.network.heal();
        assert!(world.network.passes(B, A));
    }

    #[test]
    fn a_slow_link_is_slow_in_one_direction_and_noise_hits_so_many_messages() {
        let mut world = World::new(Quality::GOOD);
        let link = world.network.dial(A, B).unwrap();
        world.network.delay(A, B, 100 * MILLISECOND);
        world.send(link, Lane::Forward, 0..1);
        world.send(link, Lane::Backward, 1..2);
        world.run();
        let lanes: Vec<Lane> = world.arrived.iter().map(|(lane, _)| *lane).collect();
        assert_eq!(lanes, [Lane::Backward, Lane::Forward]);
        assert!(world.queue.now() > 100 * MILLISECOND);

        world.network.add_noise(A, B, 2);
        let noisy: Vec<bool> = (0..3).map(|_| world.network.is_noisy(A, B)).collect();
        assert_eq!(noisy, [true, true, false]);
        world.network.add_noise(A, B, 2);
        world.network.heal();
        assert!(!world.network.is_noisy(A, B) && !world.network.is_noisy(B, A));
    }

    #[test]
    fn what_does_not_fit_waits_in_its_place() {
        let mut world = World::new(Quality::GOOD);
        let link = world.network.dial(A, B).unwrap();
        world.send(link, Lane::Forward, 0..3);
        let wake = world.queue.pop().unwrap();
        let now = world.queue.now();
        let (arrival, again) = world.network.take(wake);
        world.arm(again);
        let Some(Arrival::Message(message)) = arrival else {
            panic!("a message was due");
        };
        let wake = world
            .network
            .put_back(link, wake.lane, message, now + 5 * MILLISECOND);
        world.arm(wake);
        world.run();
        assert_eq!(world.messages(Lane::Forward), [0, 1, 2]);
    }
}
