//! What the tests share: a journal on a device in memory, and a record of all that was appended.
//!
//! The model knows which entries were acknowledged (below the durable point) and can therefore say
//! what a recovery owes.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part of the model"
)]

use stampede_journal::device::memory::{Image, MemoryDevice};
use stampede_journal::device::{Device, ReadAt};
use stampede_journal::{
    AlignedBuffer, AppendError, Config, Journal, Location, Recovery, SECTOR, Xxh3, checksum_payload,
};

/// A small geometry: every boundary is near.
pub fn config(segment_sectors: u64, segment_count: u32, inflight_sectors: u64) -> Config {
    let sector = SECTOR as u64;
    Config {
        id: 0x5eed,
        segment_size: segment_sectors * sector,
        segment_count,
        inflight_bytes_max: inflight_sectors * sector,
    }
}

/// What was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub tag: u64,
    pub payload: Vec<u8>,
    pub location: Location,
    pub sequence: u64,
}

/// What a scan handed over.
pub type Found = Written;

/// A journal under test.
pub struct Model {
    pub config: Config,
    pub device: MemoryDevice,
    pub journal: Journal,
    /// Everything appended and not cut off since.
    pub log: Vec<Written>,
    pub recovery: Recovery,
}

impl Model {
    pub fn new(config: Config) -> Self {
        Self::open(config, Image::new(&config), None).0
    }

    /// Opens an image; gives what was visited.
    pub fn open(config: Config, image: Image, start: Option<u64>) -> (Self, Vec<Found>) {
        let mut device = MemoryDevice::from_image(image);
        let mut found = Vec::new();
        let (journal, recovery) = Journal::open(config, &mut device, &Xxh3, start, |entry| {
            found.push(Found {
                tag: entry.tag,
                payload: entry.payload.to_vec(),
                location: entry.location,
                sequence: entry.sequence,
            });
        })
        .expect("a journal that opens");
        let log = found.clone();
        (
            Self {
                config,
                device,
                journal,
                log,
                recovery,
            },
            found,
        )
    }

    /// Crashes, keeping of the pending writes what `keep` says, and opens what is left.
    pub fn reopen(
        mut self,
        keep: impl FnMut(stampede_journal::device::memory::PendingSector) -> bool,
    ) -> (Self, Vec<Found>) {
        self.device.crash(keep);
        Self::open(self.config, self.device.image().clone(), None)
    }

    /// Appends and submits; the write stays pending.
    pub fn append(&mut self, tag: u64, payload: &[u8]) -> Result<Location, AppendError> {
        let buffer = AlignedBuffer::with_payload(payload);
        let checksum = checksum_payload(payload);
        let (location, op) = self.journal.append(tag, payload.len(), checksum, buffer)?;
        let sequence = op.token;
        self.device.submit(op).expect("room for a pending write");
        self.log.push(Written {
            tag,
            payload: payload.to_vec(),
            location,
            sequence,
        });
        Ok(location)
    }

    /// Writes a marker and completes it.
    pub fn mark(&mut self) {
        let (_, op) = self
            .journal
            .marker(AlignedBuffer::new(SECTOR))
            .expect("room for a marker");
        self.device.submit(op).expect("room for a pending write");
        self.complete_all();
    }

    pub fn complete(&mut self, token: u64) {
        let completion = self.device.complete(token);
        self.journal
            .on_written(token, completion.result)
            .expect("a write that succeeds");
    }

    /// Completes everything, the newest write first.
    pub fn complete_all(&mut self) {
        let tokens: Vec<u64> = self.device.pending().collect();
        for token in tokens.into_iter().rev() {
            self.complete(token);
        }
    }

    pub fn acknowledged(&self) -> Vec<Written> {
        let durable = self.journal.durable();
        self.log
            .iter()
            .filter(|entry| entry.location.position < durable)
            .cloned()
            .collect()
    }

    /// Reads an entry back by its location.
    pub fn read(&mut self, location: Location) -> Option<Vec<u8>> {
        let extent = self.journal.locate(location)?;
        let mut buffer = AlignedBuffer::new(extent.len);
        let bytes = &mut buffer.as_mut_slice()[..extent.len];
        self.device
            .read_at(extent.file, extent.offset, bytes)
            .expect("a readable medium");
        let entry = self
            .journal
            .verify_read(location, bytes, &Xxh3)
            .expect("the entry");
        Some(entry.payload.to_vec())
    }
}

/// Bytes that differ for every tag and position in the payload.
pub fn payload(tag: u64, size: usize) -> Vec<u8> {
    let mut state = tag.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}
