//! Waking the replica thread while it sleeps in its ring, and only then.
//!
//! ```text
//!   replica thread                          any other thread
//!   sleeping = true                         put work where the replica thread looks
//!   look for work once more                 sleeping? yes ──► false, write the eventfd
//!   nothing: wait in the ring ◄──────────── completes the read that is always in the ring
//!   sleeping = false
//! ```
//!
//! Either the replica thread sees the work when it looks once more, or the other thread sees that
//! it sleeps: both sides write first and read afterwards, with a full fence between. A wake-up
//! costs a system call here and 30 to 45 us there, so an awake thread is left alone.

use std::cell::UnsafeCell;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use io_uring::{opcode, types};

use super::ring::{Kind, Ring, Token};

pub(super) struct Wake {
    event: OwnedFd,
    sleeping: AtomicBool,
    /// Where the ring's read puts the counter. Nobody reads it.
    counter: UnsafeCell<u64>,
}

// SAFETY: `counter` is only touched by the kernel, which is told of it by the replica thread; all
// else may be shared.
unsafe impl Sync for Wake {}

impl Wake {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: no memory is involved.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if event < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            // SAFETY: the descriptor was made just above, and belongs to nobody else.
            event: unsafe { OwnedFd::from_raw_fd(event) },
            sleeping: AtomicBool::new(false),
            counter: UnsafeCell::new(0),
        })
    }

    /// The replica thread is about to look for work once more, and then to sleep.
    pub(super) fn before_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The replica thread is awake.
    pub(super) fn after_sleep(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// Work has been put where the replica thread looks.
    pub(super) fn notify(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            signal(self.event.as_raw_fd());
        }
    }

    /// The eventfd, for a signal handler, which may do nothing but [`signal`] it.
    pub(super) fn descriptor(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// Puts the read that wakes the thread into its ring.
    pub(super) fn arm(&self, ring: &mut Ring) {
        let target = self.counter.get().cast();
        let entry = opcode::Read::new(types::Fd(self.descriptor()), target, 8).build();
        // SAFETY: the world keeps this value until its ring is empty, and one read is armed at a
        // time.
        unsafe { ring.push([(Token::new(Kind::Wake, 0, 0), entry)]) };
    }
}

/// Makes the eventfd readable. Async-signal-safe.
pub(super) fn signal(event: RawFd) {
    let one = 1u64;
    // SAFETY: writes eight bytes from the stack. It cannot fail but by an overflow of the counter,
    // which then is readable anyway.
    unsafe { libc::write(event, (&raw const one).cast(), 8) };
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::super::ring::Wait;
    use super::*;

    #[test]
    fn a_sleeping_thread_is_woken_and_an_awake_one_is_not_disturbed() {
        let wake = Arc::new(Wake::new().unwrap());
        let mut ring = Ring::new().unwrap();
        wake.arm(&mut ring);
        // Awake: nothing is written.
        wake.notify();
        ring.enter(Wait::Until(Duration::from_millis(1))).unwrap();
        let mut done = Vec::new();
        ring.completions(&mut done);
        assert!(done.is_empty());

        wake.before_sleep();
        let other = Arc::clone(&wake);
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            other.notify();
            other.notify();
        });
        let start = Instant::now();
        ring.enter(Wait::Until(Duration::from_secs(10))).unwrap();
        wake.after_sleep();
        ring.completions(&mut done);
        assert_eq!(done.len(), 1);
        assert_eq!(done[0].token.kind, Kind::Wake);
        assert!(start.elapsed() < Duration::from_secs(9));
        thread.join().unwrap();
    }
}
