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
//! value is found in a long list without reading it; bitmaps are intersected word by word. Nothing is
//! copied, in either direction.

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
    next_bit(words.len(), |word| words[word], at)
}

fn bit_back_from(words: &[u16], at: u32) -> Option<u32> {
    last_bit(words.len(), |word| words[word], at)
}

/// The first bit from `at` on in a bitmap of `len` words.
fn next_bit(len: usize, word_at: impl Fn(usize) -> u16, at: u32) -> Option<u32> {
    let mut number = (at / WORD_BITS) as usize;
    if number >= len {
        return None;
    }
    let mut word = word_at(number) & (u16::MAX << (at % WORD_BITS));
    while word == 0 {
        number += 1;
        if number == len {
            return None;
        }
        word = word_at(number);
    }
    Some(position_of(number) + word.trailing_zeros())
}

/// The last bit up to `at`.
fn last_bit(len: usize, word_at: impl Fn(usize) -> u16, at: u32) -> Option<u32> {
    let last = (at / WORD_BITS) as usize;
    let (mut number, mask) = if last < len {
        (last, u16::MAX >> (WORD_BITS - 1 - at % WORD_BITS))
    } else {
        (len.checked_sub(1)?, u16::MAX)
    };
    let mut word = word_at(number) & mask;
    while word == 0 {
        number = number.checked_sub(1)?;
        word = word_at(number);
    }
    Some(position_of(number) + word.ilog2())
}

fn position_of(word: usize) -> u32 {
    u32::try_from(word).expect("a bitmap is that of a chunk") * WORD_BITS
}

/// What bitmaps have in common: sixteen positions at a time. Without this, two values that each have half of
/// the rows, and none together, would be compared row by row.
#[derive(Debug)]
struct Common<'a> {
    /// Each the union of two; the second may be empty.
    maps: [(&'a [u16], &'a [u16]); TERMS_MAX],
    count: usize,
    reversed: bool,
}

impl<'a> Common<'a> {
    /// Takes a term if it is made of bitmaps only.
    fn add(&mut self, term: &Term<'a>) -> bool {
        let maps = match (term.one, term.other) {
            (Positions::Bitmap(one), Positions::Bitmap(other)) => (one, other),
            (Positions::Bitmap(map), Positions::NONE)
            | (Positions::NONE, Positions::Bitmap(map)) => (map, [].as_slice()),
            _ => return false,
        };
        self.maps[self.count] = maps;
        self.count += 1;
        true
    }

    fn seek(&self, at: u32) -> Option<u32> {
        let maps = &self.maps[..self.count];
        let len = maps[0].0.len();
        let word_at = |word: usize| {
            maps.iter().fold(u16::MAX, |common, (one, other)| {
                common & (one[word] | other.get(word).copied().unwrap_or(0))
            })
        };
        if self.reversed {
            last_bit(len, word_at, at)
        } else {
            next_bit(len, word_at, at)
        }
    }
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
    /// The terms that are bitmaps, in place of their seekers.
    common: Common<'a>,
    range: Range<u32>,
    reversed: bool,
}

impl<'a> Matches<'a> {
    /// Without terms, all positions of the range match. All are of one chunk.
    pub fn new(terms: &[Term<'a>], range: Range<u32>, reversed: bool) -> Self {
        let none = Positions::NONE.cursor(reversed);
        let mut matches = Self {
            seekers: [Seeker {
                one: none,
                other: none,
            }; TERMS_MAX],
            count: 0,
            common: Common {
                maps: [([].as_slice(), [].as_slice()); TERMS_MAX],
                count: 0,
                reversed,
            },
            range,
            reversed,
        };
        let mut order = [(0, 0); TERMS_MAX];
        for (number, term) in terms.iter().enumerate() {
            if !matches.common.add(term) {
                order[matches.count] = (term.count(), number);
                matches.count += 1;
            }
        }
        let order = &mut order[..matches.count];
        order.sort_unstable();
        for (seeker, (_, number)) in matches.seekers.iter_mut().zip(order) {
            let Term { one, other } = terms[*number];
            *seeker = Seeker {
                one: one.cursor(reversed),
                other: other.cursor(reversed),
            };
        }
        matches
    }

    /// The first position from `at` on that is in all terms.
    fn agree(&mut self, mut at: u32) -> Option<u32> {
        let all = self.count + usize::from(self.common.count > 0);
        let mut agreed = 0;
        while agreed < all {
            let found = if agreed < self.count {
                self.seekers[agreed].seek(at)?
            } else {
                self.common.seek(at)?
            };
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
