//! Storage in memory, for simulation and tests.
//!
//! It keeps what a disk must keep, and nothing else: [`MemoryStorage::crash`] forgets files that were
//! not finished, and names and removals that were not synced. Faults that a disk commits by itself are injected by
//! [`MemoryStorage::damage`], and a full disk by [`MemoryStorage::fail_writes_after`]. The fault of a
//! torn file cannot occur: a file gets its name after its bytes are durable.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::storage::{FileName, FileWriter, Map, STORAGE_SECTOR_SIZE, Storage};

/// See the module. Clones share the files, like two handles of one directory.
#[derive(Debug, Clone, Default)]
pub struct MemoryStorage {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<FileName, File>,
    /// Counts crashes: a file begun before one can never be finished.
    epoch: u64,
    /// Writes that still succeed; `None` for all.
    writes_left: Option<u64>,
    bytes_written: u64,
}

/// What a name stands for, and what it would stand for after a crash.
#[derive(Debug, Default)]
struct File {
    visible: Option<Map>,
    durable: Option<Map>,
}

impl MemoryStorage {
    /// Another handle of the same files: for the thread that reads while another writes.
    pub fn handle(&self) -> Self {
        self.clone()
    }

    /// Power is lost: what was not synced is gone.
    pub fn crash(&mut self) {
        let mut state = self.state();
        state.epoch += 1;
        for file in state.files.values_mut() {
            file.visible.clone_from(&file.durable);
        }
    }

    /// Flips a bit of a finished file.
    pub fn damage(&mut self, name: FileName, offset: usize) {
        let mut state = self.state();
        let file = state.files.get_mut(&name).expect("a finished file");
        let mut bytes = file.visible.as_ref().expect("a finished file").to_vec();
        bytes[offset] ^= 0x10;
        let map = Map::copy_of(&bytes);
        *file = File {
            visible: Some(map.clone()),
            durable: Some(map),
        };
    }

    /// After this many more writes (creations, writes, finishes, syncs) each fails: the disk is full.
    pub fn fail_writes_after(&mut self, writes: Option<u64>) {
        self.state().writes_left = writes;
    }

    /// Bytes given to writers so far.
    pub fn bytes_written(&self) -> u64 {
        self.state().bytes_written
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no user panics while holding the lock")
    }
}

impl State {
    fn count_write(&mut self) -> io::Result<()> {
        match &mut self.writes_left {
            None => Ok(()),
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn file(&self, name: FileName) -> io::Result<&Map> {
        let file = self.files.get(&name).and_then(|file| file.visible.as_ref());
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Storage for MemoryStorage {
    fn create(&mut self, name: FileName) -> io::Result<Box<dyn FileWriter>> {
        let mut state = self.state();
        state.count_write()?;
        let writer = MemoryWriter {
            state: Arc::clone(&self.state),
            name,
            epoch: state.epoch,
            bytes: Vec::new(),
        };
        Ok(Box::new(writer))
    }

    fn read(&self, name: FileName, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let map = state.file(name)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = map.get(start..).and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn map(&self, name: FileName) -> io::Result<Map> {
        self.state().file(name).cloned()
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.state();
        state.count_write()?;
        for file in state.files.values_mut() {
            file.durable.clone_from(&file.visible);
        }
        state.files.retain(|_, file| file.visible.is_some());
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<(FileName, u64)>> {
        let state = self.state();
        let files = state.files.iter();
        let visible = files.filter_map(|(name, file)| Some((name, file.visible.as_ref()?)));
        Ok(visible
            .map(|(name, map)| (*name, map.len() as u64))
            .collect())
    }

    fn remove(&mut self, name: FileName) -> io::Result<()> {
        let mut state = self.state();
        let removed = state
            .files
            .get_mut(&name)
            .and_then(|file| file.visible.take());
        removed
            .map(drop)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

struct MemoryWriter {
    state: Arc<Mutex<State>>,
    name: FileName,
    epoch: u64,
    bytes: Vec<u8>,
}

impl FileWriter for MemoryWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        assert!(
            bytes.len().is_multiple_of(STORAGE_SECTOR_SIZE),
            "whole sectors"
        );
        assert!(
            bytes.as_ptr().addr().is_multiple_of(STORAGE_SECTOR_SIZE),
            "aligned memory"
        );
        let mut state = self
            .state
            .lock()
            .expect("no user panics while holding the lock");
        state.count_write()?;
        state.bytes_written += bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        let mut state = self
            .state
            .lock()
            .expect("no user panics while holding the lock");
        state.count_write()?;
        if state.epoch != self.epoch {
            return Err(io::Error::other(
                "the storage has crashed since the file was begun",
            ));
        }
        let map = Map::copy_of(&self.bytes);
        state.files.entry(self.name).or_default().visible = Some(map);
        Ok(())
    }
}
