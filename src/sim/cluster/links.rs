//! What a test may do to the network: the part of the vocabulary that is about links.
//!
//! - A **cut** is not noticed: what is sent vanishes, as behind a firewall that drops it.
//! - A **break** is: both ends learn of it, and dial again.
//! - **Noise** turns over a bit of a message; whoever receives it hangs up, as the bus does.

use super::super::network::Node;
use super::super::queue::Instant;
use super::Simulation;
use crate::protocol::ReplicaIndex;

impl Simulation {
    /// Nothing passes between the members of the group and the others; connections break.
    pub fn partition(&mut self, group: &[ReplicaIndex]) {
        for (a, b) in self.pairs(group) {
            self.network.cut(a, b);
            self.network.cut(b, a);
            self.sever(a, b);
        }
    }

    /// What one replica sends to another vanishes, while everything looks well.
    pub fn cut(&mut self, from: ReplicaIndex, to: ReplicaIndex) {
        let now = self.now();
        self.transcript
            .note(now, format!("r{from} → r{to}"), "IS CUT");
        self.network.cut(Node::Replica(from), Node::Replica(to));
    }

    /// Nothing reaches a replica from any other; it is heard.
    pub fn deafen(&mut self, replica: ReplicaIndex) {
        for from in self.members().filter(|from| *from != replica) {
            self.cut(from, replica);
        }
    }

    /// What replicas send to a client vanishes, while everything looks well.
    pub fn deafen_client(&mut self, client: u32) {
        for replica in 0..self.options.replica_count {
            self.network
                .cut(Node::Replica(replica), Node::Client(client));
        }
    }

    /// Nothing passes between a client and any replica, while everything looks well.
    pub fn silence_client(&mut self, client: u32) {
        self.deafen_client(client);
        for replica in 0..self.options.replica_count {
            self.network
                .cut(Node::Client(client), Node::Replica(replica));
        }
    }

    /// Cables are pulled: connections between two replicas break, and are made again.
    pub fn break_connections(&mut self, a: ReplicaIndex, b: ReplicaIndex) {
        self.sever(Node::Replica(a), Node::Replica(b));
    }

    /// Every message from one replica to another takes so much longer.
    pub fn slow_link(&mut self, from: ReplicaIndex, to: ReplicaIndex, longer: Instant) {
        let (from, to) = (Node::Replica(from), Node::Replica(to));
        self.network.delay(from, to, longer);
    }

    /// So many of the next messages from one replica to another are damaged on the way.
    pub fn add_noise(&mut self, from: ReplicaIndex, to: ReplicaIndex, messages: u32) {
        let (from, to) = (Node::Replica(from), Node::Replica(to));
        self.network.add_noise(from, to, messages);
    }

    /// So many of the next messages of a client to a replica are damaged on the way.
    pub fn add_noise_to_client(&mut self, client: u32, to: ReplicaIndex, messages: u32) {
        let (from, to) = (Node::Client(client), Node::Replica(to));
        self.network.add_noise(from, to, messages);
    }

    /// All links are as they should be.
    pub fn heal(&mut self) {
        let now = self.now();
        self.transcript
            .note(now, "all".to_owned(), "LINKS ARE GOOD AGAIN");
        self.network.heal();
    }

    /// Every pair of one member in the group and one outside.
    pub(super) fn pairs(&self, group: &[ReplicaIndex]) -> Vec<(Node, Node)> {
        let (inside, outside): (Vec<_>, Vec<_>) = self.members().partition(|r| group.contains(r));
        let pairs = |a: ReplicaIndex| {
            outside
                .iter()
                .map(move |b| (Node::Replica(a), Node::Replica(*b)))
        };
        inside.into_iter().flat_map(pairs).collect()
    }

    pub(super) fn sever(&mut self, a: Node, b: Node) {
        let now = self.now();
        for link in self.network.links_between(a, b) {
            for wake in self.network.sever(link, now) {
                self.arm(wake);
            }
        }
    }
}
