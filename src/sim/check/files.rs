//! Equal files at equal operations: two replicas with a checkpoint of the same operation have the same
//! files, byte for byte.
//!
//! A manifest's checksum covers the checksum of every file that it lists, and those cover every byte, so
//! manifests are compared. It is what makes a checkpoint of one replica good for every other: it is
//! fetched in pieces from any of them, and a damaged file of one is mended with another's. `digest` looks
//! at states in memory, this at what was written of them; each would miss what the other sees.
//!
//! Looked at whenever a replica refers to another checkpoint than before, built or fetched.

use std::collections::BTreeMap;

use super::{Violation, hold};
use crate::message::Op;
use crate::protocol::ReplicaIndex;
use crate::store::ManifestRef;

/// Checkpoints that are remembered for replicas that are behind.
const KEPT_MAX: usize = 1024;

/// See the module.
#[derive(Debug)]
pub struct Files {
    /// What each replica referred to when it was last looked at.
    latest: Vec<Option<ManifestRef>>,
    known: BTreeMap<Op, (ManifestRef, ReplicaIndex)>,
    pub compared: u64,
}

impl Files {
    pub fn new(member_count: u8) -> Self {
        Self {
            latest: vec![None; usize::from(member_count)],
            known: BTreeMap::new(),
            compared: 0,
        }
    }

    /// A replica refers to this checkpoint, if to any.
    pub fn on_checkpoint(
        &mut self,
        replica: ReplicaIndex,
        manifest: Option<ManifestRef>,
    ) -> Result<(), Violation> {
        let latest = &mut self.latest[usize::from(replica)];
        if *latest == manifest {
            return Ok(());
        }
        *latest = manifest;
        let Some(manifest) = manifest else {
            return Ok(());
        };
        if let Some((known, first)) = self.known.get(&manifest.op) {
            hold!(
                *known == manifest,
                "files",
                "the checkpoint of op {} has other files on replica {replica} than on replica {first}: {manifest:x?}, {known:x?}",
                manifest.op
            );
            self.compared += 1;
            return Ok(());
        }
        self.known.insert(manifest.op, (manifest, replica));
        if self.known.len() > KEPT_MAX {
            self.known.pop_first();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_at_the_same_operation_are_found() {
        let manifest = |op, checksum| {
            Some(ManifestRef {
                op,
                checksum,
                ..ManifestRef::default()
            })
        };
        let mut check = Files::new(3);
        assert_eq!(check.on_checkpoint(0, None), Ok(()));
        assert_eq!(check.on_checkpoint(0, manifest(8, 1)), Ok(()));
        assert_eq!(check.on_checkpoint(0, manifest(8, 1)), Ok(()));
        assert_eq!(check.compared, 0);
        assert_eq!(check.on_checkpoint(1, manifest(8, 1)), Ok(()));
        assert_eq!(check.on_checkpoint(1, manifest(9, 3)), Ok(()));
        assert_eq!(check.compared, 1);
        assert!(check.on_checkpoint(2, manifest(8, 2)).is_err());
    }
}
