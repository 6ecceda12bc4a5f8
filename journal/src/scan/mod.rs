//! Opening a log: finding its end, and telling a torn tail from damage.
//!
//! The scan follows the chain of frames from the start of a segment: each must lie where the one
//! before it ends (or begin the next segment), name it as its predecessor and count one further.
//! At the first frame that is bad it *surveys* what lies behind: any valid header there tells how
//! far the log had been durable when it was written.
//!
//! ```text
//!   good  good  BAD   ?  good(durable: d)      position of BAD < d: it had been acknowledged:
//!   ├─────┼─────┼───────┼────────┤             corrupt, reported; go on at the next good frame
//!                  d ─►
//!   good  good  BAD   ?  good(durable: d)      position of BAD ≥ d: it was in flight:
//!   ├─────┼─────┼───────┼────────┤             torn tail, cut off here
//!           d ─►
//! ```
//!
//! How far the survey must look: a frame handed out is at most `INFLIGHT_BYTES_LIMIT` ahead of the
//! durable point, and so of the cut; the survey goes that far, to the end of the segment, and to
//! the end of the newest segment whose first frame can be read, whichever is furthest.
//!
//! **Nothing valid survives behind the cut.** A frame that was in flight may be whole on the disk
//! although one before it is torn. Its position, its predecessor and its count could all fit what
//! is appended next, so that after another crash it would be taken for live. Before the journal
//! accepts an append, opening therefore
//!
//! 1. writes a marker at the head, which records as durable what was found: the frames about to be
//!    erased may have been the only proof of it;
//! 2. overwrites the header sector of every frame behind it with zeros, durably.
//!
//! A crash in between only repeats the scan: the marker is of a newer *epoch* (one per opening,
//! counted on from the newest found), and no frame follows one of a newer epoch than its own. So
//! every valid frame behind the head of an earlier opening was written after that opening. The
//! epoch alone would not do: a scan that starts behind the frame that first states it cannot know.
//!
//! A position given as start is vouched for by the caller: damage below it is not reported, and
//! the log is never cut below it.

mod reader;
mod survey;

use std::io;

use crate::append::{AppendError, FIRST, Journal, Location, Resume};
use crate::buffer::AlignedBuffer;
use crate::check::PayloadCheck;
use crate::config::Config;
use crate::device::{ReadAt, WriteAt};
use crate::frame::{Damage, Durable, FORMAT_VERSION, Header, Kind, POSITION_LIMIT, SECTOR};
use crate::recovery::{Corruption, OpenError, Recovery, TornTail};
use crate::segment::Geometry;
use reader::Reader;
use survey::Survey;

/// An entry as it was read back and verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The tag given with the append. A later entry whose tag is not higher usually supersedes
    /// earlier ones; that is for the caller to say.
    pub tag: u64,
    /// Where it lies.
    pub location: Location,
    /// Its number among all frames of the journal, markers included.
    pub sequence: u64,
    /// The checksum given with the append.
    pub checksum: u128,
    /// The payload, byte for byte.
    pub payload: &'a [u8],
}

impl<'a> Entry<'a> {
    pub(crate) fn of(header: &Header, frame: &'a [u8]) -> Self {
        let size = u32::try_from(frame.len()).expect("a frame is at most FRAME_SIZE_MAX");
        Self {
            tag: header.tag,
            location: Location {
                position: header.position,
                size,
            },
            sequence: header.sequence,
            checksum: header.payload_checksum,
            payload: header.payload(frame),
        }
    }
}

impl Journal {
    /// Opens the journal on `device`: reads it from `start`, hands every entry from there on to
    /// `visit` in order of position, cuts off a torn tail, and gives the journal, ready to append,
    /// with an account of what was found. Zeroed segments are an empty journal.
    ///
    /// `start` is a position that the caller knows to have been durable: where its checkpoint
    /// ends, or the location of the first entry after it. `None` begins at the oldest segment that
    /// the newest one refers to; a segment that was being recycled at the crash may then be
    /// reported as corrupt, so a caller that ever trims should keep the position.
    ///
    /// Blocks for as long as reading takes. Entries count as durable once this has returned.
    pub fn open<D: ReadAt + WriteAt>(
        config: Config,
        device: &mut D,
        check: &impl PayloadCheck,
        start: Option<u64>,
        mut visit: impl FnMut(Entry<'_>),
    ) -> Result<(Self, Recovery), OpenError> {
        let outcome = Scanner::begin(config, device, check, start)?.run(&mut visit)?;
        let Outcome {
            resume,
            recovery,
            wipe,
        } = outcome;
        let mut journal = Self::resume(config, resume);
        // What was read may so far only be in a volatile cache of the device: a write that was cut
        // short by the death of a process, not of the machine, was never followed by its flush.
        let failed = |position| move |source| OpenError::Write { position, source };
        device.sync().map_err(failed(recovery.head))?;
        if journal.marker_due() || !wipe.is_empty() {
            journal.mark_now(device).map_err(failed(recovery.head))?;
        }
        let zeros = AlignedBuffer::new(SECTOR);
        for position in wipe
            .into_iter()
            .filter(|position| *position >= journal.head())
        {
            let (file, offset) = journal.geometry.place(position);
            device
                .write_at(file, offset, zeros.as_slice())
                .map_err(failed(position))?;
        }
        Ok((journal, recovery))
    }

    /// Writes a marker and waits for it. A full journal goes without: nothing can lie behind its
    /// head, and a marker is due once it is trimmed.
    fn mark_now<D: WriteAt>(&mut self, device: &mut D) -> io::Result<()> {
        let op = match self.marker(AlignedBuffer::new(SECTOR)) {
            Ok((_, op)) => op,
            Err(AppendError::Full) => return Ok(()),
            Err(error) => return Err(io::Error::other(error)),
        };
        device.write_at(op.file, op.offset, op.buffer.as_slice())?;
        self.on_written(op.token, Ok(op.len))
            .map_err(io::Error::other)
    }
}

/// Reads a journal without changing anything: what [`Journal::open`] would find.
pub fn scan<D: ReadAt>(
    config: Config,
    device: &mut D,
    check: &impl PayloadCheck,
    start: Option<u64>,
    mut visit: impl FnMut(Entry<'_>),
) -> Result<Recovery, OpenError> {
    Ok(Scanner::begin(config, device, check, start)?
        .run(&mut visit)?
        .recovery)
}

/// What a scan has found, and what is left to do.
struct Outcome {
    resume: Resume,
    recovery: Recovery,
    /// Sectors behind the head that must be overwritten before anything is appended.
    wipe: Vec<u64>,
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

/// What follows from a bad frame.
enum Verdict {
    /// It was corrupt; the log goes on here.
    GoOn(u64),
    /// The log ends here.
    End { head: Durable, previous: u64 },
}

struct Scanner<'a, D, C> {
    config: Config,
    geometry: Geometry,
    reader: Reader<'a, D>,
    check: &'a C,
    start: u64,
    /// First address that cannot be part of the log.
    limit: u64,
    /// Whether a frame below `limit` but in a segment after this one is to be expected.
    newest_segment: u64,
    survey: Survey,
    /// The last frame whose place in the chain is known.
    link: Option<Header>,
    /// The furthest durable point that a frame of the chain stated.
    recorded: u64,
    /// The newest epoch that a frame of the chain stated.
    epoch: u64,
    last_entry: Option<(u64, u64)>,
    recovery: Recovery,
}

impl<'a, D: ReadAt, C: PayloadCheck> Scanner<'a, D, C> {
    fn begin(
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

    fn run(mut self, visit: &mut dyn FnMut(Entry<'_>)) -> Result<Outcome, OpenError> {
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
    fn header_at(&mut self, position: u64) -> Result<Result<Header, Damage>, OpenError> {
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

    /// Decides what a bad frame was, with all that lies behind it in view.
    fn judge(
        &mut self,
        position: u64,
        damage: Damage,
        header: Option<Header>,
    ) -> Result<Verdict, OpenError> {
        let range = (position, self.survey_end(position));
        self.survey.extend(range, &self.config, &mut self.reader)?;
        let proven = self
            .survey
            .proven
            .position
            .max(self.recorded)
            .max(self.start);
        // The unused end of a segment may lie below the durable point without anything being lost.
        let next_sequence = self.link.map(|link| link.sequence + 1);
        let all_found = self.survey.proven.position == proven
            && next_sequence == Some(self.survey.proven.sequence);
        if position >= proven || all_found {
            let position = position.max(proven);
            self.recovery.torn = self.torn(position, damage, header);
            return self.end_at(position, header);
        }
        match (header, damage) {
            // Its header is good and in its place, so the chain goes on behind it.
            (Some(header), damage) if damage != Damage::Chain => {
                self.report(
                    position,
                    header.end(),
                    Some(counters(&header)),
                    damage,
                    Some(&header),
                );
                self.recorded = self.recorded.max(header.durable.position);
                self.epoch = self.epoch.max(header.epoch);
                self.link = Some(header);
                Ok(Verdict::GoOn(header.end()))
            }
            _ => self.find_place(position, damage, proven),
        }
    }

    /// The chain is lost at `position`, which had been durable: finds where it goes on.
    fn find_place(
        &mut self,
        position: u64,
        damage: Damage,
        proven: u64,
    ) -> Result<Verdict, OpenError> {
        let found = self.survey.first_frame(position, self.link);
        // At or behind the durable point only the direct successor of what is durable is live:
        // anything further follows a frame that is missing.
        if let Some(frame) = found.filter(|f| f.position <= proven || f.previous < proven) {
            let frame = *frame;
            // The unused rest of a segment at `start` is not a loss.
            if frame.position > self.start && frame.previous >= self.start {
                let (from, damage) = self.narrow(position, damage, &frame)?;
                self.report(
                    from,
                    frame.position,
                    Some(counters_before(&frame)),
                    damage,
                    None,
                );
            }
            self.link = None;
            return Ok(Verdict::GoOn(frame.position));
        }
        let known = self.survey.proven.position == proven;
        let counters = known.then_some(self.survey.proven);
        self.report(position, proven, counters, damage, None);
        let behind = self.header_at_if_inside(proven)?;
        self.recovery.torn = self.torn(proven, behind, None);
        let previous = proven - SECTOR as u64;
        let head = match counters {
            Some(counters) => counters,
            None => self.counters_after_loss(proven)?,
        };
        Ok(Verdict::End { head, previous })
    }

    /// If all that is lost is the first frame of the next segment, the stretch begins there, and
    /// not in the unused rest of this one.
    fn narrow(
        &mut self,
        from: u64,
        damage: Damage,
        next: &Header,
    ) -> Result<(u64, Damage), OpenError> {
        let single = self
            .link
            .is_some_and(|link| link.sequence + 2 == next.sequence);
        if !single || next.previous != self.geometry.next_start(from) {
            return Ok((from, damage));
        }
        Ok((next.previous, self.header_at_if_inside(next.previous)?))
    }

    /// Counters for a log that goes on at `position`, behind a stretch of which nobody knows how
    /// many frames it held: as if each had been as small as possible, so that no number is used
    /// twice and none follows directly on what is lost.
    fn counters_after_loss(&mut self, position: u64) -> Result<Durable, OpenError> {
        let (after, _) = self.after_link(position)?;
        let lost_from = self.link.map_or(0, |link| link.end());
        let lost_max = (position - lost_from) / SECTOR as u64;
        let (sequence, entries) = (after.sequence + lost_max, after.entries + lost_max);
        Ok(Durable {
            position,
            sequence,
            entries,
        })
    }

    fn header_at_if_inside(&mut self, position: u64) -> Result<Damage, OpenError> {
        if position >= self.limit {
            return Ok(Damage::NoHeader);
        }
        Ok(self.header_at(position)?.err().unwrap_or(Damage::Chain))
    }

    /// The log ends at `position`, where `header` may state the counters itself.
    fn end_at(&mut self, position: u64, header: Option<Header>) -> Result<Verdict, OpenError> {
        let (head, previous) = match (self.link, header) {
            (None, Some(header)) => (counters_before(&header), header.previous),
            _ => self.after_link(position)?,
        };
        Ok(Verdict::End {
            head: Durable { position, ..head },
            previous,
        })
    }

    /// The counters and the predecessor of a frame at `position`, after the last known one.
    fn after_link(&mut self, position: u64) -> Result<(Durable, u64), OpenError> {
        if self.link.is_none() && self.start > 0 {
            self.link = self.last_before_start()?;
            if self.link.is_none() {
                return Err(OpenError::Blank { start: self.start });
            }
        }
        let (head, previous) = self
            .link
            .map_or(FIRST, |link| (counters(&link), link.position));
        Ok((Durable { position, ..head }, previous))
    }

    /// The last frame of the segment before the start: nothing is left of the log itself, but its
    /// counters must go on.
    fn last_before_start(&mut self) -> Result<Option<Header>, OpenError> {
        let Some(before) = self.geometry.segment(self.start).checked_sub(1) else {
            return Ok(None);
        };
        let start = self.geometry.start(before);
        let mut survey = Survey::default();
        let range = (start, self.geometry.next_start(start));
        survey.extend(range, &self.config, &mut self.reader)?;
        Ok(survey.last_frame())
    }

    /// How far behind a bad frame the survey must look: see the head of this file.
    fn survey_end(&self, position: u64) -> u64 {
        let in_flight = position + crate::config::INFLIGHT_BYTES_LIMIT;
        let segment = self.geometry.segment(position).max(self.newest_segment);
        in_flight
            .max(self.geometry.start(segment + 1))
            .min(self.limit)
    }

    /// The account of what is cut off at `position`, if there is a trace of anything.
    fn torn(&self, position: u64, damage: Damage, header: Option<Header>) -> Option<TornTail> {
        let frames = self.survey.frames_from(position);
        let trace_end = match damage {
            Damage::NoHeader | Damage::Foreign(_) | Damage::Misplaced(_) => 0,
            Damage::Payload | Damage::Padding | Damage::Chain => header.map_or(0, |h| h.end()),
            Damage::Unreadable | Damage::Header | Damage::Version(_) | Damage::Geometry => {
                position + SECTOR as u64
            }
        };
        let end = frames.iter().map(Header::end).fold(trace_end, u64::max);
        let bytes = end.checked_sub(position).filter(|bytes| *bytes > 0)?;
        Some(TornTail {
            position,
            bytes,
            frames: frames.len() as u64,
            damage,
        })
    }

    /// Reports the stretch `from..to` as corrupt, as far as it lies at or above the start.
    /// `next` are the counters of a frame at `to`; `hit` is the header, if it survived.
    fn report(
        &mut self,
        from: u64,
        to: u64,
        next: Option<Durable>,
        damage: Damage,
        hit: Option<&Header>,
    ) {
        let position = from.max(self.start);
        if to < position || (to == position && to == self.start) {
            return;
        }
        let first = match (self.link, hit) {
            (Some(link), _) if from >= self.start => Some(counters(&link)),
            (_, Some(hit)) => Some(counters_before(hit)),
            _ => (from == 0).then_some(FIRST.0),
        };
        self.recovery.corruptions.push(Corruption {
            position,
            bytes: to - position,
            sequence_first: first.map(|first| first.sequence),
            sequence_last: next.map(|next| next.sequence - 1),
            entries: first
                .zip(next)
                .map(|(first, next)| next.entries.saturating_sub(first.entries)),
            tag: hit
                .filter(|header| header.kind == Kind::Entry)
                .map(|header| header.tag),
            damage,
        });
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
            .iter()
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
fn counters(header: &Header) -> Durable {
    Durable {
        position: header.end(),
        sequence: header.sequence + 1,
        entries: header.entries + u64::from(header.kind == Kind::Entry),
    }
}

/// The counters of this frame itself.
fn counters_before(header: &Header) -> Durable {
    Durable {
        position: header.position,
        sequence: header.sequence,
        entries: header.entries,
    }
}
