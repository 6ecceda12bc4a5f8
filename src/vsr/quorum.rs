//! How many replicas it takes.
//!
//! Replication and view-change quorums must intersect: every view change then meets a replica that
//! holds each committed prepare (VR Revisited §4, with the flexible sizes of Flexible Paxos §3).
//!
//! | replicas | replication | view change |
//! | --- | --- | --- |
//! | 1 | 1 | 1 |
//! | 2 | 2 | 2 |
//! | 3 | 2 | 2 |
//! | 4 | 2 | 3 |
//! | 5 | 3 | 3 |
//! | 6 | 3 | 4 |

use crate::limits::REPLICAS_MAX;

/// Durable copies of a prepare before it counts as committed.
pub const fn replication(replica_count: u8) -> usize {
    match replica_count {
        0 | 1 => 1,
        2 => 2,
        3 | 4 => 2,
        _ => 3,
    }
}

/// Replicas that must have left the old view before a new one begins.
pub const fn view_change(replica_count: u8) -> usize {
    match replica_count {
        0 | 1 => 1,
        2 | 3 => 2,
        4 | 5 => 3,
        _ => 4,
    }
}

const _: () = {
    let mut count = 1;
    while count <= REPLICAS_MAX {
        #[expect(clippy::cast_possible_truncation, reason = "at most six")]
        let n = count as u8;
        assert!(replication(n) + view_change(n) > count);
        // Two view changes must meet as well, or two primaries could begin.
        assert!(2 * view_change(n) > count);
        count += 1;
    }
};
