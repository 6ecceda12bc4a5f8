//! Storage in memory, for simulation and tests.
//!
//! It keeps what a disk must keep, and nothing else: [`MemoryStorage::crash`] forgets files that were
//! not finished, and names and removals that were not synced. Faults that a disk commits by itself are injected by
//! [`MemoryStorage::damage`], a disk that fails by [`MemoryStorage::fail_writes_after`], and one that is
//! full by [`MemoryStorage::set_room`]. The fault of a
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
    /// Bytes that still fit; `None` for any number.
    room: Option<u64>,
    room_is_a_quota: bool,
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

    /// Another storage with the same durable files.
    pub fn copy(&self) -> Self {
        let durable = |file: &File| {
            let map = file.durable.as_ref().map(Map::elsewhere);
            File {
                visible: map.clone(),
                durable: map,
            }
        };
        let state = self.state();
        let files = state
            .files
            .iter()
            .map(|(name, file)| (*name, durable(file)));
        let files = files.filter(|(_, file)| file.durable.is_some()).collect();
        Self {
            state: Arc::new(Mutex::new(State {
                files,
                ..State::default()
            })),
        }
    }

    /// Power is lost: what was not synced is gone.
    pub fn crash(&mut self) {
        self.crash_keeping(|_| false);
    }

    /// The same, but some names and removals have reached the disk without having been synced.
    pub fn crash_keeping(&mut self, keeps: impl Fn(FileName) -> bool) {
        let mut state = self.state();
        state.epoch += 1;
        let (mut gone, mut back) = (0, 0);
        let size = |map: &Option<Map>| map.as_ref().map_or(0, |map| map.len() as u64);
        for (name, file) in &mut state.files {
            if keeps(*name) {
                file.durable.clone_from(&file.visible);
                continue;
            }
            gone += size(&file.visible);
            file.visible.clone_from(&file.durable);
            back += size(&file.visible);
        }
        state.room = state.room.map(|room| (room + gone).saturating_sub(back));
    }

    /// Flips a bit of a finished file.
    pub fn damage(&mut self, name: FileName, offset: usize) {
        self.flip(name, offset, 4);
    }

    /// Flips this bit of a finished file.
    pub fn flip(&mut self, name: FileName, offset: usize, bit: u32) {
        let mut state = self.state();
        let file = state.files.get_mut(&name).expect("a finished file");
        let former = file.visible.as_ref().expect("a finished file");
        let mut bytes = former.to_vec();
        bytes[offset] ^= 1 << bit;
        let map = Map::copy_of(&bytes);
        former.rot(&map);
        *file = File {
            visible: Some(map.clone()),
            durable: Some(map),
        };
    }

    /// After this many more writes (creations, writes, finishes, syncs) each fails with an I/O error.
    pub fn fail_writes_after(&mut self, writes: Option<u64>) {
        self.state().writes_left = writes;
    }

    /// From now on so many bytes fit on the disk, and those of files that are removed.
    pub fn set_room(&mut self, bytes: Option<u64>) {
        let mut state = self.state();
        state.room = bytes;
        state.room_is_a_quota = false;
    }

    /// The same, but nobody knows before it is used up.
    pub fn set_quota(&mut self, bytes: u64) {
        let mut state = self.state();
        state.room = Some(bytes);
        state.room_is_a_quota = true;
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
            Some(0) => Err(io::Error::other("an I/O error, made on purpose")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn take_room(&mut self, bytes: usize) -> io::Result<()> {
        if let Some(room) = &mut self.room {
            let full = if self.room_is_a_quota {
                io::ErrorKind::QuotaExceeded
            } else {
                io::ErrorKind::StorageFull
            };
            *room = room.checked_sub(bytes as u64).ok_or(full)?;
        }
        Ok(())
    }

    fn give_room(&mut self, bytes: usize) {
        if let Some(room) = &mut self.room {
            *room += bytes as u64;
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

    fn room(&self) -> io::Result<u64> {
        let state = self.state();
        let known = state.room.filter(|_| !state.room_is_a_quota);
        Ok(known.unwrap_or(u64::MAX))
    }

    fn remove(&mut self, name: FileName) -> io::Result<()> {
        let mut state = self.state();
        let removed = state
            .files
            .get_mut(&name)
            .and_then(|file| file.visible.take());
        let map = removed.ok_or(io::ErrorKind::NotFound)?;
        state.give_room(map.len());
        Ok(())
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
        state.take_room(bytes.len())?;
        state.bytes_written += bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        let shared = Arc::clone(&self.state);
        let mut state = shared
            .lock()
            .expect("no user panics while holding the lock");
        state.count_write()?;
        if state.epoch != self.epoch {
            return Err(io::Error::other(
                "the storage has crashed since the file was begun",
            ));
        }
        let map = Map::copy_of(&self.bytes);
        let former = state
            .files
            .entry(self.name)
            .or_default()
            .visible
            .replace(map);
        if let Some(former) = former {
            state.give_room(former.len());
        }
        drop(state);
        // Its bytes belong to the name now.
        self.bytes.clear();
        Ok(())
    }
}

impl Drop for MemoryWriter {
    fn drop(&mut self) {
        if let Ok(mut state) = self.state.lock() {
            state.give_room(self.bytes.len());
        }
    }
}
