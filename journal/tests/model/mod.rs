//! What the tests share: a journal on a device in memory, and a record of every frame written.
//!
//! The model keeps the bytes of every frame and knows which were acknowledged (below the durable
//! point). From that and the medium after a crash, [`Model::owed`] says what a recovery must find:
//! everything acknowledged, and behind it whatever is whole without a gap. That function is the
//! promise of the journal in ten lines; the tests differ in what they do to the medium.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part of the model"
)]

use std::fmt;

use stampede_journal::device::memory::{Image, MemoryDevice, PendingSector};
use stampede_journal::device::{Device, ReadAt};
use stampede_journal::{
    AlignedBuffer, AppendError, Config, Journal, Location, Recovery, SECTOR, WriteOp, Xxh3,
    checksum_payload,
};

pub const S: u64 = SECTOR as u64;

/// A small geometry, in sectors: every boundary is near.
pub fn config(segment_sectors: u64, segment_count: u32, inflight_sectors: u64) -> Config {
    Config {
        id: 0x5eed,
        segment_size: segment_sectors * S,
        segment_count,
        inflight_bytes_max: inflight_sectors * S,
    }
}

/// A frame that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub sequence: u64,
    pub location: Location,
    /// Tag and payload; a marker has neither.
    pub entry: Option<(u64, Vec<u8>)>,
    pub bytes: Vec<u8>,
}

impl Frame {
    pub fn end(&self) -> u64 {
        self.location.position + u64::from(self.location.size)
    }

    pub fn found(&self) -> Option<Found> {
        let (tag, payload) = self.entry.clone()?;
        Some(Found {
            tag,
            payload,
            location: self.location,
            sequence: self.sequence,
        })
    }
}

/// What a scan handed over.
#[derive(Clone, PartialEq, Eq)]
pub struct Found {
    pub tag: u64,
    pub payload: Vec<u8>,
    pub location: Location,
    pub sequence: u64,
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            tag,
            payload,
            location,
            sequence,
        } = self;
        let (position, size) = (location.position / S, payload.len());
        write!(
            f,
            "tag {tag}: frame {sequence} at sector {position}, {size} bytes"
        )
    }
}

/// A journal under test.
pub struct Model {
    pub config: Config,
    pub device: MemoryDevice,
    pub journal: Journal,
    /// Every frame handed out and not cut off since.
    pub log: Vec<Frame>,
    pub recovery: Recovery,
    pub found: Vec<Found>,
}

impl Model {
    pub fn new(config: Config) -> Self {
        Self::open(config, Image::new(&config), None)
    }

    pub fn open(config: Config, image: Image, start: Option<u64>) -> Self {
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
        let mut model = Self {
            config,
            device,
            journal,
            log: Vec::new(),
            recovery,
            found,
        };
        model.log.extend(model.opening_marker());
        model
    }

    /// The marker that opening may have written.
    fn opening_marker(&self) -> Option<Frame> {
        let position = self.recovery.head;
        assert!([position, position + S].contains(&self.journal.head()));
        (self.journal.head() > position).then(|| {
            self.marker_at(position)
                .expect("opening writes nothing else")
        })
    }

    /// A marker on the medium, recognised by its magic and its address.
    fn marker_at(&self, position: u64) -> Option<Frame> {
        let (file, offset) = place(&self.config, position);
        let offset = usize::try_from(offset).expect("small");
        let bytes = self.device.image().file(file)[offset..offset + SECTOR].to_vec();
        let sequence = u64::from_le_bytes(bytes[56..64].try_into().expect("eight bytes"));
        let location = Location {
            position,
            size: 4096,
        };
        let kind_marker = 2;
        let is_marker = bytes[26] == kind_marker
            && bytes[16..24] == *b"STMPEDEJ"
            && bytes[48..56] == position.to_le_bytes();
        is_marker.then_some(Frame {
            sequence,
            location,
            entry: None,
            bytes,
        })
    }

    /// Opens another image of the same journal, keeping the record of frames that were not cut.
    pub fn open_image(&self, image: Image, start: Option<u64>) -> Self {
        let mut opened = Self::open(self.config, image, start);
        let head = opened.recovery.head;
        // An opening that died before it returned may have put its marker in the place of a frame.
        let lives = |frame: &Frame| {
            let marker = opened.marker_at(frame.location.position);
            frame.end() <= head && marker.is_none_or(|marker| marker.bytes == frame.bytes)
        };
        let mut log: Vec<Frame> = self
            .log
            .iter()
            .filter(|frame| lives(frame))
            .cloned()
            .collect();
        if log.last().is_none_or(|last| last.end() < head) && head > 0 {
            log.extend(opened.marker_at(head - S));
        }
        opened.log.splice(0..0, log);
        opened
    }

    /// The medium after a crash that keeps of every pending write the sectors that `keep` says.
    pub fn crash_image(&mut self, keep: impl FnMut(PendingSector) -> bool) -> Image {
        self.device.crash(keep);
        self.device.image().clone()
    }

    /// Crashes and opens what is left, checking that it is what is owed.
    pub fn reopen(mut self, keep: impl FnMut(PendingSector) -> bool) -> Self {
        let image = self.crash_image(keep);
        let opened = self.open_image(image.clone(), None);
        assert_eq!(opened.found, self.owed(&image, 0));
        assert_eq!(opened.recovery.corruptions, []);
        opened
    }

    /// What must be found on `image`, from `start` on: everything acknowledged, and then whatever
    /// is whole without a gap.
    pub fn owed(&self, image: &Image, start: u64) -> Vec<Found> {
        self.live(image)
            .iter()
            .filter(|frame| frame.location.position >= start)
            .filter_map(Frame::found)
            .collect()
    }

    /// The frames that live on after a crash that left `image`.
    pub fn live(&self, image: &Image) -> &[Frame] {
        let durable = self.journal.durable();
        let lives = |frame: &Frame| {
            frame.location.position < durable || is_whole(image, &self.config, frame)
        };
        let end = self
            .log
            .iter()
            .position(|frame| !lives(frame))
            .unwrap_or(self.log.len());
        &self.log[..end]
    }

    /// Appends and submits; the write stays pending.
    pub fn append(&mut self, tag: u64, payload: &[u8]) -> Result<Location, AppendError> {
        let buffer = AlignedBuffer::with_payload(payload);
        let checksum = checksum_payload(payload);
        let (location, op) = self.journal.append(tag, payload.len(), checksum, buffer)?;
        self.submit(location, op, Some((tag, payload.to_vec())));
        Ok(location)
    }

    /// Appends a frame of so many sectors; the write stays pending.
    pub fn append_sectors(&mut self, tag: u64, sectors: usize) -> Result<Location, AppendError> {
        self.append(tag, &payload(tag, sectors * SECTOR - 300))
    }

    /// Submits a marker; the write stays pending.
    pub fn mark(&mut self) -> Result<Location, AppendError> {
        let (location, op) = self.journal.marker(AlignedBuffer::new(SECTOR))?;
        self.submit(location, op, None);
        Ok(location)
    }

    fn submit(
        &mut self,
        location: Location,
        op: WriteOp<AlignedBuffer>,
        entry: Option<(u64, Vec<u8>)>,
    ) {
        let bytes = op.buffer.as_slice()[..op.len].to_vec();
        self.log.push(Frame {
            sequence: op.token,
            location,
            entry,
            bytes,
        });
        self.device.submit(op).expect("room for a pending write");
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

/// Whether a frame lies on the medium, every byte of it.
pub fn is_whole(image: &Image, config: &Config, frame: &Frame) -> bool {
    let (file, offset) = place(config, frame.location.position);
    let offset = usize::try_from(offset).expect("small");
    image.file(file)[offset..][..frame.bytes.len()] == frame.bytes
}

/// File and offset of a log address, computed apart from the crate's own arithmetic.
pub fn place(config: &Config, position: u64) -> (u32, u64) {
    let ring = position % (config.segment_size * u64::from(config.segment_count));
    let file = u32::try_from(ring / config.segment_size).expect("small");
    (file, ring % config.segment_size)
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
