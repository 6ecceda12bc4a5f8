//! Rows without what they have in common: each field of a fixed-size record as its distance from the smallest
//! value in the block, in as few bytes as the largest distance needs.
//!
//! ```text
//!   head   0 rows u32, 4 stride u32, 8 fields u32, 12 zeros
//!         16 field × fields: base u128, width u8, 15 zeros
//!   rows     stride bytes each: the fields' distances, little-endian, one after another
//!   zeros 16
//! ```
//!
//! A field that all rows agree on costs nothing. Rows have one stride, so any of them is read by itself, from
//! one or two cache lines. Frame of reference with byte-sized widths (Zukowski et al., *Super-Scalar RAM-CPU
//! Cache Compression*, ICDE 2006, §3.1), without exceptions: a block is as wide as its widest row.
//!
//! Equal rows give equal bytes. What is read is verified by the file's checksums as it is read;
//! [`PackedRows::parse`] refuses what no writer makes all the same, so that nothing is read out of bounds.

use std::ops::{Range, RangeInclusive};

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::mapped::Mapped;
use super::pages::prefetch;

/// A field of a record: an unsigned little-endian number of 1, 2, 4, 8 or 16 bytes, at a multiple of its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    pub offset: usize,
    pub size: usize,
}

/// Records with more fields or bytes than this are not packed.
const FIELDS_MAX: usize = 16;
const RECORD_MAX: usize = 256;

/// Behind the last row, so that each field can be read in one load.
const SLACK: usize = size_of::<u128>();

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Head {
    rows: u32,
    stride: u32,
    fields: u32,
    reserved: u32,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct FieldHead {
    base: u128,
    width: u8,
    reserved: [u8; 15],
}

const _: () = assert!(size_of::<Head>() == 16 && size_of::<FieldHead>() == 32);

const fn mask(width: usize) -> u128 {
    if width == 16 {
        u128::MAX
    } else {
        (1 << (8 * width)) - 1
    }
}

fn load(bytes: &[u8], at: usize, size: usize) -> u128 {
    let mut value = [0; 16];
    value[..size].copy_from_slice(&bytes[at..at + size]);
    u128::from_le_bytes(value)
}

/// Rows that are looked at several times while they are in the cache.
const BLOCK_ROWS: usize = 128;

/// The least and the greatest value of each field.
fn extremes(rows: &[u8], size: usize, fields: &[Field]) -> Vec<(u128, u128)> {
    let Some(first) = rows.get(..size) else {
        return vec![(0, 0); fields.len()];
    };
    let one = |field: &Field| (load_field(first, *field), load_field(first, *field));
    let mut extremes: Vec<(u128, u128)> = fields.iter().map(one).collect();
    // The bytes in which rows differ from the first: most fields of most blocks do not at all.
    let mut differ = [0u128; RECORD_MAX / 16];
    let lanes = size / 16;
    for block in rows.chunks(BLOCK_ROWS * size) {
        for row in block.chunks_exact(size) {
            for (lane, differ) in differ[..lanes].iter_mut().enumerate() {
                *differ |= load16(row, lane * 16) ^ load16(first, lane * 16);
            }
        }
        for (field, (least, most)) in fields.iter().zip(&mut extremes) {
            let lane = field.offset / 16;
            let bits = mask(field.size) << (field.offset % 16 * 8);
            if differ[lane] & bits == 0 {
                continue;
            }
            for row in block.chunks_exact(size) {
                let value = load_field(row, *field);
                *least = (*least).min(value);
                *most = (*most).max(value);
            }
        }
    }
    extremes
}

#[inline]
fn load16(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(*bytes[at..].first_chunk().expect("sixteen bytes"))
}

/// [`load`] where the size is known to be one of a field's.
#[inline]
fn load_field(bytes: &[u8], field: Field) -> u128 {
    let bytes = &bytes[field.offset..field.offset + field.size];
    match field.size {
        16 => load16(bytes, 0),
        8 => u64::from_le_bytes(*bytes.first_chunk().expect("eight bytes")).into(),
        4 => u32::from_le_bytes(*bytes.first_chunk().expect("four bytes")).into(),
        _ => load(bytes, 0, field.size),
    }
}

/// Packs `rows`, whose every byte belongs to one of `fields`. About 15 ns a row.
pub fn pack<T: IntoBytes + Immutable>(rows: &[T], fields: &[Field]) -> Vec<u8> {
    let size = size_of::<T>();
    assert!(
        fields.len() <= FIELDS_MAX && fields.iter().map(|field| field.size).sum::<usize>() == size
    );
    assert!(size.is_multiple_of(16) && size <= RECORD_MAX);
    let rows = rows.as_bytes();
    let mut heads = Vec::with_capacity(fields.len());
    for (least, most) in extremes(rows, size, fields) {
        let bits = u128::BITS - (most - least).leading_zeros();
        heads.push(FieldHead {
            base: least,
            width: u8::try_from(bits.div_ceil(8)).expect("at most sixteen"),
            reserved: [0; 15],
        });
    }
    let stride: usize = heads.iter().map(|head| usize::from(head.width)).sum();
    let count = rows.len() / size;
    let head = Head {
        rows: u32::try_from(count).expect("a chunk's rows"),
        stride: u32::try_from(stride).expect("at most a record"),
        fields: u32::try_from(fields.len()).expect("few"),
        reserved: 0,
    };
    let start = size_of::<Head>() + size_of_val(heads.as_slice());
    let mut bytes = vec![0; start + count * stride + SLACK];
    bytes[..size_of::<Head>()].copy_from_slice(head.as_bytes());
    bytes[size_of::<Head>()..start].copy_from_slice(heads.as_bytes());
    // Where each field that is not constant goes within a row.
    let mut moves = Vec::with_capacity(fields.len());
    let mut at = 0;
    for (field, head) in fields.iter().zip(&heads) {
        if head.width > 0 {
            moves.push((*field, head.base, at));
            at += usize::from(head.width);
        }
    }
    let mut place = start;
    for row in rows.chunks_exact(size) {
        for (field, base, at) in &moves {
            let distance = load_field(row, *field) - base;
            // The bytes beyond the width are zeros, and are written over by what comes after.
            let to = place + at;
            bytes[to..to + 16].copy_from_slice(&distance.to_le_bytes());
        }
        place += stride;
    }
    bytes
}

#[derive(Debug, Clone, Copy)]
struct Part {
    field: Field,
    base: u128,
    width: usize,
    /// Within a row.
    at: usize,
}

/// How packed rows lie in their bytes, which the caller keeps.
#[derive(Debug, Clone)]
pub struct PackedRows<T> {
    rows: u32,
    stride: usize,
    start: usize,
    parts: Vec<Part>,
    /// What all rows have in common, and the base of what they have not.
    template: T,
}

impl<T: FromBytes + FromZeros + IntoBytes + Immutable + Copy> PackedRows<T> {
    /// Reads the head. `None` for bytes that [`pack`] does not make of these fields.
    pub fn parse(bytes: &[u8], fields: &[Field]) -> Option<Self> {
        Self::parse_head(bytes, bytes.len(), fields)
    }

    /// The same from how `length` bytes begin: [`PackedRows::head_size`] of them are enough.
    fn parse_head(bytes: &[u8], length: usize, fields: &[Field]) -> Option<Self> {
        let (head, rest) = Head::read_from_prefix(bytes).ok()?;
        if head.fields as usize != fields.len() || head.reserved != 0 {
            return None;
        }
        let (heads, _) = <[FieldHead]>::ref_from_prefix_with_elems(rest, fields.len()).ok()?;
        let mut template = T::new_zeroed();
        let mut parts = Vec::new();
        let mut at = 0;
        for (field, head) in fields.iter().zip(heads) {
            let width = usize::from(head.width);
            let largest = mask(field.size);
            // No value may be larger than its field.
            if width > field.size || head.base > largest || head.reserved != [0; 15] {
                return None;
            }
            template.as_mut_bytes()[field.offset..field.offset + field.size]
                .copy_from_slice(&head.base.to_le_bytes()[..field.size]);
            if width > 0 {
                parts.push(Part {
                    field: *field,
                    base: head.base,
                    width,
                    at,
                });
                at += width;
            }
        }
        let start = Self::head_size(fields);
        let expected = start + head.rows as usize * at + SLACK;
        (head.stride as usize == at && length == expected).then_some(Self {
            rows: head.rows,
            stride: at,
            start,
            parts,
            template,
        })
    }

    fn head_size(fields: &[Field]) -> usize {
        size_of::<Head>() + size_of::<FieldHead>() * fields.len()
    }

    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Bytes of a row.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Where a row lies in the bytes.
    pub fn place(&self, row: u32) -> Range<usize> {
        assert!(row < self.rows);
        let at = self.start + row as usize * self.stride;
        at..at + self.stride
    }

    /// A whole row. `bytes` are those that were parsed.
    #[inline]
    pub fn row(&self, bytes: &[u8], row: u32) -> T {
        self.row_at(&bytes[self.place(row).start..])
    }

    /// The row that the bytes begin with.
    #[inline]
    fn row_at(&self, bytes: &[u8]) -> T {
        let mut value = self.template;
        for part in &self.parts {
            let field = part.read(bytes);
            let to = part.field.offset;
            value.as_mut_bytes()[to..to + part.field.size]
                .copy_from_slice(&field.to_le_bytes()[..part.field.size]);
        }
        value
    }

    /// The field that begins at this offset of the record.
    #[inline]
    pub fn field(&self, bytes: &[u8], row: u32, field: Field) -> u128 {
        self.field_at(&bytes[self.place(row).start..], field)
    }

    #[inline]
    fn field_at(&self, bytes: &[u8], field: Field) -> u128 {
        match self.parts.iter().find(|part| part.field == field) {
            Some(part) => part.read(bytes),
            None => load(self.template.as_bytes(), field.offset, field.size),
        }
    }
}

/// Packed rows in a file.
#[derive(Debug, Clone)]
pub struct PackedChunk<T> {
    rows: PackedRows<T>,
    mapped: Mapped,
    start: usize,
}

impl<T: FromBytes + FromZeros + IntoBytes + Immutable + Copy> PackedChunk<T> {
    /// Those at `offset` of the file; `None` if there are none of these fields.
    pub fn open(mapped: &Mapped, offset: u64, size: u64, fields: &[Field]) -> Option<Self> {
        let (start, size) = (usize::try_from(offset).ok()?, usize::try_from(size).ok()?);
        if start.checked_add(size)? > mapped.len() {
            return None;
        }
        let head = mapped.bytes(start..start + size.min(PackedRows::<T>::head_size(fields)));
        Some(Self {
            rows: PackedRows::parse_head(head, size, fields)?,
            mapped: mapped.clone(),
            start,
        })
    }

    pub fn rows(&self) -> u32 {
        self.rows.rows()
    }

    #[inline]
    pub fn row(&self, row: u32) -> T {
        self.rows.row_at(self.bytes(row))
    }

    #[inline]
    pub fn field(&self, row: u32, field: Field) -> u128 {
        self.rows.field_at(self.bytes(row), field)
    }

    /// Of a row, and what is read with it.
    #[inline]
    fn bytes(&self, row: u32) -> &[u8] {
        let Range { start, end } = self.rows.place(row);
        self.mapped
            .bytes(self.start + start..self.start + end + SLACK)
    }

    /// Asks the processor to fetch a row.
    #[inline]
    pub fn prefetch(&self, row: u32) {
        const LINE_SIZE: usize = 64;
        let Range { start, end } = self.rows.place(row);
        for at in (start..end).step_by(LINE_SIZE) {
            prefetch(self.mapped.address(self.start + at));
        }
    }

    /// Asks the system to read these rows ahead.
    pub fn will_need(&self, rows: RangeInclusive<u32>) {
        let (first, last) = (self.place(*rows.start()), self.place(*rows.end()));
        self.mapped.will_need(first.start..last.end);
    }

    /// Asks the system to read those of these rows ahead that are not in memory. They are in order, up or
    /// down.
    pub fn will_need_rows(&self, rows: impl Iterator<Item = u32> + Clone) {
        self.mapped
            .will_need_pieces(rows.map(|row| self.place(row)));
    }

    /// Where a row is in the file, with what is read together with it.
    fn place(&self, row: u32) -> Range<usize> {
        let Range { start, end } = self.rows.place(row);
        self.start + start..self.start + end + SLACK
    }
}

impl Part {
    #[inline]
    fn read(&self, bytes: &[u8]) -> u128 {
        let distance = bytes[self.at..].first_chunk().expect("there is slack");
        let distance = u128::from_le_bytes(*distance);
        self.base.wrapping_add(distance & mask(self.width))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(
        Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
    )]
    #[repr(C)]
    struct Record {
        id: u128,
        big: u128,
        time: u64,
        number: u32,
        code: u16,
        flags: u16,
    }

    const FIELDS: [Field; 6] = [
        Field {
            offset: 0,
            size: 16,
        },
        Field {
            offset: 16,
            size: 16,
        },
        Field {
            offset: 32,
            size: 8,
        },
        Field {
            offset: 40,
            size: 4,
        },
        Field {
            offset: 44,
            size: 2,
        },
        Field {
            offset: 46,
            size: 2,
        },
    ];

    fn check(rows: &[Record]) -> usize {
        let bytes = pack(rows, &FIELDS);
        assert_eq!(bytes, pack(rows, &FIELDS));
        let packed = PackedRows::<Record>::parse(&bytes, &FIELDS).expect("it was packed");
        assert_eq!(packed.rows() as usize, rows.len());
        for (number, row) in (0..).zip(rows) {
            assert_eq!(packed.row(&bytes, number), *row);
            assert_eq!(packed.field(&bytes, number, FIELDS[0]), row.id);
            assert_eq!(packed.field(&bytes, number, FIELDS[3]), row.number.into());
        }
        packed.stride()
    }

    #[test]
    fn what_rows_have_in_common_costs_nothing() {
        let row = |n: u64| Record {
            id: (7 << 100) + u128::from(n),
            big: u128::MAX,
            time: 1_700_000_000_000_000_000 + n * 1000,
            number: 9,
            code: 1,
            flags: 0,
        };
        let rows: Vec<Record> = (0..1000).map(row).collect();
        // Two bytes for the id, three for the time.
        assert_eq!(check(&rows), 5);
        assert_eq!(check(&rows[..1]), 0);
        assert_eq!(check(&[]), 0);
    }

    #[test]
    fn extremes() {
        let largest = Record {
            id: u128::MAX,
            big: u128::MAX,
            time: u64::MAX,
            number: u32::MAX,
            code: u16::MAX,
            flags: u16::MAX,
        };
        assert_eq!(check(&[Record::default(), largest]), size_of::<Record>());
        assert_eq!(check(&[largest, largest]), 0);
    }

    #[test]
    fn what_was_not_packed_is_refused() {
        let rows = [
            Record::default(),
            Record {
                id: 77,
                code: 3,
                ..Record::default()
            },
        ];
        let bytes = pack(&rows, &FIELDS);
        let parse = |bytes: &[u8]| PackedRows::<Record>::parse(bytes, &FIELDS).is_some();
        assert!(parse(&bytes));
        assert!((0..bytes.len()).all(|length| !parse(&bytes[..length])));
        for (at, value) in [
            (0, 3),
            (4, 9),
            (8, 5),
            (12, 1),
            (32, 17),
            (33, 1),
            (16 + 32 * 5 + 16, 3),
        ] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            assert!(!parse(&damaged), "byte {at}");
        }
        assert!(PackedRows::<Record>::parse(&bytes, &FIELDS[..5]).is_none());
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let id = prop_oneof![any::<u128>(), (0..1000u128), Just(1 << 90)];
        (id.clone(), id, any::<u64>(), 0..3u32, any::<u16>(), 0..2u16).prop_map(
            |(id, big, time, number, code, flags)| Record {
                id,
                big,
                time,
                number,
                code,
                flags,
            },
        )
    }

    proptest! {
        #[test]
        fn rows_come_back(rows in prop::collection::vec(any_record(), 0..50)) {
            check(&rows);
        }
    }
}
