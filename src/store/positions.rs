//! Sets of positions in a chunk, and what several of them have in common.
//!
//! ```text
//!   a term   one set, or either of two             debits of an account, or its credits
//!   matches  positions that are in every term      of them, those with a code
//!
//!   seek(at): the first member from `at` on ── a term has gone past it ──► begin again from there
//! ```
//!
//! The smallest term leads, and the others only seek: a list of positions gallops, so that a rare
//! value is found in a long list without reading it. Nothing is copied, in either direction.

use std::ops::Range;

/// Terms of one conjunction.
pub const TERMS_MAX: usize = 6;

/// Ascending positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Positions<'a> {
    /// All below the number.
    All(u32),
    List(&'a [u16]),
    /// Bit `position % 16` of word `position / 16`.
    Bitmap(&'a [u16]),
}

const WORD_BITS: u32 = u16::BITS;

impl<'a> Positions<'a> {
    pub const NONE: Self = Self::List(&[]);

    /// How many there are.
    pub fn count(&self) -> usize {
        match self {
            Self::All(rows) => *rows as usize,
            Self::List(list) => list.len(),
            Self::Bitmap(words) => words.iter().map(|word| word.count_ones() as usize).sum(),
        }
    }

    /// Calls `visit` with each, ascending.
    pub fn for_each(&self, mut visit: impl FnMut(u32)) {
        match self {
            Self::All(rows) => (0..*rows).for_each(visit),
            Self::List(list) => list.iter().for_each(|&position| visit(position.into())),
            Self::Bitmap(words) => {
                for (base, &word) in (0..).step_by(WORD_BITS as usize).zip(*words) {
                    let mut word = word;
                    while word != 0 {
                        visit(base + word.trailing_zeros());
                        word &= word - 1;
                    }
                }
            }
        }
    }

    fn cursor(self, reversed: bool) -> Cursor<'a> {
        let index = match self {
            Self::List(list) if reversed => list.len(),
            Self::List(_) | Self::All(_) | Self::Bitmap(_) => 0,
        };
        Cursor {
            positions: self,
            reversed,
            index,
        }
    }
}

/// A place in a set, which moves in one direction only.
#[derive(Debug, Clone, Copy)]
struct Cursor<'a> {
    positions: Positions<'a>,
    reversed: bool,
    /// Of a list: the first that has not been passed; reversed, the number of those.
    index: usize,
}

impl Cursor<'_> {
    /// The first member from `at` on: at least `at`, or at most `at` if reversed.
    fn seek(&mut self, at: u32) -> Option<u32> {
        match (self.positions, self.reversed) {
            (Positions::All(rows), false) => (at < rows).then_some(at),
            (Positions::All(rows), true) => rows.checked_sub(1).map(|last| at.min(last)),
            (Positions::List(list), false) => {
                let rest = &list[self.index..];
                self.index += gallop(rest.len(), |passed| u32::from(rest[passed]) < at);
                list.get(self.index).map(|&position| position.into())
            }
            (Positions::List(list), true) => {
                let rest = &list[..self.index];
                let last = rest.len();
                self.index -= gallop(last, |passed| u32::from(rest[last - 1 - passed]) > at);
                let found = self.index.checked_sub(1)?;
                Some(list[found].into())
            }
            (Positions::Bitmap(words), false) => bit_from(words, at),
            (Positions::Bitmap(words), true) => bit_back_from(words, at),
        }
    }
}

/// How many of `len` come before the place, where `is_before` holds for those and no others: the
/// effort is that of the distance, not of the length.
fn gallop(len: usize, is_before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut step) = (0, 1);
    while low + step <= len && is_before(low + step - 1) {
        low += step;
        step *= 2;
    }
    let mut high = (low + step - 1).min(len);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

fn bit_from(words: &[u16], at: u32) -> Option<u32> {
    let first = (at / WORD_BITS) as usize;
    let mut word = words.get(first)? & (u16::MAX << (at % WORD_BITS));
    for (base, next) in (first..).zip(words[first + 1..].iter().map(Some).chain([None])) {
        if word != 0 {
            return Some(number(base) * WORD_BITS + word.trailing_zeros());
        }
        word = *next?;
    }
    None
}

fn bit_back_from(words: &[u16], at: u32) -> Option<u32> {
    let last = (at / WORD_BITS) as usize;
    let (mut at_word, mask) = if last < words.len() {
        (last, u16::MAX >> (WORD_BITS - 1 - at % WORD_BITS))
    } else {
        (words.len().checked_sub(1)?, u16::MAX)
    };
    let mut word = words[at_word] & mask;
    while word == 0 {
        at_word = at_word.checked_sub(1)?;
        word = words[at_word];
    }
    Some(number(at_word) * WORD_BITS + word.ilog2())
}

fn number(word: usize) -> u32 {
    u32::try_from(word).expect("a bitmap is that of a chunk")
}

/// One set, or the union of two.
#[derive(Debug, Clone, Copy)]
pub struct Term<'a> {
    one: Positions<'a>,
    other: Positions<'a>,
}

impl<'a> Term<'a> {
    pub fn of(positions: Positions<'a>) -> Self {
        Self::either(positions, Positions::NONE)
    }

    pub fn either(one: Positions<'a>, other: Positions<'a>) -> Self {
        Self { one, other }
    }

    pub fn count(&self) -> usize {
        self.one.count() + self.other.count()
    }

    /// Whether it is known to have no members.
    pub fn is_empty(&self) -> bool {
        self.one == Positions::NONE && self.other == Positions::NONE
    }
}

#[derive(Debug, Clone, Copy)]
struct Seeker<'a> {
    one: Cursor<'a>,
    other: Cursor<'a>,
}

impl Seeker<'_> {
    fn seek(&mut self, at: u32) -> Option<u32> {
        match (self.one.seek(at), self.other.seek(at)) {
            (Some(one), Some(other)) if self.one.reversed => Some(one.max(other)),
            (Some(one), Some(other)) => Some(one.min(other)),
            (found, None) | (None, found) => found,
        }
    }
}

/// The positions of a range that are in every term, in order; see the module.
#[derive(Debug)]
pub struct Matches<'a> {
    seekers: [Seeker<'a>; TERMS_MAX],
    count: usize,
    range: Range<u32>,
    reversed: bool,
}

impl<'a> Matches<'a> {
    /// Without terms, all positions of the range match.
    pub fn new(terms: &[Term<'a>], range: Range<u32>, reversed: bool) -> Self {
        let none = Positions::NONE.cursor(reversed);
        let mut seekers = [Seeker {
            one: none,
            other: none,
        }; TERMS_MAX];
        let mut order = [(0, 0); TERMS_MAX];
        for (number, term) in terms.iter().enumerate() {
            order[number] = (term.count(), number);
        }
        let order = &mut order[..terms.len()];
        order.sort_unstable();
        for (seeker, (_, number)) in seekers.iter_mut().zip(order) {
            let Term { one, other } = terms[*number];
            *seeker = Seeker {
                one: one.cursor(reversed),
                other: other.cursor(reversed),
            };
        }
        Self {
            seekers,
            count: terms.len(),
            range,
            reversed,
        }
    }

    /// The first position from `at` on that is in all terms.
    fn agree(&mut self, mut at: u32) -> Option<u32> {
        let seekers = &mut self.seekers[..self.count];
        let mut agreed = 0;
        while agreed < seekers.len() {
            let found = seekers[agreed].seek(at)?;
            if found == at {
                agreed += 1;
            } else {
                at = found;
                // The one that went ahead agrees with itself; the first is the smallest.
                agreed = usize::from(agreed == 0);
            }
        }
        Some(at)
    }
}

impl Iterator for Matches<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.range.is_empty() {
            return None;
        }
        let from = if self.reversed {
            self.range.end - 1
        } else {
            self.range.start
        };
        let found = self.agree(from).filter(|at| self.range.contains(at));
        match found {
            None => self.range.end = self.range.start,
            Some(at) if self.reversed => self.range.end = at,
            Some(at) => self.range.start = at + 1,
        }
        found
    }
}
