//! The buffer pool: all message memory of a replica, mapped once at start.
//!
//! Three arenas of equal slots (small, medium, large) in anonymous maps, advised to be huge pages.
//! Free slots form a lock-free stack per arena, so that the buffer used last, still in the cache,
//! is used next. Handles are counted; the last one to go puts the slot back. Nothing here ever
//! allocates after [`Pool::new`]: [`Pool::acquire`] returns `None` when the arena is empty, and
//! whoever asked stops reading from clients until buffers come back.
//!
//! Promises: a [`MessageMut`] is the only handle of its slot; a [`Message`]'s header and body never
//! change. The 256 bytes before the header (headroom) and the padding behind the body belong to the
//! journal, which alone writes them, while it appends.

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use memmap2::{MmapMut, MmapOptions};
use zerocopy::FromBytes;

use super::Header;
use crate::limits::{
    BODY_SIZE_MAX, BUFFER_SIZE_LARGE, BUFFER_SIZE_MEDIUM, BUFFER_SIZE_SMALL, EXECUTE_MAX,
    HEADER_SIZE, HEADROOM_SIZE, PIPELINE_MAX, REPAIR_WINDOW, REPLAY_WINDOW, SECTOR_SIZE,
    SEND_QUEUE_MAX,
};

/// Sizes of buffers: small, medium, large.
pub const SIZES: usize = 3;

/// How many buffers of each size.
#[derive(Debug, Clone, Copy)]
pub struct PoolConfig {
    pub small: u32,
    pub medium: u32,
    pub large: u32,
    /// Ask the kernel for huge pages: worth it in production, wasteful in tests.
    pub huge_pages: bool,
}

impl PoolConfig {
    /// What a replica needs, 163 MiB, however many sessions it has: a session holds no buffer, and a
    /// request for which there is none waits in its socket.
    ///
    /// What may be under way in buffers of one size, all at once; the first half is the clients':
    ///
    /// | | small | medium | large |
    /// | --- | --- | --- | --- |
    /// | prepares in the pipeline | 64 | 64 | 64 |
    /// | requests that wait for a place in it, the more the cheaper | 576 | 32 | - |
    /// | replies being made | 16 | 16 | 16 |
    /// | the log read back: to execute it, and for a peer's repair | 8 + 16 | 8 + 16 | 8 + 16 |
    /// | two peers that do not read what they are sent | 512 | - | - |
    /// | whatever else consensus needs to go on | 88 | 56 | 24 |
    pub const REPLICA: Self = {
        let replies_and_log = EXECUTE_MAX + REPLAY_WINDOW + REPAIR_WINDOW;
        assert!(PIPELINE_MAX == 64 && replies_and_log == 40 && SEND_QUEUE_MAX == 256);
        Self {
            small: 2 * (64 + 576),
            medium: 2 * (64 + 32),
            large: 2 * 64,
            huge_pages: true,
        }
    };

    /// Bytes of all buffers.
    pub const fn size(&self) -> u64 {
        self.small as u64 * BUFFER_SIZE_SMALL as u64
            + self.medium as u64 * BUFFER_SIZE_MEDIUM as u64
            + self.large as u64 * BUFFER_SIZE_LARGE as u64
    }
}

/// What a buffer is wanted for, when it is something that can do without. Buffers of a size must not
/// run out: replies, promises and acknowledgements need them, and those alone give others back.
///
/// ```text
///   free buffers of a size   all ────── 1/2 ────── 1/4 ────── 1/8 ────── none
///   Client                    taken     │ stays in its socket
///   PassedOn                  taken                │ dropped: its client asks again
///   Behind                    taken                           │ dropped, or disconnected
///   everything else           taken
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// A client's message, as it arrives.
    Client,
    /// A client's request that has a buffer already, past the bus: another replica passed it on.
    PassedOn,
    /// Something for a replica or a client that does not keep up.
    Behind,
}

impl Claim {
    /// Of so many buffers, one must be free.
    const fn share(self) -> usize {
        match self {
            Self::Client => 2,
            Self::PassedOn => 4,
            Self::Behind => 8,
        }
    }
}

/// One mapped stretch of equal slots; the runtime registers it with its ring.
pub struct Arena {
    map: MmapMut,
    slot_size: usize,
    /// Top of the stack of free slots: a counter against ABA above, index + 1 below, 0 when empty.
    free: AtomicU64,
    free_count: AtomicU32,
    slots: Box<[Slot]>,
    /// The index under which the runtime registered the arena with its ring, or -1.
    registered: AtomicI32,
}

struct Slot {
    data: NonNull<u8>,
    references: AtomicU32,
    next_free: AtomicU32,
    index: u32,
    arena: u8,
    /// The pool, kept alive by one strong count while the slot is in use.
    pool: std::cell::Cell<*const Inner>,
}

struct Inner {
    arenas: [Arena; SIZES],
}

// SAFETY: slots are only reached through handles; `pool` is written by the one thread that took the
// slot off the free stack (acquire) and read by the one that drops the last handle, and the
// reference count and the free stack order the two (release/acquire).
unsafe impl Send for Inner {}
// SAFETY: as above; all shared fields are atomics.
unsafe impl Sync for Inner {}

/// All message memory. Cheap to clone; clones share the memory.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

impl Pool {
    /// Maps the memory.
    ///
    /// # Errors
    /// When the kernel refuses the map (out of memory or address space).
    pub fn new(config: &PoolConfig) -> std::io::Result<Self> {
        let arena = |index: u8, size: usize, count: u32| -> std::io::Result<Arena> {
            let length = (size * count as usize).max(SECTOR_SIZE);
            let mut map = MmapOptions::new().len(length).map_anon()?;
            if config.huge_pages {
                // Advice only: without huge pages everything works, a little slower.
                let _ = map.advise(memmap2::Advice::HugePage);
            }
            let base = map.as_mut_ptr();
            let slots: Box<[Slot]> = (0..count)
                .map(|slot| Slot {
                    // SAFETY: slot < count, so the offset is inside the map; a map is never null.
                    data: unsafe { NonNull::new_unchecked(base.add(size * slot as usize)) },
                    references: AtomicU32::new(0),
                    next_free: AtomicU32::new(if slot + 1 < count { slot + 2 } else { 0 }),
                    index: slot,
                    arena: index,
                    pool: std::cell::Cell::new(std::ptr::null()),
                })
                .collect();
            Ok(Arena {
                map,
                slot_size: size,
                free: AtomicU64::new(u64::from(count > 0)),
                free_count: AtomicU32::new(count),
                slots,
                registered: AtomicI32::new(-1),
            })
        };
        let arenas = [
            arena(0, BUFFER_SIZE_SMALL, config.small)?,
            arena(1, BUFFER_SIZE_MEDIUM, config.medium)?,
            arena(2, BUFFER_SIZE_LARGE, config.large)?,
        ];
        Ok(Self {
            inner: Arc::new(Inner { arenas }),
        })
    }

    /// A buffer for a message with a body of up to `body_size` bytes, its header zeroed, its body
    /// length set to `body_size` with whatever bytes were there before. `None` when no buffer of
    /// that size is free.
    ///
    /// # Panics
    /// When `body_size` exceeds `BODY_SIZE_MAX`: the caller has checked.
    pub fn acquire(&self, body_size: usize) -> Option<MessageMut> {
        assert!(body_size <= BODY_SIZE_MAX);
        let arena = self.arena_for(body_size);
        let slot = arena.pop()?;
        slot.pool.set(Arc::into_raw(Arc::clone(&self.inner)));
        slot.references.store(1, Ordering::Release);
        let mut message = MessageMut {
            message: Message {
                slot: NonNull::from(slot),
            },
        };
        *message.header_mut() = zerocopy::FromZeros::new_zeroed();
        message.set_body_size(body_size);
        Some(message)
    }

    /// Which of the [`SIZES`] a body of `body_size` bytes needs.
    pub fn size_class(body_size: usize) -> usize {
        let need = HEADROOM_SIZE + HEADER_SIZE + body_size;
        usize::from(need > BUFFER_SIZE_SMALL) + usize::from(need > BUFFER_SIZE_MEDIUM)
    }

    /// Whether there are buffers for this, of the size that a body of `body_size` bytes needs.
    pub fn has_room(&self, body_size: usize, claim: Claim) -> bool {
        self.arena_for(body_size).has_room(claim)
    }

    /// Whether there are buffers of all sizes for this.
    pub fn has_room_everywhere(&self, claim: Claim) -> bool {
        self.inner.arenas.iter().all(|arena| arena.has_room(claim))
    }

    /// Free buffers of the size that a body of `body_size` bytes needs.
    pub fn free(&self, body_size: usize) -> usize {
        self.arena_for(body_size).free_count.load(Ordering::Relaxed) as usize
    }

    /// Whether every buffer is free: at rest nothing may leak.
    pub fn is_whole(&self) -> bool {
        self.inner
            .arenas
            .iter()
            .all(|a| a.free_count.load(Ordering::Acquire) as usize == a.slots.len())
    }

    /// The mapped memory, for registration with a ring.
    pub fn arenas(&self) -> &[Arena; SIZES] {
        &self.inner.arenas
    }

    fn arena_for(&self, body_size: usize) -> &Arena {
        &self.inner.arenas[Self::size_class(body_size)]
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let free = |a: &Arena| (a.free_count.load(Ordering::Relaxed), a.slots.len());
        f.debug_list()
            .entries(self.inner.arenas.iter().map(free))
            .finish()
    }
}

impl Arena {
    /// Start and length of the map.
    pub fn region(&self) -> (*const u8, usize) {
        (self.map.as_ptr(), self.map.len())
    }

    /// The runtime registered this arena with its ring under `index`.
    pub fn set_registered(&self, index: Option<u16>) {
        self.registered
            .store(index.map_or(-1, i32::from), Ordering::Release);
    }

    fn has_room(&self, claim: Claim) -> bool {
        self.free_count.load(Ordering::Relaxed) as usize > self.slots.len() / claim.share()
    }

    fn pop(&self) -> Option<&Slot> {
        let mut top = self.free.load(Ordering::Acquire);
        loop {
            let index = (top & u64::from(u32::MAX)).checked_sub(1)?;
            let slot = &self.slots[usize::try_from(index).expect("an index into the arena")];
            let next = u64::from(slot.next_free.load(Ordering::Relaxed));
            let counter = (top >> 32).wrapping_add(1) << 32;
            match self.free.compare_exchange_weak(
                top,
                counter | next,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => {
                    self.free_count.fetch_sub(1, Ordering::Relaxed);
                    return Some(slot);
                }
                Err(now) => top = now,
            }
        }
    }

    fn push(&self, slot: &Slot) {
        let mut top = self.free.load(Ordering::Relaxed);
        loop {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the lower half is the index"
            )]
            slot.next_free.store(top as u32, Ordering::Relaxed);
            let counter = (top >> 32).wrapping_add(1) << 32;
            match self.free.compare_exchange_weak(
                top,
                counter | u64::from(slot.index + 1),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    self.free_count.fetch_add(1, Ordering::Release);
                    return;
                }
                Err(now) => top = now,
            }
        }
    }
}

/// A shared message: header and body are immutable, clones count.
pub struct Message {
    slot: NonNull<Slot>,
}

// SAFETY: the slot outlives every handle (the pool is kept alive by the slot's strong count), the
// count is atomic, and shared handles only read header and body.
unsafe impl Send for Message {}
// SAFETY: as above.
unsafe impl Sync for Message {}

impl Message {
    fn slot(&self) -> &Slot {
        // SAFETY: the slot belongs to a pool that stays alive while any handle exists.
        unsafe { self.slot.as_ref() }
    }

    fn arena(&self) -> &Arena {
        let slot = self.slot();
        // SAFETY: `pool` was set from `Arc::into_raw` at acquire and is dropped with the last handle.
        unsafe { &(&(*slot.pool.get()).arenas)[slot.arena as usize] }
    }

    /// The header. For a message in foreign form use [`Message::header_bytes`].
    pub fn header(&self) -> &Header {
        Header::ref_from_bytes(self.header_bytes()).expect("256 aligned bytes are a header")
    }

    /// The header's bytes, whatever their form.
    pub fn header_bytes(&self) -> &[u8; HEADER_SIZE] {
        // SAFETY: the slot has room for headroom and header; nobody writes while it is shared.
        unsafe { &*self.slot().data.as_ptr().add(HEADROOM_SIZE).cast() }
    }

    /// The body, as long as the header's `size` says. The field is at another place in the foreign
    /// form: use [`Message::body_of_size`] there.
    pub fn body(&self) -> &[u8] {
        self.body_of_size(self.header().body_size())
    }

    /// The first `size` bytes of the body.
    ///
    /// # Panics
    /// When the buffer is smaller.
    pub fn body_of_size(&self, size: usize) -> &[u8] {
        assert!(size <= self.body_capacity());
        // SAFETY: within the slot, checked above; nobody writes while it is shared.
        unsafe {
            std::slice::from_raw_parts(
                self.slot().data.as_ptr().add(HEADROOM_SIZE + HEADER_SIZE),
                size,
            )
        }
    }

    /// The first `size` bytes of header and body: what goes on the wire.
    pub fn bytes(&self, size: usize) -> &[u8] {
        assert!(size <= HEADER_SIZE + self.body_capacity());
        // SAFETY: within the slot, checked above; nobody writes while it is shared.
        unsafe { std::slice::from_raw_parts(self.slot().data.as_ptr().add(HEADROOM_SIZE), size) }
    }

    /// The longest body that this buffer can hold.
    pub fn body_capacity(&self) -> usize {
        self.arena().slot_size - HEADROOM_SIZE - HEADER_SIZE
    }

    /// The index under which the buffer's arena is registered with the ring.
    pub fn registered(&self) -> Option<u16> {
        u16::try_from(self.arena().registered.load(Ordering::Relaxed)).ok()
    }

    /// The writable handle, if this is the only one.
    ///
    /// # Errors
    /// The message itself, when it is shared.
    pub fn try_unique(self) -> Result<MessageMut, Self> {
        if self.slot().references.load(Ordering::Acquire) == 1 {
            Ok(MessageMut { message: self })
        } else {
            Err(self)
        }
    }
}

impl Clone for Message {
    fn clone(&self) -> Self {
        self.slot().references.fetch_add(1, Ordering::Relaxed);
        Self { slot: self.slot }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        let slot = self.slot();
        if slot.references.fetch_sub(1, Ordering::AcqRel) == 1 {
            let pool = slot.pool.replace(std::ptr::null());
            // SAFETY: this was the last handle, so the pointer set at acquire is taken back once.
            let pool = unsafe { Arc::from_raw(pool) };
            pool.arenas[slot.arena as usize].push(slot);
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.header();
        write!(
            f,
            "{:?} view {} op {} commit {} from {} size {}",
            header.command(),
            header.view,
            header.op,
            header.commit,
            header.replica,
            header.size
        )
    }
}

// SAFETY: `as_mut_ptr` is sector-aligned (slots are whole sectors in a page-aligned map) and valid
// for `capacity` bytes while the handle lives; header and body do not change while it is shared; the
// headroom and the padding are written by nobody but the journal.
unsafe impl stampede_journal::FrameBuffer for Message {
    fn as_mut_ptr(&self) -> *mut u8 {
        self.slot().data.as_ptr()
    }

    fn capacity(&self) -> usize {
        self.arena().slot_size
    }

    fn registered(&self) -> Option<u16> {
        self.registered()
    }
}

/// The only handle of a buffer: header and body may be written.
pub struct MessageMut {
    message: Message,
}

impl MessageMut {
    /// The header, to be written in place.
    pub fn header_mut(&mut self) -> &mut Header {
        Header::mut_from_bytes(self.header_bytes_mut()).expect("256 aligned bytes are a header")
    }

    /// The header's bytes, whatever their form.
    pub fn header_bytes_mut(&mut self) -> &mut [u8; HEADER_SIZE] {
        // SAFETY: inside the slot, and this is the only handle.
        unsafe { &mut *self.message.slot().data.as_ptr().add(HEADROOM_SIZE).cast() }
    }

    /// The first `size` bytes of the body, to be written.
    ///
    /// # Panics
    /// When the buffer is smaller.
    pub fn body_mut_of_size(&mut self, size: usize) -> &mut [u8] {
        assert!(size <= self.body_capacity());
        // SAFETY: inside the slot, checked above, and this is the only handle.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.message
                    .slot()
                    .data
                    .as_ptr()
                    .add(HEADROOM_SIZE + HEADER_SIZE),
                size,
            )
        }
    }

    /// Header and body, both to be written.
    pub fn parts_mut(&mut self, body_size: usize) -> (&mut [u8; HEADER_SIZE], &mut [u8]) {
        assert!(body_size <= self.body_capacity());
        let start = self.message.slot().data.as_ptr();
        // SAFETY: two disjoint stretches inside the slot, and this is the only handle.
        unsafe {
            (
                &mut *start.add(HEADROOM_SIZE).cast(),
                std::slice::from_raw_parts_mut(start.add(HEADROOM_SIZE + HEADER_SIZE), body_size),
            )
        }
    }

    /// Start of the frame (headroom first), for reads from the journal: sector-aligned.
    pub fn frame_ptr(&mut self) -> *mut u8 {
        self.message.slot().data.as_ptr()
    }

    /// The first `size` bytes of the frame, headroom first: what was read from the journal.
    ///
    /// # Panics
    /// When the buffer is smaller.
    pub fn frame(&self, size: usize) -> &[u8] {
        assert!(size <= self.frame_capacity());
        // SAFETY: inside the slot, checked above, and this is the only handle.
        unsafe { std::slice::from_raw_parts(self.message.slot().data.as_ptr(), size) }
    }

    /// The first `size` bytes of the frame, to be filled by a read.
    ///
    /// # Panics
    /// When the buffer is smaller.
    pub fn frame_mut(&mut self, size: usize) -> &mut [u8] {
        assert!(size <= self.frame_capacity());
        // SAFETY: inside the slot, checked above, and this is the only handle.
        unsafe { std::slice::from_raw_parts_mut(self.message.slot().data.as_ptr(), size) }
    }

    /// Bytes from the start of the frame to the end of the buffer.
    pub fn frame_capacity(&self) -> usize {
        self.message.arena().slot_size
    }

    /// Writes the body's length into a header of ours.
    pub fn set_body_size(&mut self, body_size: usize) {
        assert!(body_size <= self.body_capacity());
        self.header_mut().size =
            u32::try_from(HEADER_SIZE + body_size).expect("messages are at most a mebibyte");
    }

    /// Replaces header and body and seals both: for control messages, which are small.
    pub fn fill(&mut self, header: Header, body: &[u8]) {
        self.body_mut_of_size(body.len()).copy_from_slice(body);
        *self.header_mut() = header;
        self.set_body_size(body.len());
        self.header_mut().seal(body);
    }

    /// Shares the message; from here on it does not change.
    pub fn freeze(self) -> Message {
        self.message
    }
}

impl Deref for MessageMut {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl fmt::Debug for MessageMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::*;

    fn pool() -> Pool {
        Pool::new(&PoolConfig {
            small: 4,
            medium: 2,
            large: 2,
            huge_pages: false,
        })
        .unwrap()
    }

    #[test]
    fn buffers_come_back_when_the_last_handle_goes() {
        let pool = pool();
        let first = pool.acquire(100).unwrap();
        let shared = first.freeze();
        let clone = shared.clone();
        assert_eq!(pool.free(100), 3);
        drop(shared);
        assert_eq!(pool.free(100), 3);
        drop(clone);
        assert!(pool.is_whole());
    }

    #[test]
    fn an_empty_arena_says_so() {
        let pool = pool();
        let taken: Vec<_> = (0..2)
            .map(|_| pool.acquire(BODY_SIZE_MAX).unwrap())
            .collect();
        assert!(pool.acquire(BODY_SIZE_MAX).is_none());
        assert!(pool.acquire(10).is_some());
        drop(taken);
        assert!(pool.acquire(BODY_SIZE_MAX).is_some());
    }

    #[test]
    fn who_can_do_without_is_refused_before_buffers_run_out() {
        let config = PoolConfig {
            small: 16,
            medium: 0,
            large: 0,
            huge_pages: false,
        };
        let pool = Pool::new(&config).unwrap();
        let mut taken = Vec::new();
        let mut last_with_room = |claim| {
            while pool.has_room(0, claim) {
                taken.push(pool.acquire(0).unwrap());
            }
            pool.free(0)
        };
        assert_eq!(last_with_room(Claim::Client), 8);
        assert_eq!(last_with_room(Claim::PassedOn), 4);
        assert_eq!(last_with_room(Claim::Behind), 2);
        assert!(!pool.has_room_everywhere(Claim::Behind));
        assert!(pool.acquire(0).is_some());
    }

    #[test]
    fn a_shared_message_cannot_be_written() {
        let pool = pool();
        let shared = pool.acquire(0).unwrap().freeze();
        let clone = shared.clone();
        let shared = shared.try_unique().unwrap_err();
        drop(clone);
        assert!(shared.try_unique().is_ok());
    }

    #[test]
    fn filled_messages_verify_and_are_aligned() {
        let pool = pool();
        let mut message = pool.acquire(3).unwrap();
        message.fill(Header::new(Command::Commit, 1, 0, 0), b"abc");
        let message = message.freeze();
        message.header().verify().unwrap();
        message.header().verify_body(message.body()).unwrap();
        assert_eq!(message.body(), b"abc");
    }

    #[test]
    fn many_threads_share_one_pool() {
        let pool = Pool::new(&PoolConfig {
            small: 64,
            medium: 0,
            large: 0,
            huge_pages: false,
        });
        let pool = pool.unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let pool = pool.clone();
                scope.spawn(move || {
                    for round in 0..20_000u32 {
                        let Some(mut message) = pool.acquire(8) else {
                            continue;
                        };
                        let mark = [thread, round.to_le_bytes()[0], 1, 2, 3, 4, 5, 6];
                        message.body_mut_of_size(8).copy_from_slice(&mark);
                        let message = message.freeze();
                        let clone = message.clone();
                        drop(message);
                        assert_eq!(clone.body(), mark);
                    }
                });
            }
        });
        assert!(pool.is_whole());
    }
}
