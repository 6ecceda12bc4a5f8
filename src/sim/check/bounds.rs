//! Bounds: memory and queues.
//!
//! - A primary has a pipeline of operations under way and no more.
//! - Whatever grows and shrinks in the protocol says its own bound (`Vsr::queues`), and stays below it;
//!   so does what a machine has to do for its replica.
//! - A replica that is gone has given all its buffers back.
//!
//! The first two are looked at after everything that a replica does, the last at the end of a run.
//! Messages live in the buffers of a pool that never grows, so queues of messages are bounded twice.

use super::{Violation, hold};
use crate::limits::PIPELINE_MAX;
use crate::message::Pool;
use crate::protocol::ReplicaIndex;
use crate::replica::Progress;

/// What a primary has prepared and not committed.
pub fn check_pipeline(replica: ReplicaIndex, progress: &Progress) -> Result<(), Violation> {
    let under_way = progress.head - progress.commit;
    hold!(
        !progress.serving || under_way <= PIPELINE_MAX as u64,
        "bounds",
        "primary {replica} has {under_way} operations under way"
    );
    Ok(())
}

/// What waits, by name, and how much may.
pub fn check_queues(
    replica: ReplicaIndex,
    queues: &[(&'static str, usize, usize)],
) -> Result<(), Violation> {
    for (name, length, max) in queues {
        hold!(
            length <= max,
            "bounds",
            "replica {replica} has {length} {name}, and may have {max}"
        );
    }
    Ok(())
}

/// The replica, its executor and every message of it are gone.
pub fn check_pool(replica: ReplicaIndex, pool: &Pool) -> Result<(), Violation> {
    hold!(
        pool.is_whole(),
        "bounds",
        "replica {replica} has lost buffers: {pool:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::PoolConfig;

    #[test]
    fn a_queue_that_is_too_long_is_found() {
        assert_eq!(check_queues(0, &[("requests", 8, 8)]), Ok(()));
        assert!(check_queues(0, &[("requests", 1, 8), ("reads", 9, 8)]).is_err());
    }

    #[test]
    fn a_lost_buffer_is_found() {
        let config = PoolConfig {
            small: 1,
            medium: 0,
            large: 0,
            huge_pages: false,
        };
        let pool = Pool::new(&config).unwrap();
        assert_eq!(check_pool(0, &pool), Ok(()));
        let message = pool.acquire(0).unwrap();
        assert!(check_pool(0, &pool).is_err());
        drop(message);
    }
}
