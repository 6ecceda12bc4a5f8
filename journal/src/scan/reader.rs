//! A window over the log: large sequential reads, small looks, and sectors that cannot be read.
//!
//! One buffer of 8 MiB slides over the log; what is asked for next is usually already there. A
//! read that fails with a media error is repeated sector by sector: the ones that stay unreadable
//! become zeros and are remembered, so that one bad sector costs one frame and not the scan.

use std::collections::BTreeSet;
use std::io;

use crate::buffer::AlignedBuffer;
use crate::config::{Config, FRAME_SIZE_MAX};
use crate::device::ReadAt;
use crate::frame::{Damage, FORMAT_VERSION, Header, SECTOR};
use crate::recovery::OpenError;
use crate::segment::Geometry;

/// Bytes per read: enough to keep a fast device busy, and to hold any frame.
const WINDOW: usize = 8 << 20;

const _: () = assert!(WINDOW >= FRAME_SIZE_MAX);

/// The log as a scan sees it.
pub(super) struct Reader<'a, D> {
    device: &'a mut D,
    geometry: Geometry,
    window: AlignedBuffer,
    /// Log address of the first byte in the window, and how many bytes are valid.
    start: u64,
    len: usize,
    sector: AlignedBuffer,
    unreadable: BTreeSet<u64>,
    bytes_read: u64,
}

impl<'a, D: ReadAt> Reader<'a, D> {
    pub(super) fn new(device: &'a mut D, geometry: Geometry) -> Self {
        let window = usize::try_from(geometry.rest(0)).map_or(WINDOW, |size| size.min(WINDOW));
        Self {
            device,
            geometry,
            window: AlignedBuffer::new(window),
            start: 0,
            len: 0,
            sector: AlignedBuffer::new(SECTOR),
            unreadable: BTreeSet::new(),
            bytes_read: 0,
        }
    }

    /// The bytes of the log at `position`, which must not cross into the next segment.
    pub(super) fn bytes(&mut self, position: u64, len: usize) -> Result<&[u8], OpenError> {
        assert!(len as u64 <= self.geometry.rest(position));
        let end = position + len as u64;
        if position < self.start || end > self.start + self.len as u64 {
            self.slide(position)?;
        }
        let from = usize::try_from(position - self.start).expect("inside the window");
        Ok(&self.window.as_slice()[from..from + len])
    }

    /// The valid header at the first address of a segment, read without moving the window.
    pub(super) fn probe(
        &mut self,
        position: u64,
        config: &Config,
    ) -> Result<Option<Header>, OpenError> {
        match self.look(position, |bytes| Header::decode(bytes, config, position))? {
            Ok(header) => Ok(Some(header)),
            Err(Damage::Version(found)) => Err(OpenError::Version {
                found,
                known: FORMAT_VERSION,
            }),
            Err(Damage::Geometry) => Err(OpenError::Geometry),
            Err(_) => Ok(None),
        }
    }

    /// Shows one sector to `see` without moving the window.
    pub(super) fn look<T>(
        &mut self,
        position: u64,
        see: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, OpenError> {
        let (file, offset) = self.geometry.place(position);
        let bytes = self.sector.as_mut_slice();
        match self.device.read_at(file, offset, bytes) {
            Ok(()) => self.bytes_read += SECTOR as u64,
            Err(error) if is_media_error(&error) => bytes.fill(0),
            Err(source) => {
                return Err(OpenError::Read {
                    file,
                    offset,
                    source,
                });
            }
        }
        Ok(see(self.sector.as_slice()))
    }

    /// Whether any sector of a range could not be read.
    pub(super) fn is_unreadable(&self, position: u64, len: usize) -> bool {
        self.unreadable
            .range(position..position + len as u64)
            .next()
            .is_some()
    }

    /// The sectors that could not be read.
    pub(super) fn unreadable(&self) -> impl Iterator<Item = u64> {
        self.unreadable.iter().copied()
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Moves the window to begin at `position`, keeping what it already holds from there on.
    fn slide(&mut self, position: u64) -> Result<(), OpenError> {
        let held = self.start..self.start + self.len as u64;
        let keep = if held.contains(&position) {
            let from = usize::try_from(position - self.start).expect("inside the window");
            self.window.as_mut_slice().copy_within(from..self.len, 0);
            self.len - from
        } else {
            0
        };
        let rest = usize::try_from(self.geometry.rest(position)).unwrap_or(usize::MAX);
        let end = rest.min(self.window.as_slice().len());
        (self.start, self.len) = (position, keep);
        self.read(position + keep as u64, keep, end)?;
        self.len = end;
        Ok(())
    }

    /// Reads the log at `position` into `from..to` of the window.
    fn read(&mut self, position: u64, from: usize, to: usize) -> Result<(), OpenError> {
        let (file, offset) = self.geometry.place(position);
        self.bytes_read += (to - from) as u64;
        let bytes = &mut self.window.as_mut_slice()[from..to];
        match self.device.read_at(file, offset, bytes) {
            Ok(()) => return Ok(()),
            Err(error) if is_media_error(&error) => {}
            Err(source) => {
                return Err(OpenError::Read {
                    file,
                    offset,
                    source,
                });
            }
        }
        for (index, sector) in bytes.chunks_exact_mut(SECTOR).enumerate() {
            let ahead = (index * SECTOR) as u64;
            if let Err(source) = self.device.read_at(file, offset + ahead, sector) {
                if !is_media_error(&source) {
                    return Err(OpenError::Read {
                        file,
                        offset: offset + ahead,
                        source,
                    });
                }
                sector.fill(0);
                self.unreadable.insert(position + ahead);
            }
        }
        Ok(())
    }
}

/// Errors by which a device says that these bytes are lost, as opposed to: nothing works.
fn is_media_error(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EILSEQ | libc::ENODATA | libc::EBADMSG | libc::EREMOTEIO)
    )
}
