//! Following the chain: from frame to frame, as long as each continues the one before it.
//!
//! The scanner owns everything a scan knows. What to do about a frame that is bad is decided in
//! `verdict`; here it is only found to be bad.

use super::Entry;
use super::reader::Reader;
use super::survey::{self, Survey};
use super::verdict::Verdict;
use crate::append::Resume;
use crate::check::PayloadCheck;
use crate::config::Config;
use crate::device::ReadAt;
use crate::frame::{Damage, Durable, FORMAT_VERSION, Header, Kind, POSITION_LIMIT, SECTOR};
use crate::recovery::{OpenError, Recovery};
use crate::segment::Geometry;

/// What a scan has found, and what is left to do.
pub(super) struct Outcome {
    pub(super) resume: Resume,
    pub(super) recovery: Recovery,
    /// Sectors behind the head that must be overwritten before anything is appended.
    pub(super) wipe: Vec<u64>,
}

/// The next frame of the log, or why there is none.
enum Step {
    Frame(Header),
    Bad {
        position: u64,
        damage: Damage,
        header: Option<Header>,
    },
}

pub(super) struct Scanner<'a, D, C> {
    pub(super) config: Config,
    pub(super) geometry: Geometry,
    pub(super) reader: Reader<'a, D>,
    pub(super) check: &'a C,
    pub(super) start: u64,
    /// First address that cannot be part of the log.
    pub(super) limit: u64,
    /// Whether a frame below `limit` but in a segment after this one is to be expected.
    pub(super) newest_segment: u64,
    pub(super) survey: Survey,
    /// The last frame whose place in the chain is known.
    pub(super) link: Option<Header>,
    /// The furthest durable point that a frame of the chain stated.
    pub(super) recorded: u64,
    /// The newest epoch that a frame of the chain stated.
    pub(super) epoch: u64,
    pub(super) last_entry: Option<(u64, u64)>,
    pub(super) recovery: Recovery,
}

impl<'a, D: ReadAt, C: PayloadCheck> Scanner<'a, D, C> {
    pub(super) fn begin(
        config: Config,
        device: &'a mut D,
        check: &'a C,
        start: Option<u64>,
    ) -> Result<Self, OpenError> {
        config.validate()?;
        let geometry = Geometry::new(&config);
        let mut reader = Reader::new(device, geometry);
        let newest = survey::newest_segment(&config, &geometry, &mut reader)?;
        let start = start.unwrap_or_else(|| newest.map_or(0, |header| header.oldest));
        if start >= POSITION_LIMIT || !start.is_multiple_of(SECTOR as u64) {
            return Err(OpenError::Start { start });
        }
        let start_segment = geometry.segment(start);
        let newest_segment =
            newest.map_or(start_segment, |header| geometry.segment(header.position));
        if newest_segment >= start_segment + geometry.count() {
            let oldest = geometry.start(newest_segment + 1 - geometry.count());
            return Err(OpenError::StartOverwritten { start, oldest });
        }
        Ok(Self {
            config,
            geometry,
            reader,
            check,
            start,
            limit: geometry.limit(start_segment),
            newest_segment,
            survey: Survey::default(),
            link: None,
            recorded: 0,
            epoch: newest.map_or(0, |header| header.epoch),
            last_entry: None,
            recovery: Recovery {
                start,
                ..Recovery::default()
            },
        })
    }

    pub(super) fn run(mut self, visit: &mut dyn FnMut(Entry<'_>)) -> Result<Outcome, OpenError> {
        let mut next = self.geometry.start(self.geometry.segment(self.start));
        let (head, previous) = loop {
            if next == self.limit {
                break self.after_link(next)?;
            }
            match self.step(next)? {
                Step::Frame(header) => {
                    self.deliver(&header, visit)?;
                    self.link = Some(header);
                    next = header.end();
                }
                Step::Bad {
                    position,
                    damage,
                    header,
                } => match self.judge(position, damage, header)? {
                    Verdict::GoOn(position) => next = position,
                    Verdict::End { head, previous } => break (head, previous),
                },
            }
        };
        Ok(self.finish(head, previous))
    }

    /// Looks for the frame that continues the log at `next`.
    fn step(&mut self, next: u64) -> Result<Step, OpenError> {
        let header = match self.header_at(next)? {
            Ok(header) => header,
            Err(damage) => match self.header_after_rest(next)? {
                Some(header) => header,
                None => {
                    return Ok(Step::Bad {
                        position: next,
                        damage,
                        header: None,
                    });
                }
            },
        };
        let position = header.position;
        let bad = |damage| Step::Bad {
            position,
            damage,
            header: Some(header),
        };
        if self.link.is_some_and(|link| !continues(&link, &header)) {
            return Ok(bad(Damage::Chain));
        }
        let frame = self.reader.bytes(position, header.frame_size())?;
        if let Err(damage) = header.verify_rest(frame, self.check) {
            let unreadable = self.reader.is_unreadable(position, header.frame_size());
            return Ok(bad(if unreadable {
                Damage::Unreadable
            } else {
                damage
            }));
        }
        Ok(Step::Frame(header))
    }

    /// The header at an address, or what is wrong there. Some kinds of wrong end the scan: to go
    /// on would destroy what another version or configuration has written.
    pub(super) fn header_at(&mut self, position: u64) -> Result<Result<Header, Damage>, OpenError> {
        let header = Header::decode(self.reader.bytes(position, SECTOR)?, &self.config, position);
        match header {
            Err(Damage::Version(found)) => Err(OpenError::Version {
                found,
                known: FORMAT_VERSION,
            }),
            Err(Damage::Geometry) => Err(OpenError::Geometry),
            Err(_) if self.reader.is_unreadable(position, SECTOR) => Ok(Err(Damage::Unreadable)),
            other => Ok(other),
        }
    }

    /// The frame that begins the next segment, if it is the successor of the last good one: then
    /// the rest of this segment was too short for it and is unused.
    fn header_after_rest(&mut self, next: u64) -> Result<Option<Header>, OpenError> {
        let Some(link) = self.link else {
            return Ok(None);
        };
        let start = self.geometry.next_start(next);
        let at_boundary = self.geometry.start(self.geometry.segment(next)) == next;
        if at_boundary || start >= self.limit {
            return Ok(None);
        }
        // Kept out of the reader's window, which must stay where the scan is.
        let header = self.reader.probe(start, &self.config)?;
        Ok(header.filter(|header| continues(&link, header)))
    }

    fn deliver(
        &mut self,
        header: &Header,
        visit: &mut dyn FnMut(Entry<'_>),
    ) -> Result<(), OpenError> {
        self.recorded = self.recorded.max(header.durable.position);
        self.epoch = self.epoch.max(header.epoch);
        if header.kind == Kind::Entry {
            self.last_entry = Some((header.tag, header.end()));
        }
        if header.position < self.start {
            return Ok(());
        }
        match header.kind {
            Kind::Marker => self.recovery.markers += 1,
            Kind::Entry => {
                self.recovery.entries += 1;
                let frame = self.reader.bytes(header.position, header.frame_size())?;
                visit(Entry::of(header, frame));
            }
        }
        Ok(())
    }

    fn finish(mut self, head: Durable, previous: u64) -> Outcome {
        let recorded = self.recorded.max(self.survey.proven.position);
        assert!(head.position >= self.start);
        assert!(recorded <= head.position);
        self.recovery.head = head.position;
        self.recovery.proven = recorded.max(self.start);
        self.recovery.bytes_read = self.reader.bytes_read();
        // A corrupt stretch below what a later frame knew to be trimmed is no loss.
        let oldest = self.survey.oldest;
        self.recovery
            .corruptions
            .retain(|corruption| corruption.position >= oldest);
        let mut wipe: Vec<u64> = self
            .survey
            .frames_from(head.position)
            .map(|frame| frame.position)
            .collect();
        // Nobody knows what an unreadable sector will show one day; writing it also heals it.
        wipe.extend(
            self.reader
                .unreadable()
                .filter(|position| *position >= head.position),
        );
        wipe.sort_unstable();
        wipe.dedup();
        let linked = self.link.map_or(0, |link| link.epoch);
        let resume = Resume {
            head,
            previous,
            epoch: self.epoch.max(self.survey.epoch).max(linked) + 1,
            oldest_segment: self.geometry.segment(self.start),
            tag: self.last_entry.map(|(tag, _)| tag),
            entries_end: self.last_entry.map_or(0, |(_, end)| end),
            recorded,
        };
        Outcome {
            resume,
            recovery: self.recovery,
            wipe,
        }
    }
}

/// Whether `next` is the frame written directly after `link`.
fn continues(link: &Header, next: &Header) -> bool {
    next.sequence == link.sequence + 1 && next.previous == link.position && next.epoch >= link.epoch
}

/// The counters of the frame after this one.
pub(super) fn counters(header: &Header) -> Durable {
    Durable {
        position: header.end(),
        sequence: header.sequence + 1,
        entries: header.entries + u64::from(header.kind == Kind::Entry),
    }
}

/// The counters of this frame itself.
pub(super) fn counters_before(header: &Header) -> Durable {
    Durable {
        position: header.position,
        sequence: header.sequence,
        entries: header.entries,
    }
}
