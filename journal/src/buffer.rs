//! The memory of a frame, owned by the caller.
//!
//! ```text
//!  as_mut_ptr(), 4096-aligned
//!  │
//!  ├── 256 B headroom ──┬── payload ──────────────┬── padding to 4096 ──┬─ rest ─┐
//!  │ journal writes the │ caller's, stable until  │ journal writes zeros │ unused │
//!  │ frame header here  │ the write completes     │                      │        │
//! ```
//!
//! Frames are written from where the payload already lies: the caller leaves 256 bytes before it,
//! so that nothing is copied. Buffers are usually reference-counted and shared with a network send
//! of the same payload, therefore access goes through a pointer and a contract, not `&mut`.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::frame::{FRAME_HEADER_SIZE, SECTOR};

/// Memory that can carry one frame.
///
/// # Safety
///
/// Whoever implements this promises, from the moment a buffer is handed to the journal until its
/// write has completed (or was never submitted):
///
/// - [`as_mut_ptr`](Self::as_mut_ptr) always gives the same address, aligned to [`SECTOR`], valid
///   for reads and writes of [`capacity`](Self::capacity) bytes, all of them initialised;
/// - the memory stays allocated as long as the value (or a clone of it) lives, also when the value
///   is moved;
/// - during [`Journal::append`](crate::Journal::append) no one else reads or writes the first
///   [`FRAME_HEADER_SIZE`] bytes, nor the bytes between the end of the payload and the end of the
///   frame ([`frame_size`](crate::frame_size));
/// - no one changes any byte of the frame while its write is in flight;
/// - [`registered`](Self::registered), if it gives an index, names the fixed buffer of the ring
///   the write goes to, and that fixed buffer covers this memory.
pub unsafe trait FrameBuffer {
    /// Start of the headroom.
    fn as_mut_ptr(&self) -> *mut u8;
    /// Bytes from the start of the headroom to the end of the memory.
    fn capacity(&self) -> usize;
    /// The index under which this memory is registered with the ring it will be written through.
    fn registered(&self) -> Option<u16> {
        None
    }
}

/// A heap buffer for callers that have no pool of their own: zeroed, aligned to [`SECTOR`].
#[derive(Debug)]
pub struct AlignedBuffer {
    start: NonNull<u8>,
    capacity: usize,
}

// SAFETY: the buffer owns its memory alone, like a `Box<[u8]>`.
unsafe impl Send for AlignedBuffer {}
// SAFETY: a shared reference gives only reads (safe code) and the address.
unsafe impl Sync for AlignedBuffer {}

impl AlignedBuffer {
    /// Zeroed memory of at least `capacity` bytes, rounded up to whole sectors.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1).next_multiple_of(SECTOR);
        let layout = Self::layout(capacity);
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout));
        Self { start, capacity }
    }

    /// A buffer holding `payload` behind the headroom, ready to be appended.
    pub fn with_payload(payload: &[u8]) -> Self {
        let mut buffer = Self::new(crate::frame::frame_size(payload.len()));
        buffer.payload_mut()[..payload.len()].copy_from_slice(payload);
        buffer
    }

    /// The bytes behind the headroom.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.as_mut_slice()[FRAME_HEADER_SIZE..]
    }

    /// All bytes, headroom included.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `start` is valid for `capacity` initialised bytes (zeroed at allocation), owned
        // by `self`; the contract of FrameBuffer keeps writers away while it is shared.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.capacity) }
    }

    /// All bytes, headroom included.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes the access unique.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.capacity) }
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, SECTOR).expect("capacity is far below isize::MAX")
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this very layout, and freed only here.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.capacity)) }
    }
}

// SAFETY: the address is that of a heap allocation which moves never and lives as long as the
// value; it is aligned and initialised by `new`; the value is not cloneable, so whoever holds it
// (the journal during append, the WriteOp afterwards) is alone.
unsafe impl FrameBuffer for AlignedBuffer {
    fn as_mut_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    fn capacity(&self) -> usize {
        self.capacity
    }
}
