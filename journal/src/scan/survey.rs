//! Looking ahead: which valid headers lie behind a bad frame, and what they prove.
//!
//! The survey looks at every sector, because it has no chain to follow; two comparisons per sector
//! keep it at the speed of the device. It judges nothing, and reads payloads never: a header that
//! is valid for its address states a true durable point even if its own payload is torn.

use std::collections::VecDeque;

use super::reader::Reader;
use crate::config::Config;
use crate::device::ReadAt;
use crate::frame::{Damage, Durable, FORMAT_VERSION, Header, SECTOR};
use crate::recovery::OpenError;
use crate::segment::Geometry;

/// What the valid headers found so far prove.
#[derive(Debug)]
pub(super) struct Survey {
    /// Those that are not below the durable point, by position: what was in flight at a crash, at
    /// most `INFLIGHT_BYTES_LIMIT` of log.
    frames: VecDeque<Header>,
    /// First address not looked at.
    next: u64,
    /// The furthest durable point that any of them states.
    pub(super) proven: Durable,
    /// The newest epoch that any of them states.
    pub(super) epoch: u64,
    /// The furthest trim point that any of them states.
    pub(super) oldest: u64,
}

impl Default for Survey {
    fn default() -> Self {
        let proven = Durable {
            position: 0,
            sequence: 1,
            entries: 0,
        };
        Self {
            frames: VecDeque::new(),
            next: 0,
            proven,
            epoch: 0,
            oldest: 0,
        }
    }
}

impl Survey {
    /// Looks at `range`, as far as that has not been done.
    pub(super) fn extend<D: ReadAt>(
        &mut self,
        range: (u64, u64),
        config: &Config,
        reader: &mut Reader<'_, D>,
    ) -> Result<(), OpenError> {
        let (from, to) = range;
        self.next = self.next.max(from);
        while self.next < to {
            if let Some(header) = header_at(self.next, config, reader)? {
                self.add(header);
            }
            self.next += SECTOR as u64;
        }
        Ok(())
    }

    /// The first frame from `position` on, as far as the survey has looked, that can follow `link`.
    pub(super) fn find_frame<D: ReadAt>(
        &self,
        position: u64,
        link: Option<Header>,
        config: &Config,
        reader: &mut Reader<'_, D>,
    ) -> Result<Option<Header>, OpenError> {
        let follows = |frame: &Header| {
            link.is_none_or(|link| frame.sequence > link.sequence && frame.epoch >= link.epoch)
        };
        // Below the durable point frames are not kept: read again, usually only a few sectors.
        for position in (position..self.next.min(self.proven.position)).step_by(SECTOR) {
            if let Some(header) = header_at(position, config, reader)?.filter(follows) {
                return Ok(Some(header));
            }
        }
        Ok(self
            .frames_from(position)
            .find(|frame| follows(frame))
            .copied())
    }

    /// All frames at or after `position`, which is not below the durable point.
    pub(super) fn frames_from(&self, position: u64) -> impl Iterator<Item = &Header> {
        let index = self
            .frames
            .partition_point(|frame| frame.position < position);
        self.frames.range(index..)
    }

    pub(super) fn last_frame(&self) -> Option<Header> {
        self.frames.back().copied()
    }

    fn add(&mut self, header: Header) {
        if header.durable.position > self.proven.position {
            self.proven = header.durable;
        }
        self.epoch = self.epoch.max(header.epoch);
        self.oldest = self.oldest.max(header.oldest);
        self.frames.push_back(header);
        while self
            .frames
            .front()
            .is_some_and(|frame| frame.position < self.proven.position)
        {
            self.frames.pop_front();
        }
    }
}

/// The valid header at an address, if there is one.
fn header_at<D: ReadAt>(
    position: u64,
    config: &Config,
    reader: &mut Reader<'_, D>,
) -> Result<Option<Header>, OpenError> {
    let bytes = reader.bytes(position, SECTOR)?;
    if !Header::resembles(bytes, position) {
        return Ok(None);
    }
    match Header::decode(bytes, config, position) {
        Err(Damage::Version(found)) => Err(OpenError::Version {
            found,
            known: FORMAT_VERSION,
        }),
        header => Ok(header.ok()),
    }
}

/// The first frame of the newest segment, found by looking at the first sector of every file.
pub(super) fn newest_segment<D: ReadAt>(
    config: &Config,
    geometry: &Geometry,
    reader: &mut Reader<'_, D>,
) -> Result<Option<Header>, OpenError> {
    let mut newest: Option<Header> = None;
    let mut foreign = None;
    for file in 0..geometry.count() {
        let address = geometry.start(file);
        match reader.look(address, |bytes| Header::decode_anywhere(bytes, config))? {
            // On whichever lap: it begins a segment of this file.
            Ok(header) if geometry.place(header.position) == geometry.place(address) => {
                if newest.is_none_or(|newest| newest.position < header.position) {
                    newest = Some(header);
                }
            }
            Err(Damage::Foreign(found)) => foreign = Some(found),
            Err(Damage::Version(found)) => {
                return Err(OpenError::Version {
                    found,
                    known: FORMAT_VERSION,
                });
            }
            Err(Damage::Geometry) => return Err(OpenError::Geometry),
            Ok(_) | Err(_) => {}
        }
    }
    match (newest, foreign) {
        (None, Some(found)) => Err(OpenError::Foreign {
            found,
            expected: config.id,
        }),
        _ => Ok(newest),
    }
}
