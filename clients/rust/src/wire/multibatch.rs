//! Several batches of one operation in one body: the elements of all batches, then a trailer that counts them.
//!
//! ```text
//!   ├─ batch 0 ─┼─ batch 1 ─┼ ... ┼─ ff .. ff ─┼ count[n-1] ... count[1] count[0] n ┤
//!   └────────── payload ──────────┴────────── trailer, u16 each, from the end ───────┘
//! ```
//!
//! The trailer is rounded up to whole elements with `ff`, so a body is always a multiple of the element size and every
//! element is aligned like the body. There is at least one batch; a batch may be empty.
//!
//! Neither direction allocates: `decode` borrows, and `Encoder` keeps the counts at the end of the caller's buffer until
//! the payload's size is known.

/// Most batches in a body: 65535 is the padding's value.
pub const BATCHES_MAX: u16 = u16::MAX - 1;
const COUNT_SIZE: usize = size_of::<u16>();

/// Bytes of the trailer of `batches` batches of `element_size`-byte elements.
pub const fn trailer_size(element_size: usize, batches: usize) -> usize {
    (batches * COUNT_SIZE + COUNT_SIZE).next_multiple_of(element_size)
}

/// Why a body is not a multi-batch body.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MultibatchError {
    #[error("the body is too short to hold a batch count")]
    TooShort,
    #[error("the body is not a whole number of elements")]
    NotWholeElements,
    #[error("the batch count is 0 or 65535")]
    BatchCount,
    #[error("the trailer is longer than the body")]
    TrailerTooLong,
    #[error("the trailer's padding is not ff")]
    Padding,
    #[error("the batches' counts do not add up to the payload")]
    ElementCount,
}

/// A body that has been checked; iterating gives its batches in order.
#[derive(Clone, Copy, Debug)]
pub struct Batches<'a> {
    payload: &'a [u8],
    /// Little-endian counts, the last batch's first.
    counts: &'a [u8],
    element_size: usize,
}

/// One batch: `count` elements back to back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Batch<'a> {
    pub elements: &'a [u8],
    pub count: u16,
}

/// Checks a multi-batch body of `element_size`-byte elements.
pub fn decode(body: &[u8], element_size: usize) -> Result<Batches<'_>, MultibatchError> {
    assert!(element_size >= COUNT_SIZE && element_size.is_multiple_of(COUNT_SIZE));
    let Some((before, count)) = body.split_last_chunk::<COUNT_SIZE>() else {
        return Err(MultibatchError::TooShort);
    };
    if !body.len().is_multiple_of(element_size) {
        return Err(MultibatchError::NotWholeElements);
    }
    let batches = u16::from_le_bytes(*count);
    if batches == 0 || batches > BATCHES_MAX {
        return Err(MultibatchError::BatchCount);
    }
    let counts_size = usize::from(batches) * COUNT_SIZE;
    let trailer_size = trailer_size(element_size, usize::from(batches));
    if trailer_size > body.len() {
        return Err(MultibatchError::TrailerTooLong);
    }
    let payload_size = body.len() - trailer_size;
    let counts_start = before.len() - counts_size;
    if body[payload_size..counts_start]
        .iter()
        .any(|&byte| byte != 0xff)
    {
        return Err(MultibatchError::Padding);
    }
    let batches = Batches {
        payload: &body[..payload_size],
        counts: &before[counts_start..],
        element_size,
    };
    // At most 65534 counts of 65535: far below the range of usize.
    if batches.counts().map(usize::from).sum::<usize>() * element_size != payload_size {
        return Err(MultibatchError::ElementCount);
    }
    Ok(batches)
}

impl<'a> Batches<'a> {
    /// Number of batches, at least one.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "decode read the number from 16 bits"
    )]
    pub const fn batch_count(&self) -> u16 {
        (self.counts.len() / COUNT_SIZE) as u16
    }

    /// Number of elements in all batches.
    pub const fn element_count(&self) -> usize {
        self.payload.len() / self.element_size
    }

    /// All elements of all batches, back to back.
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Elements in each batch, in batch order.
    pub fn counts(&self) -> impl ExactSizeIterator<Item = u16> + Clone + use<'a> {
        self.counts
            .rchunks_exact(COUNT_SIZE)
            .map(|count| u16::from_le_bytes([count[0], count[1]]))
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Batch<'a>> + Clone + use<'a> {
        let mut rest = self.payload;
        let element_size = self.element_size;
        self.counts().map(move |count| {
            let (elements, after) = rest.split_at(usize::from(count) * element_size);
            rest = after;
            Batch { elements, count }
        })
    }
}

/// Writes the trailer of `counts` behind a payload of `payload_size` bytes that is already in `buffer`; returns the
/// body's size.
///
/// The caller promises what it computed itself: that the buffer has room, that the counts (1 to 65534 of them) add up
/// to the payload.
pub fn encode_trailer(
    buffer: &mut [u8],
    payload_size: usize,
    element_size: usize,
    counts: impl ExactSizeIterator<Item = u16>,
) -> usize {
    let batches = counts.len();
    let total = payload_size + trailer_size(element_size, batches);
    let trailer = &mut buffer[payload_size..total];
    trailer.fill(0xff);
    let (trailer, batch_count) = trailer
        .split_last_chunk_mut::<COUNT_SIZE>()
        .expect("a trailer holds the batch count");
    let batches = u16::try_from(batches).expect("the caller keeps to 65534 batches");
    assert!((1..=BATCHES_MAX).contains(&batches));
    *batch_count = batches.to_le_bytes();
    let mut elements = 0;
    for (place, count) in trailer.rchunks_exact_mut(COUNT_SIZE).zip(counts) {
        place.copy_from_slice(&count.to_le_bytes());
        elements += usize::from(count);
    }
    assert_eq!(elements * element_size, payload_size);
    total
}

/// Builds a body whose counts become known batch by batch.
///
/// The counts wait at the buffer's end, already in their final order, and are moved behind the payload by `finish`.
#[derive(Debug)]
pub struct Encoder<'a> {
    buffer: &'a mut [u8],
    element_size: usize,
    payload_size: usize,
    batches: usize,
}

impl<'a> Encoder<'a> {
    pub fn new(buffer: &'a mut [u8], element_size: usize) -> Encoder<'a> {
        assert!(element_size >= COUNT_SIZE && element_size.is_multiple_of(COUNT_SIZE));
        Encoder {
            buffer,
            element_size,
            payload_size: 0,
            batches: 0,
        }
    }

    /// Where the next batch's elements go; empty if there is no room for another batch's trailer.
    pub fn spare(&mut self) -> &mut [u8] {
        let trailer = trailer_size(self.element_size, self.batches + 1);
        let end = self
            .buffer
            .len()
            .saturating_sub(trailer)
            .max(self.payload_size);
        &mut self.buffer[self.payload_size..end]
    }

    /// Ends a batch of which `size` bytes have been written to `spare`.
    pub fn end_batch(&mut self, size: usize) {
        let element_size = self.element_size;
        assert!(size.is_multiple_of(element_size));
        assert!(self.batches < usize::from(BATCHES_MAX));
        let trailer = trailer_size(element_size, self.batches + 1);
        assert!(self.payload_size + size + trailer <= self.buffer.len());
        let count = u16::try_from(size / element_size).expect("a batch has at most 65535 elements");
        self.payload_size += size;
        self.batches += 1;
        let place = self.buffer.len() - COUNT_SIZE * (self.batches + 1);
        self.buffer[place..place + COUNT_SIZE].copy_from_slice(&count.to_le_bytes());
    }

    /// Writes the trailer; returns the body's size. There has been at least one batch.
    pub fn finish(self) -> usize {
        assert!(self.batches > 0);
        let counts_size = self.batches * COUNT_SIZE;
        let from = self.buffer.len() - COUNT_SIZE - counts_size;
        let total = self.payload_size + trailer_size(self.element_size, self.batches);
        let to = total - COUNT_SIZE - counts_size;
        // The counts go first: the padding may cover the place where they waited.
        self.buffer.copy_within(from..from + counts_size, to);
        self.buffer[self.payload_size..to].fill(0xff);
        let batches = u16::try_from(self.batches).expect("end_batch keeps to 65534 batches");
        self.buffer[total - COUNT_SIZE..total].copy_from_slice(&batches.to_le_bytes());
        total
    }
}
