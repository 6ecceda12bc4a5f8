//! Balances as they were when a period first touched an account: the codec.
//!
//! ```text
//!   words of four bytes
//!   ├ marks ┼ released ┼ size of records ┼ mark, 3 × marks ┼ released, 6 × released ┼ records ┤
//!
//!   mark      of 32 events:  two bits for each event, lowest first (debit account, credit account),
//!             set where the event was the first to touch the account; then where the first of
//!             their records begins
//!   record    3 bytes: widths of the four balances in bytes, 5 bits each; bit 20: closed
//!             then the balances, each of its width
//!   released  a resolution whose row does not say all it did: amount of the pending transfer (4 words),
//!             row, flags of the pending transfer
//! ```
//!
//! No account is named: whoever looks for one knows its first event in the period. So nothing is
//! sorted, and an opening is written where it occurs: about a dozen bytes.

use std::cmp::Ordering;

use stampede_client::wire::record::account_flags;
use zerocopy::IntoBytes;

use super::row::AccountRow;
use crate::store::Span;

/// The account of an event that is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Debit = 0,
    Credit = 1,
}

/// What of an account changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Balances {
    pub(super) debits_pending: u128,
    pub(super) debits_posted: u128,
    pub(super) credits_pending: u128,
    pub(super) credits_posted: u128,
    pub(super) closed: bool,
}

impl Balances {
    pub(super) fn of(account: &AccountRow) -> Self {
        Self {
            debits_pending: account.debits_pending,
            debits_posted: account.debits_posted,
            credits_pending: account.credits_pending,
            credits_posted: account.credits_posted,
            closed: account.flags & account_flags::CLOSED != 0,
        }
    }
}

/// What a resolution released, where its own row does not say it: the post of a part, the void of a
/// closing transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Released {
    pub(super) row: u32,
    /// Of the pending transfer.
    pub(super) amount: u128,
    /// Of the pending transfer.
    pub(super) flags: u16,
}

const EVENTS_PER_MARK: u32 = 32;
type Mark = [u32; 3];
type ReleasedWords = [u32; 6];
const HEAD_WORDS: usize = 3;
const HEADER_SIZE: usize = 3;
const WIDTH_BITS: u32 = 5;
const WIDTH_MAX: usize = 16;
const CLOSED_BIT: u32 = 4 * WIDTH_BITS;

/// Openings of a period that goes on.
#[derive(Debug, Default, Clone)]
pub(super) struct Openings {
    marks: Vec<Mark>,
    released: Vec<ReleasedWords>,
    records: Vec<u8>,
}

impl Openings {
    /// Empty, with room for about as much as another has.
    pub(super) fn like(other: &Self) -> Self {
        Self {
            marks: Vec::with_capacity(other.marks.len()),
            released: Vec::with_capacity(other.released.len()),
            records: Vec::with_capacity(other.records.len() * 9 / 8),
        }
    }

    /// The event is the first of the period to touch the account. Events come in order, the debit
    /// account before the credit account.
    #[inline]
    pub(super) fn push(&mut self, event: u32, side: Side, balances: &Balances) {
        let number = (event / EVENTS_PER_MARK) as usize;
        while self.marks.len() <= number {
            let begin = u32::try_from(self.records.len()).expect("two records for each event");
            self.marks.push([0, 0, begin]);
        }
        let bit = event % EVENTS_PER_MARK * 2 + side as u32;
        let (half, bit) = ((bit / u32::BITS) as usize, bit % u32::BITS);
        debug_assert_eq!(self.marks[number][half] >> bit, 0, "in order, and once");
        self.marks[number][half] |= 1 << bit;

        // Written at its greatest length, then cut: copies of a known length are faster.
        let mut record = [0; HEADER_SIZE + 4 * WIDTH_MAX];
        let mut size = HEADER_SIZE;
        let mut header = u32::from(balances.closed) << CLOSED_BIT;
        let values = [
            balances.debits_pending,
            balances.debits_posted,
            balances.credits_pending,
            balances.credits_posted,
        ];
        for (place, value) in (0u32..).zip(values) {
            record[size..size + WIDTH_MAX].copy_from_slice(&value.to_le_bytes());
            let width = (u128::BITS - value.leading_zeros()).div_ceil(8);
            header |= width << (place * WIDTH_BITS);
            size += width as usize;
        }
        record[..HEADER_SIZE].copy_from_slice(&header.to_le_bytes()[..HEADER_SIZE]);
        let end = self.records.len() + size;
        self.records.extend_from_slice(&record);
        self.records.truncate(end);
    }

    pub(super) fn release(&mut self, released: Released) {
        let Released { row, amount, flags } = released;
        let mut words = [0; 6];
        words.as_mut_bytes()[..16].copy_from_slice(&amount.to_le_bytes());
        (words[4], words[5]) = (row, flags.into());
        self.released.push(words);
    }

    /// Takes back the openings of the events from `event` on, and what rows from `row` on released.
    pub(super) fn truncate(&mut self, event: u32, row: u32) {
        let whole = (event / EVENTS_PER_MARK) as usize;
        if let Some(mark) = self.marks.get_mut(whole) {
            let kept = (1u64 << (event % EVENTS_PER_MARK * 2)) - 1;
            let bits = bits_of(mark) & kept;
            (mark[0], mark[1]) = (low(bits), low(bits >> u32::BITS));
            let mut end = mark[2] as usize;
            for _ in 0..bits.count_ones() {
                end += record_size(&self.records[end..]).expect("written above");
            }
            self.records.truncate(end);
            self.marks.truncate(whole + 1);
            if bits == 0 {
                self.marks.pop();
            }
        }
        while self.released.last().is_some_and(|words| words[4] >= row) {
            self.released.pop();
        }
    }

    pub(super) fn view(&self) -> OpeningsView<'_> {
        OpeningsView {
            marks: Span::of_memory(self.marks.as_bytes()),
            released: Span::of_memory(self.released.as_bytes()),
            records: Span::of_memory(&self.records),
        }
    }

    pub(super) fn encode(&self) -> Vec<u32> {
        let Self {
            marks,
            released,
            records,
        } = self;
        let sizes = [marks.len(), released.len(), records.len()];
        let words = HEAD_WORDS + marks.len() * 3 + released.len() * 6 + records.len().div_ceil(4);
        let mut out = Vec::with_capacity(words);
        out.extend(sizes.map(|size| u32::try_from(size).expect("a period is bounded")));
        out.extend(marks.as_flattened());
        out.extend(released.as_flattened());
        let at = out.len();
        out.resize(words, 0);
        out[at..].as_mut_bytes()[..records.len()].copy_from_slice(records);
        out
    }

    pub(super) fn encoded_size(&self) -> usize {
        let words = HEAD_WORDS + self.marks.len() * 3 + self.released.len() * 6;
        words * size_of::<u32>() + self.records.len().next_multiple_of(size_of::<u32>())
    }

    /// The openings back, if they are those of at most `events` events, and every record is whole.
    pub(super) fn decode(words: &[u32], events: u32) -> Option<Self> {
        let view = OpeningsView::of(Span::of_memory(words.as_bytes()))?;
        view.is_whole(events).then(|| Self {
            marks: view.marks().to_vec(),
            released: view
                .released
                .elements(0..view.released_count())
                .map_or(Vec::new(), <[_]>::to_vec),
            records: view.records.bytes().to_vec(),
        })
    }
}

fn bits_of(mark: &Mark) -> u64 {
    u64::from(mark[0]) | u64::from(mark[1]) << u32::BITS
}

#[expect(clippy::cast_possible_truncation, reason = "takes the low half")]
fn low(bits: u64) -> u32 {
    bits as u32
}

fn header_of(record: &[u8]) -> Option<u32> {
    let &[a, b, c] = record.first_chunk::<HEADER_SIZE>()?;
    Some(u32::from_le_bytes([a, b, c, 0]))
}

fn widths(header: u32) -> impl Iterator<Item = usize> {
    (0..4).map(move |place| (header >> (place * WIDTH_BITS) & ((1 << WIDTH_BITS) - 1)) as usize)
}

fn record_size(record: &[u8]) -> Option<usize> {
    let size = HEADER_SIZE + widths(header_of(record)?).sum::<usize>();
    (size <= record.len()).then_some(size)
}

/// Openings where they lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpeningsView<'a> {
    marks: Span<'a>,
    released: Span<'a>,
    records: Span<'a>,
}

impl<'a> OpeningsView<'a> {
    pub(super) const EMPTY: Self = Self {
        marks: Span::EMPTY,
        released: Span::EMPTY,
        records: Span::EMPTY,
    };

    /// What [`Openings::encode`] made, if the parts are as long as they say.
    pub(super) fn of(span: Span<'a>) -> Option<Self> {
        let head = span.element::<[u32; HEAD_WORDS]>(0)?;
        let [marks, released, records] = head.map(|size| size as usize);
        let marks_at = size_of::<[u32; HEAD_WORDS]>();
        let released_at = marks_at + marks * size_of::<Mark>();
        let records_at = released_at + released * size_of::<ReleasedWords>();
        Some(Self {
            marks: span.part(marks_at..released_at)?,
            released: span.part(released_at..records_at)?,
            records: span.part(records_at..records_at + records)?,
        })
    }

    fn marks(&self) -> &'a [Mark] {
        let count = self.marks.len() / size_of::<Mark>();
        self.marks.elements(0..count).unwrap_or_default()
    }

    /// Whether these are openings of at most `events` events, with every record where the marks say, and no others.
    pub(super) fn is_whole(&self, events: u32) -> bool {
        let mut records = self.records();
        let marks_max = events.div_ceil(EVENTS_PER_MARK) as usize;
        let mut of_mark = |mark: &Mark| {
            let begins = mark[2] as usize == records.at;
            let count = bits_of(mark).count_ones() as usize;
            begins && records.by_ref().take(count).count() == count
        };
        self.marks().len() <= marks_max
            && self.marks().iter().all(&mut of_mark)
            && records.at == self.records.len()
    }

    /// Resolutions whose row does not say what they released.
    pub(super) fn released_count(&self) -> usize {
        self.released.len() / size_of::<ReleasedWords>()
    }

    fn mark(&self, event: u32) -> Option<&'a Mark> {
        self.marks.element((event / EVENTS_PER_MARK) as usize)
    }

    /// How many accounts were opened.
    pub(super) fn count(&self) -> u32 {
        let marks = self.marks().iter();
        marks.map(|mark| bits_of(mark).count_ones()).sum()
    }

    /// Whether the event was the first to touch its account on this side.
    pub(super) fn is_opening(&self, event: u32, side: Side) -> bool {
        let bit = event % EVENTS_PER_MARK * 2 + side as u32;
        self.mark(event)
            .is_some_and(|mark| bits_of(mark) >> bit & 1 != 0)
    }

    /// The balances before the event, if it was the first to touch the account.
    pub(super) fn find(&self, event: u32, side: Side) -> Option<Balances> {
        if !self.is_opening(event, side) {
            return None;
        }
        let mark = self.mark(event)?;
        let before = (1u64 << (event % EVENTS_PER_MARK * 2 + side as u32)) - 1;
        let mut records = Records {
            bytes: self.records,
            at: mark[2] as usize,
        };
        for _ in 0..(bits_of(mark) & before).count_ones() {
            records.at += record_size(records.rest()?)?;
        }
        records.next()
    }

    /// All balances, in the order of the events.
    pub(super) fn records(&self) -> Records<'a> {
        Records {
            bytes: self.records,
            at: 0,
        }
    }

    /// What the resolution at `row` released, if that is not what its row says.
    pub(super) fn released(&self, row: u32) -> Option<Released> {
        let (mut low, mut high) = (0, self.released_count());
        while low < high {
            let middle = low + (high - low) / 2;
            let words = self.released.element::<ReleasedWords>(middle)?;
            match words[4].cmp(&row) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => {
                    let amount = u128::from_le_bytes(*words.as_bytes().first_chunk()?);
                    let flags = u16::try_from(words[5]).ok()?;
                    return Some(Released { row, amount, flags });
                }
            }
        }
        None
    }
}

/// Balances, one after another.
#[derive(Debug)]
pub(super) struct Records<'a> {
    bytes: Span<'a>,
    at: usize,
}

impl<'a> Records<'a> {
    /// The present record and what comes after it, as far as a record can reach.
    fn rest(&self) -> Option<&'a [u8]> {
        const RECORD_MAX: usize = HEADER_SIZE + 4 * WIDTH_MAX;
        let end = self.at.saturating_add(RECORD_MAX).min(self.bytes.len());
        Some(self.bytes.part(self.at..end)?.bytes())
    }
}

impl Iterator for Records<'_> {
    type Item = Balances;

    fn next(&mut self) -> Option<Balances> {
        let record = self.rest()?;
        let header = header_of(record)?;
        let mut rest = &record[HEADER_SIZE..];
        let mut values = [0; 4];
        for (value, width) in values.iter_mut().zip(widths(header)) {
            let mut bytes = [0; WIDTH_MAX];
            bytes.get_mut(..width)?.copy_from_slice(rest.get(..width)?);
            *value = u128::from_le_bytes(bytes);
            rest = &rest[width..];
        }
        self.at += record.len() - rest.len();
        let [
            debits_pending,
            debits_posted,
            credits_pending,
            credits_posted,
        ] = values;
        Some(Balances {
            debits_pending,
            debits_posted,
            credits_pending,
            credits_posted,
            closed: header >> CLOSED_BIT & 1 != 0,
        })
    }
}
