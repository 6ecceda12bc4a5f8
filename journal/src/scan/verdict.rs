//! Judging a bad frame: corrupt or torn, where the log goes on, and what is to be reported.
//!
//! Two mistakes are possible. To call a torn tail corrupt costs a repair that was not needed. To
//! call corruption a torn tail loses what had been acknowledged, without a word: so whatever any
//! valid header proves to have been durable is never cut.

use super::chain::{Scanner, counters, counters_before};
use super::survey::Survey;
use crate::append::FIRST;
use crate::check::PayloadCheck;
use crate::device::ReadAt;
use crate::frame::{Damage, Durable, Header, Kind, SECTOR};
use crate::recovery::{Corruption, OpenError, TornTail};

/// What follows from a bad frame.
pub(super) enum Verdict {
    /// It was corrupt; the log goes on here.
    GoOn(u64),
    /// The log ends here.
    End { head: Durable, previous: u64 },
}

impl<D: ReadAt, C: PayloadCheck> Scanner<'_, D, C> {
    /// Decides what a bad frame was, with all that lies behind it in view.
    pub(super) fn judge(
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
        let found = self
            .survey
            .find_frame(position, self.link, &self.config, &mut self.reader)?;
        // At or behind the durable point only the direct successor of what is durable is live:
        // anything further follows a frame that is missing.
        if let Some(frame) = found.filter(|f| f.position <= proven || f.previous < proven) {
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
    pub(super) fn after_link(&mut self, position: u64) -> Result<(Durable, u64), OpenError> {
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
        let frames = || self.survey.frames_from(position);
        let trace_end = match damage {
            Damage::NoHeader | Damage::Foreign(_) | Damage::Misplaced(_) => 0,
            Damage::Payload | Damage::Padding | Damage::Chain => header.map_or(0, |h| h.end()),
            Damage::Unreadable | Damage::Header | Damage::Version(_) | Damage::Geometry => {
                position + SECTOR as u64
            }
        };
        let end = frames().map(Header::end).fold(trace_end, u64::max);
        let bytes = end.checked_sub(position).filter(|bytes| *bytes > 0)?;
        Some(TornTail {
            position,
            bytes,
            frames: frames().count() as u64,
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
}
