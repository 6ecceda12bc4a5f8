//! Bytes of a connection, cut into verified messages; and the aligned buffer that both directions use.
//!
//! ```text
//!   spare() ──► read from the socket ──► filled(n) ──► message() ──► header, body  (until it gives None)
//! ```
//!
//! A message always starts at the buffer's start, so its header and the elements of its body can be read in place. What
//! follows it is moved there when the message has been used; with one request in flight that is nearly always nothing.

use crate::wire::header::{self, AnyHeader, Refusal};
use crate::wire::{HEADER_SIZE, MESSAGE_SIZE_MAX};
use zerocopy::{FromBytes, IntoBytes};

/// Zeroed bytes at a 16-byte aligned address, so that records can be read in place.
#[derive(Clone, Debug)]
pub struct Buffer {
    words: Box<[u128]>,
}

impl Buffer {
    /// A buffer of at least `size` bytes.
    pub fn new(size: usize) -> Buffer {
        Buffer {
            words: vec![0; size.div_ceil(size_of::<u128>())].into_boxed_slice(),
        }
    }
}

impl core::ops::Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.words.as_bytes()
    }
}

impl core::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.words.as_mut_bytes()
    }
}

/// The receiving end of one connection.
#[derive(Debug)]
pub struct Inbox {
    cluster: u128,
    buffer: Buffer,
    /// Bytes received and not yet taken.
    filled: usize,
    /// Bytes of the message that `message` gave last: they are dropped by the following call.
    taken: usize,
    /// Size of the message at the start, once its header has been verified.
    expected: Option<usize>,
}

impl Inbox {
    /// An inbox for messages of `cluster`, of any size.
    pub fn new(cluster: u128) -> Inbox {
        Inbox {
            cluster,
            buffer: Buffer::new(MESSAGE_SIZE_MAX),
            filled: 0,
            taken: 0,
            expected: None,
        }
    }

    /// Forgets everything, for the next connection.
    pub fn clear(&mut self) {
        (self.filled, self.taken, self.expected) = (0, 0, None);
    }

    /// Where the next received bytes go; never empty after `message` gave `None`.
    pub fn spare(&mut self) -> &mut [u8] {
        self.drop_taken();
        &mut self.buffer[self.filled..]
    }

    /// Says that `count` bytes of `spare` have been received.
    pub fn filled(&mut self, count: usize) {
        self.filled += count;
        assert!(self.filled <= self.buffer.len());
    }

    /// The next whole message, verified, or `None` if more bytes are needed. After a refusal close the connection.
    pub fn message(&mut self) -> Result<Option<(&AnyHeader, &[u8])>, Refusal> {
        self.drop_taken();
        let Some(bytes) = self.buffer[..self.filled].first_chunk::<HEADER_SIZE>() else {
            return Ok(None);
        };
        let size = match self.expected {
            Some(size) => size,
            None => {
                let header = header::frame(bytes)?;
                HEADER_SIZE + header.frame.body_size().ok_or(Refusal::SizeOutOfRange)?
            }
        };
        self.expected = Some(size);
        if self.filled < size {
            return Ok(None);
        }
        let (header, body) = self.buffer[..size].split_at(HEADER_SIZE);
        let header = AnyHeader::ref_from_bytes(header).expect("the buffer is aligned");
        header.verify_body(body)?;
        header.verify_cluster(self.cluster)?;
        self.taken = size;
        Ok(Some((header, body)))
    }

    fn drop_taken(&mut self) {
        if self.taken > 0 {
            self.buffer.copy_within(self.taken..self.filled, 0);
            self.filled -= self.taken;
            self.taken = 0;
            self.expected = None;
        }
    }
}
