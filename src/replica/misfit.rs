//! Misfits: others that dial this replica as members, and are not made as it is.
//!
//! What a cluster's sessions and checkpoints depend on is given to `format` on each machine, and must be the
//! same on all. A hello says what the sender was given, so the one who refuses it knows what differs; this
//! is for the operator to read, and changes nothing.

use std::collections::BTreeMap;
use std::fmt;

use crate::message::Header;

/// Those that were refused, by the index that they gave, and why.
pub type Misfits = BTreeMap<u8, Vec<Difference>>;

/// Why a hello is not that of another member of this cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// It was formatted with another value of this option.
    Option {
        name: &'static str,
        theirs: u128,
        ours: u128,
    },
    /// It says that it is the one that this replica is.
    SameIndex,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option { name, theirs, ours } => {
                write!(f, "its {name} is {theirs}, here it is {ours}")
            }
            Self::SameIndex => f.write_str("its --replica is that of this one"),
        }
    }
}

/// What differs between two hellos; nothing between those of two members of one cluster.
pub(super) fn differences(theirs: &Header, ours: &Header) -> Vec<Difference> {
    let options = |hello: &Header| {
        [
            ("--cluster", hello.cluster),
            ("--replica-count", hello.commit.into()),
            ("--standby-count", hello.events.into()),
            ("--clients-max", hello.session.into()),
            ("--journal-size", hello.timestamp.into()),
        ]
    };
    let both = options(theirs).into_iter().zip(options(ours));
    let other = both.filter(|(theirs, ours)| theirs != ours);
    let other = other.map(|((name, theirs), (_, ours))| Difference::Option { name, theirs, ours });
    let same_index = (theirs.replica == ours.replica).then_some(Difference::SameIndex);
    other.chain(same_index).collect()
}
