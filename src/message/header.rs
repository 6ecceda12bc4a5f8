//! The 256-byte header of our own messages, read and written in place.
//!
//! One flat layout serves every command: a field that a command does not use is zero. Offsets:
//!
//! ```text
//!    0 checksum         u128  XXH3-128 of bytes 16..256
//!   16 magic            u64   "STAMPEDE"; the foreign protocol has zeros here, which is how the
//!                             two are told apart on the shared port
//!   24 version          u16   of this layout
//!   26 command          u8
//!   27 replica          u8    the sender; in a prepare, the primary that made it
//!   28 size             u32   header and body
//!   32 checksum_body    u128  XXH3-128 of the body
//!   48 cluster          u128
//!   64 view             u32   the sender's view; in a prepare, the view it was made in
//!   68 release          u32   in requests and prepares: the client's release
//!   72 log_view         u32   the last view in which the sender's log was whole
//!   76 events           u32   in requests and prepares: how many timestamps the body uses
//!   80 reserved         48 bytes
//!  128 parent           u128  in a prepare: the checksum of the prepare before it
//!  144 client           u128
//!  160 request_checksum u128  the checksum of the foreign request
//!  176 context          u128  by command, see `docs/vsr.md`: mostly the checksum of the prepare at `op`
//!  192 session          u64   in a prepare_ok: the heartbeat that it answers, by its timestamp
//!  200 op               u64
//!  208 commit           u64
//!  216 timestamp        u64   nanoseconds; in a prepare the cluster time of its last event, in a commit
//!                             the primary's monotonic time, in a prepare_ok the backup's wall clock
//!  224 request          u32
//!  228 operation        u8
//!  229 reserved_tail    27 bytes
//! ```
//!
//! A header is trusted only after [`Header::verify`]; a body only after [`Header::verify_body`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Command, Op, View, checksum};
use crate::limits::{HEADER_SIZE, MESSAGE_SIZE_MAX};

/// "STAMPEDE" in the order of the bytes on the wire.
pub const MAGIC: u64 = u64::from_le_bytes(*b"STAMPEDE");

/// The version of this layout. Replicas of different versions do not talk.
pub const VERSION: u16 = 1;

#[cfg(target_endian = "big")]
compile_error!(
    "headers are little-endian and read in place: big-endian machines are not supported"
);

/// See the module's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    pub checksum: u128,
    pub magic: u64,
    pub version: u16,
    pub command: u8,
    pub replica: u8,
    pub size: u32,
    pub checksum_body: u128,
    pub cluster: u128,
    pub view: View,
    pub release: u32,
    pub log_view: View,
    pub events: u32,
    pub reserved: [u8; 48],
    pub parent: u128,
    pub client: u128,
    pub request_checksum: u128,
    pub context: u128,
    pub session: u64,
    pub op: Op,
    pub commit: Op,
    pub timestamp: u64,
    pub request: u32,
    pub operation: u8,
    pub reserved_tail: [u8; 27],
}

const _: () = assert!(size_of::<Header>() == HEADER_SIZE);

/// Why bytes are not a message of ours. Whoever sent them loses its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("header checksum does not match")]
    HeaderChecksum,
    #[error("body checksum does not match")]
    BodyChecksum,
    #[error("message format version {0} is not {VERSION}: run the same release on every replica")]
    Version(u16),
    #[error("unknown command {0}")]
    Command(u8),
    #[error("size {0} is not between {HEADER_SIZE} and {MESSAGE_SIZE_MAX}")]
    Size(u32),
    #[error("cluster {0:x} is another cluster")]
    Cluster(u128),
    #[error("replica index {0} is out of range")]
    Replica(u8),
    #[error("reserved bytes are not zero")]
    Reserved,
}

/// Whether these first bytes belong to a message of ours (else to the foreign protocol).
pub fn is_ours(header: &[u8; HEADER_SIZE]) -> bool {
    header[16..24] == MAGIC.to_le_bytes()
}

impl Header {
    /// A header of `command` with everything else zero but what every message needs.
    pub fn new(command: Command, cluster: u128, replica: u8, view: View) -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
            command: command as u8,
            replica,
            #[expect(clippy::cast_possible_truncation, reason = "256")]
            size: HEADER_SIZE as u32,
            cluster,
            view,
            ..zerocopy::FromZeros::new_zeroed()
        }
    }

    /// The body's length.
    pub fn body_size(&self) -> usize {
        (self.size as usize).saturating_sub(HEADER_SIZE)
    }

    /// The command; only after `verify`.
    pub fn command(&self) -> Option<Command> {
        Command::from_wire(self.command)
    }

    /// Sets both checksums. `self.size` must already say how long the body is.
    pub fn seal(&mut self, body: &[u8]) {
        assert_eq!(self.body_size(), body.len());
        self.checksum_body = checksum(body);
        self.seal_header();
    }

    /// Sets the header's checksum when `checksum_body` is right already.
    pub fn seal_header(&mut self) {
        self.checksum = checksum(&self.as_bytes()[16..]);
    }

    /// Checks everything that can be known without the body.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify(&self) -> Result<Command, Refusal> {
        if self.checksum != checksum(&self.as_bytes()[16..]) {
            return Err(Refusal::HeaderChecksum);
        }
        if self.version != VERSION || self.magic != MAGIC {
            return Err(Refusal::Version(self.version));
        }
        let Some(command) = self.command() else {
            return Err(Refusal::Command(self.command));
        };
        let size = self.size as usize;
        if !(HEADER_SIZE..=MESSAGE_SIZE_MAX).contains(&size) {
            return Err(Refusal::Size(self.size));
        }
        if self.reserved != [0; 48] || self.reserved_tail != [0; 27] {
            return Err(Refusal::Reserved);
        }
        Ok(command)
    }

    /// Checks the body against the header.
    ///
    /// # Errors
    /// [`Refusal::BodyChecksum`].
    pub fn verify_body(&self, body: &[u8]) -> Result<(), Refusal> {
        if body.len() != self.body_size() || self.checksum_body != checksum(body) {
            return Err(Refusal::BodyChecksum);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> Header {
        let mut header = Header::new(Command::Prepare, 7, 1, 3);
        header.size += 5;
        header.seal(b"hello");
        header
    }

    #[test]
    fn a_sealed_header_verifies() {
        let header = sealed();
        assert_eq!(header.verify(), Ok(Command::Prepare));
        assert_eq!(header.verify_body(b"hello"), Ok(()));
        assert_eq!(header.verify_body(b"hellp"), Err(Refusal::BodyChecksum));
    }

    #[test]
    fn every_single_bit_flip_is_found() {
        let header = sealed();
        for bit in 0..HEADER_SIZE * 8 {
            let mut bytes: [u8; HEADER_SIZE] = zerocopy::transmute!(header);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let flipped: Header = zerocopy::transmute!(bytes);
            assert!(flipped.verify().is_err(), "bit {bit}");
        }
    }

    #[test]
    fn ours_is_told_from_foreign() {
        let bytes: [u8; HEADER_SIZE] = zerocopy::transmute!(sealed());
        assert!(is_ours(&bytes));
        assert!(!is_ours(&[0; HEADER_SIZE]));
    }
}
