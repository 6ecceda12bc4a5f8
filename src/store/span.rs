//! Bytes that lie in memory or in a mapped file, looked at part by part.
//!
//! Whoever reads them sees no difference: what is in a file is verified as it is read, so a structure of many
//! kilobytes costs no more than the parts of it that are asked for.

use std::ops::Range;

use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::mapped::Mapped;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    source: Source<'a>,
    start: usize,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    Memory(&'a [u8]),
    File(&'a Mapped),
}

impl<'a> Span<'a> {
    pub const EMPTY: Self = Self::of_memory(&[]);

    pub const fn of_memory(bytes: &'a [u8]) -> Self {
        Self {
            source: Source::Memory(bytes),
            start: 0,
            len: bytes.len(),
        }
    }

    pub(super) fn of_file(mapped: &'a Mapped, range: Range<usize>) -> Self {
        Self {
            source: Source::File(mapped),
            start: range.start,
            len: range.len(),
        }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A part, as a span; `None` if there is no such part.
    #[inline]
    pub fn part(&self, range: Range<usize>) -> Option<Self> {
        (range.start <= range.end && range.end <= self.len).then_some(Self {
            source: self.source,
            start: self.start + range.start,
            len: range.end.wrapping_sub(range.start),
        })
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        let range = self.start..self.start + self.len;
        match self.source {
            Source::Memory(bytes) => &bytes[range],
            Source::File(mapped) => mapped.bytes(range),
        }
    }

    /// Elements number `range` of those that the span consists of; `None` if there are fewer.
    #[inline]
    pub fn elements<T: FromBytes + Immutable + KnownLayout>(
        &self,
        range: Range<usize>,
    ) -> Option<&'a [T]> {
        let start = range.start.checked_mul(size_of::<T>())?;
        let end = range.end.checked_mul(size_of::<T>())?;
        <[T]>::ref_from_bytes(self.part(start..end)?.bytes()).ok()
    }

    /// One of them.
    #[inline]
    pub fn element<T: FromBytes + Immutable + KnownLayout>(&self, number: usize) -> Option<&'a T> {
        self.elements::<T>(number..number.checked_add(1)?)?.first()
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;

    #[test]
    fn parts_end_where_the_span_does() {
        let words = [1u32, 2, 3, 4];
        let span = Span::of_memory(words.as_bytes());
        assert_eq!(span.elements(1..3), Some(&[2u32, 3][..]));
        assert_eq!(span.element(3), Some(&4u32));
        assert_eq!(span.element::<u32>(4), None);
        assert_eq!(span.element::<u32>(usize::MAX), None);
        assert_eq!(span.elements::<u64>(1..usize::MAX), None);
        let part = span.part(4..12).unwrap();
        assert_eq!((part.len(), part.element(0)), (8, Some(&2u32)));
        assert!(part.part(0..9).is_none() && span.part(16..17).is_none());
        assert!(span.part(16..16).unwrap().is_empty());
        // Not aligned.
        assert_eq!(span.part(1..9).unwrap().element::<u32>(0), None);
    }
}
