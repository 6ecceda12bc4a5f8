//! What is in the messages of a transfer. `docs/wire-format.md` has the table.

use zerocopy::{FromBytes, IntoBytes};

use super::Stretch;
use crate::message::{Header, Message, Op};
use crate::store::{FileEntry, FileKind, FileName, ManifestRef};

/// A checkpoint that a replica offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::replica) struct Offer {
    pub(in crate::replica) op: Op,
    /// Of the prepare at `op`.
    pub(in crate::replica) checksum: u128,
    /// Of the prepare at `op`.
    pub(in crate::replica) timestamp: u64,
    pub(in crate::replica) manifest: ManifestRef,
}

impl Offer {
    pub(super) fn write(&self, mut header: Header) -> (Header, Vec<u8>) {
        header.op = self.op;
        header.context = self.checksum;
        header.timestamp = self.timestamp;
        (header, self.manifest.as_bytes().to_vec())
    }

    /// `None` for what no replica of this release offers.
    pub(super) fn read(message: &Message) -> Option<Self> {
        let header = message.header();
        let manifest = ManifestRef::read_from_bytes(message.body()).ok()?;
        let offer = Self {
            op: header.op,
            checksum: header.context,
            timestamp: header.timestamp,
            manifest,
        };
        let plausible = manifest.op == header.op && manifest.reserved == 0;
        (plausible && is_manifest(&manifest.entry())).then_some(offer)
    }
}

/// A manifest is read into memory whole: 48 bytes for each file, and a file for 65,536 transfers.
const MANIFEST_SIZE_MAX: u64 = 64 << 20;

fn is_manifest(entry: &FileEntry) -> bool {
    entry.is_plausible() && entry.size <= MANIFEST_SIZE_MAX
}

/// The header of a block, or of a request for it.
pub(super) fn block(mut header: Header, op: Op, stretch: Stretch) -> Header {
    header.op = op;
    header.operation = u8::try_from(stretch.name.kind as u16).expect("kinds are few");
    header.session = stretch.name.number;
    header.commit = stretch.offset;
    header.request = u32::try_from(stretch.size).expect("at most a block");
    header
}

/// Which stretch a header speaks of.
pub(super) fn stretch(header: &Header) -> Option<Stretch> {
    let kind = FileKind::from_code(u16::from(header.operation))?;
    Some(Stretch {
        name: FileName::new(kind, header.session),
        offset: header.commit,
        size: usize::try_from(header.request).ok()?,
    })
}
