//! Bounds: a primary has a pipeline of operations under way and no more, and a replica that is gone has
//! given all its buffers back.

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
