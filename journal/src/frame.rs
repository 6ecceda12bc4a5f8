//! The frame: what one append looks like on the disk, byte by byte.
//!
//! ```text
//!  frame: at a multiple of 4096 in its segment, never across two segments
//!  ┌───────────────── 256 ─┬──────── payload_size ────────┬─ zeros to a multiple of 4096 ─┐
//!  │ header                │ payload                      │ padding                       │
//!  └───────────────────────┴──────────────────────────────┴───────────────────────────────┘
//!  header, little-endian:
//!    0 checksum u128   of bytes 16..256     96 durable_entries u64
//!   16 magic [8]                           104 oldest u64
//!   24 version u16, kind u8, zero [5]      112 tag u64
//!   32 journal u128                        120 payload_size u32, segment_count u32
//!   48 position u64                        128 payload_checksum u128
//!   56 sequence u64                        144 segment_size u64
//!   64 entries u64                         152 epoch u64, zero [96]
//!   72 previous u64
//!   80 durable u64
//!   88 durable_sequence u64
//! ```
//!
//! Every byte is covered: the header by its own checksum, the payload by the caller's (kept in the
//! header), the padding by having to be zero. A header is valid only for one journal and one log
//! address, so a stale frame of a recycled segment and a misdirected write are refused by the same
//! comparison. All functions here are pure.

use xxhash_rust::xxh3::xxh3_128;
use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::check::PayloadCheck;
use crate::config::{Config, FRAME_SIZE_MAX};

/// Unit of writing, of alignment and of frame placement.
pub const SECTOR: usize = 4096;
/// Bytes before the payload that belong to the journal.
pub const FRAME_HEADER_SIZE: usize = 256;
/// The version of the format this crate reads and writes.
pub const FORMAT_VERSION: u16 = 1;

/// "There is none", or "it is not known", for a frame's predecessor.
pub(crate) const POSITION_NONE: u64 = u64::MAX;
/// Log addresses stay below this, so that sums of a few of them cannot overflow: four exbibytes,
/// or 58 years at 2.5 GB/s.
pub(crate) const POSITION_LIMIT: u64 = 1 << 62;

const MAGIC: [u8; 8] = *b"STMPEDEJ";

/// Bytes that a frame with this payload takes on the disk.
pub const fn frame_size(payload_size: usize) -> usize {
    (FRAME_HEADER_SIZE + payload_size).next_multiple_of(SECTOR)
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A payload of the caller's.
    Entry,
    /// Nothing but the durable point, written by an idle journal.
    Marker,
}

/// The meaning of a header, without its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// Log address of this frame.
    pub(crate) position: u64,
    /// Frames before this one, markers included, plus one.
    pub(crate) sequence: u64,
    /// Entries before this frame, markers not counted.
    pub(crate) entries: u64,
    /// Position of the frame before, or `POSITION_NONE`.
    pub(crate) previous: u64,
    /// Every frame below this address was durable when this header was made.
    pub(crate) durable: Durable,
    /// Counts the openings of the journal.
    pub(crate) epoch: u64,
    /// Start of the oldest segment that was kept when this header was made.
    pub(crate) oldest: u64,
    pub(crate) tag: u64,
    pub(crate) payload_size: u32,
    pub(crate) payload_checksum: u128,
}

/// A durable point, with the counters a frame at that address would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Durable {
    pub(crate) position: u64,
    pub(crate) sequence: u64,
    pub(crate) entries: u64,
}

/// What is wrong with the bytes at the address of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The device could not read the sector.
    #[error("the device could not read it")]
    Unreadable,
    /// There is no frame header there: zeros or foreign bytes.
    #[error("no frame header")]
    NoHeader,
    /// There is a frame header whose checksum does not match.
    #[error("frame header does not match its checksum")]
    Header,
    /// A whole header, but of another journal.
    #[error("frame of another journal ({0:032x})")]
    Foreign(u128),
    /// A whole header of this journal, but for another log address: what a segment held before it
    /// was recycled, or a misdirected write.
    #[error("frame that belongs to position {0}")]
    Misplaced(u64),
    /// A whole header of a version this crate cannot read.
    #[error("frame of format version {0}")]
    Version(u16),
    /// A whole header whose fields contradict the configuration.
    #[error("frame header contradicts the configured geometry")]
    Geometry,
    /// A whole frame that does not continue the frame before it: something between them is lost.
    #[error("frame does not continue the one before it")]
    Chain,
    /// The payload fails the caller's check.
    #[error("payload does not match its checksum")]
    Payload,
    /// The bytes after the payload are not zero.
    #[error("padding is not zero")]
    Padding,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    checksum: U128,
    magic: [u8; 8],
    version: U16,
    kind: u8,
    zero: [u8; 5],
    journal: U128,
    position: U64,
    sequence: U64,
    entries: U64,
    previous: U64,
    durable: U64,
    durable_sequence: U64,
    durable_entries: U64,
    oldest: U64,
    tag: U64,
    payload_size: U32,
    segment_count: U32,
    payload_checksum: U128,
    segment_size: U64,
    epoch: U64,
    reserved: [u8; 96],
}

const _: () = assert!(size_of::<Raw>() == FRAME_HEADER_SIZE);
const _: () = assert!(std::mem::offset_of!(Raw, durable_entries) == 96);
const _: () = assert!(std::mem::offset_of!(Raw, payload_checksum) == 128);
const _: () = assert!(SECTOR.is_multiple_of(FRAME_HEADER_SIZE));

const CHECKSUM_SIZE: usize = size_of::<U128>();
const KIND_ENTRY: u8 = 1;
const KIND_MARKER: u8 = 2;

impl Header {
    /// Bytes of the whole frame.
    pub(crate) fn frame_size(&self) -> usize {
        frame_size(self.payload_size as usize)
    }

    /// The address behind the frame.
    pub(crate) fn end(&self) -> u64 {
        self.position + self.frame_size() as u64
    }

    /// The 256 bytes that stand before the payload.
    pub(crate) fn encode(&self, config: &Config) -> [u8; FRAME_HEADER_SIZE] {
        let raw = Raw {
            checksum: U128::ZERO,
            magic: MAGIC,
            version: FORMAT_VERSION.into(),
            kind: match self.kind {
                Kind::Entry => KIND_ENTRY,
                Kind::Marker => KIND_MARKER,
            },
            zero: [0; 5],
            journal: config.id.into(),
            position: self.position.into(),
            sequence: self.sequence.into(),
            entries: self.entries.into(),
            previous: self.previous.into(),
            durable: self.durable.position.into(),
            durable_sequence: self.durable.sequence.into(),
            durable_entries: self.durable.entries.into(),
            oldest: self.oldest.into(),
            tag: self.tag.into(),
            payload_size: self.payload_size.into(),
            segment_count: config.segment_count.into(),
            payload_checksum: self.payload_checksum.into(),
            segment_size: config.segment_size.into(),
            epoch: self.epoch.into(),
            reserved: [0; 96],
        };
        let mut bytes = [0; FRAME_HEADER_SIZE];
        bytes.copy_from_slice(raw.as_bytes());
        let checksum = xxh3_128(&bytes[CHECKSUM_SIZE..]);
        bytes[..CHECKSUM_SIZE].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the header at the start of `bytes`, which were found at log address `position`.
    pub(crate) fn decode(bytes: &[u8], config: &Config, position: u64) -> Result<Self, Damage> {
        let header = Self::decode_anywhere(bytes, config)?;
        if header.position == position {
            Ok(header)
        } else {
            Err(Damage::Misplaced(header.position))
        }
    }

    /// Reads the header at the start of `bytes`, wherever it claims to belong.
    pub(crate) fn decode_anywhere(bytes: &[u8], config: &Config) -> Result<Self, Damage> {
        let (raw, _) = Raw::ref_from_prefix(bytes).map_err(|_| Damage::NoHeader)?;
        if raw.magic != MAGIC {
            return Err(Damage::NoHeader);
        }
        if raw.checksum.get() != xxh3_128(&raw.as_bytes()[CHECKSUM_SIZE..]) {
            return Err(Damage::Header);
        }
        if raw.version.get() != FORMAT_VERSION {
            return Err(Damage::Version(raw.version.get()));
        }
        if raw.journal.get() != config.id {
            return Err(Damage::Foreign(raw.journal.get()));
        }
        let kind = match raw.kind {
            KIND_ENTRY => Kind::Entry,
            KIND_MARKER => Kind::Marker,
            _ => return Err(Damage::Header),
        };
        let header = Self {
            kind,
            position: raw.position.get(),
            sequence: raw.sequence.get(),
            entries: raw.entries.get(),
            previous: raw.previous.get(),
            durable: Durable {
                position: raw.durable.get(),
                sequence: raw.durable_sequence.get(),
                entries: raw.durable_entries.get(),
            },
            epoch: raw.epoch.get(),
            oldest: raw.oldest.get(),
            tag: raw.tag.get(),
            payload_size: raw.payload_size.get(),
            payload_checksum: raw.payload_checksum.get(),
        };
        let geometry = (raw.segment_size.get(), raw.segment_count.get());
        if geometry != (config.segment_size, config.segment_count) || !header.fits(config) {
            return Err(Damage::Geometry);
        }
        Ok(header)
    }

    /// Whether the bytes could be a header for `position` at all: two comparisons, so that a scan
    /// that has lost its place can look at every sector at the speed of memory.
    pub(crate) fn resembles(bytes: &[u8], position: u64) -> bool {
        let Ok((raw, _)) = Raw::ref_from_prefix(bytes) else {
            return false;
        };
        raw.magic == MAGIC && raw.position.get() == position
    }

    /// Checks the rest of a frame whose header is known to be good.
    pub(crate) fn verify_rest(
        &self,
        frame: &[u8],
        check: &impl PayloadCheck,
    ) -> Result<(), Damage> {
        assert!(frame.len() == self.frame_size());
        let end = FRAME_HEADER_SIZE + self.payload_size as usize;
        if !is_zero(&frame[end..]) {
            return Err(Damage::Padding);
        }
        match self.kind {
            Kind::Marker => Ok(()),
            Kind::Entry if check.verify(self.payload(frame), self.payload_checksum) => Ok(()),
            Kind::Entry => Err(Damage::Payload),
        }
    }

    /// The payload within the bytes of the frame.
    pub(crate) fn payload<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        &frame[FRAME_HEADER_SIZE..][..self.payload_size as usize]
    }

    /// A frame that a journal of this geometry could have written. Limits in flight may change
    /// between openings and do not count here.
    fn fits(&self, config: &Config) -> bool {
        let placed = self.position.is_multiple_of(SECTOR as u64)
            && self.position < POSITION_LIMIT
            && self.frame_size() <= FRAME_SIZE_MAX
            && self.position % config.segment_size + self.frame_size() as u64
                <= config.segment_size;
        let counted = self.sequence > self.entries
            && self.durable.position <= self.position
            && self.durable.sequence <= self.sequence
            && self.durable.entries <= self.entries;
        let kept = self.oldest <= self.position && self.oldest.is_multiple_of(config.segment_size);
        placed && counted && kept && (self.kind == Kind::Entry || self.payload_size == 0)
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |seen, byte| seen | byte) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Xxh3, checksum_payload};
    use proptest::prelude::*;

    const CONFIG: Config = Config {
        id: 9,
        segment_size: 64 << 20,
        segment_count: 8,
        inflight_bytes_max: 8 << 20,
    };

    fn header() -> impl Strategy<Value = Header> {
        let place = (0_u64..1 << 20, 0..8_u64, any::<bool>());
        let counts = (1_u64..1 << 40, 0_u64..1 << 40, 0_u64..1 << 40, any::<u64>());
        let content = (any::<u64>(), 0_u32..100_000, any::<u128>());
        (place, counts, content).prop_map(|(place, counts, content)| {
            let position = place.0 * CONFIG.segment_size + place.1 * SECTOR as u64;
            let kind = if place.2 { Kind::Entry } else { Kind::Marker };
            let sequence = counts.0;
            let durable = Durable {
                position: counts.1 % (position + 1),
                sequence: counts.1 % sequence,
                entries: counts.2 % sequence,
            };
            Header {
                kind,
                position,
                sequence,
                entries: sequence - 1,
                previous: counts.3,
                durable: Durable {
                    entries: durable.entries.min(sequence - 1),
                    ..durable
                },
                epoch: counts.1,
                oldest: counts.2 % (place.0 + 1) * CONFIG.segment_size,
                tag: content.0,
                payload_size: if kind == Kind::Entry { content.1 } else { 0 },
                payload_checksum: content.2,
            }
        })
    }

    proptest! {
        #[test]
        fn a_header_reads_as_it_was_written(header in header()) {
            let bytes = header.encode(&CONFIG);
            prop_assert_eq!(Header::decode(&bytes, &CONFIG, header.position), Ok(header));
            prop_assert!(Header::resembles(&bytes, header.position));
        }

        #[test]
        fn a_header_is_valid_for_one_place_only(header in header(), other in any::<u64>()) {
            prop_assume!(other != header.position);
            let bytes = header.encode(&CONFIG);
            let misplaced = Err(Damage::Misplaced(header.position));
            prop_assert_eq!(Header::decode(&bytes, &CONFIG, other), misplaced);
        }

        #[test]
        fn every_flipped_bit_is_noticed(header in header(), bit in 0..FRAME_HEADER_SIZE * 8) {
            let mut bytes = header.encode(&CONFIG);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Header::decode(&bytes, &CONFIG, header.position).is_err());
        }

        #[test]
        fn foreign_bytes_are_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Header::decode(&bytes, &CONFIG, 0).is_err());
            if let Some(magic) = bytes.get_mut(16..24) {
                magic.copy_from_slice(&MAGIC);
            }
            prop_assert!(Header::decode(&bytes, &CONFIG, 0).is_err());
        }

        #[test]
        fn every_flipped_bit_of_the_rest_is_noticed(
            payload in prop::collection::vec(any::<u8>(), 0..9000),
            bit in any::<prop::sample::Index>(),
        ) {
            let header = Header {
                kind: Kind::Entry,
                position: 0,
                sequence: 1,
                entries: 0,
                previous: POSITION_NONE,
                durable: Durable { position: 0, sequence: 1, entries: 0 },
                epoch: 1,
                oldest: 0,
                tag: 0,
                payload_size: u32::try_from(payload.len()).expect("small"),
                payload_checksum: checksum_payload(&payload),
            };
            let mut frame = vec![0; header.frame_size()];
            frame[FRAME_HEADER_SIZE..][..payload.len()].copy_from_slice(&payload);
            prop_assert_eq!(header.verify_rest(&frame, &Xxh3), Ok(()));
            let bit = bit.index((frame.len() - FRAME_HEADER_SIZE) * 8);
            frame[FRAME_HEADER_SIZE + bit / 8] ^= 1 << (bit % 8);
            prop_assert!(header.verify_rest(&frame, &Xxh3).is_err());
        }
    }

    #[test]
    fn other_versions_identities_and_geometries_are_told_apart() {
        let mut header = Header {
            kind: Kind::Marker,
            position: 0,
            sequence: 1,
            entries: 0,
            previous: POSITION_NONE,
            durable: Durable {
                position: 0,
                sequence: 1,
                entries: 0,
            },
            epoch: 1,
            oldest: 0,
            tag: 0,
            payload_size: 0,
            payload_checksum: 0,
        };
        let bytes = header.encode(&CONFIG);
        let decode = |config: Config| Header::decode(&bytes, &config, 0);
        assert_eq!(decode(Config { id: 8, ..CONFIG }), Err(Damage::Foreign(9)));
        assert_eq!(
            decode(Config {
                segment_count: 9,
                ..CONFIG
            }),
            Err(Damage::Geometry)
        );
        assert_eq!(
            decode(Config {
                segment_size: 1 << 20,
                ..CONFIG
            }),
            Err(Damage::Geometry)
        );
        assert_eq!(
            decode(Config {
                inflight_bytes_max: 4096,
                ..CONFIG
            }),
            Ok(header)
        );

        let mut newer = bytes;
        newer[24] += 1;
        let checksum = xxh3_128(&newer[CHECKSUM_SIZE..]);
        newer[..CHECKSUM_SIZE].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(
            Header::decode(&newer, &CONFIG, 0),
            Err(Damage::Version(FORMAT_VERSION + 1))
        );

        // Checksums hold, but no journal writes this: a durable point ahead of the frame.
        header.durable.position = 4096;
        assert_eq!(
            Header::decode(&header.encode(&CONFIG), &CONFIG, 0),
            Err(Damage::Geometry)
        );
    }
}
