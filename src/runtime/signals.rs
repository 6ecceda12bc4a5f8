//! SIGTERM and SIGINT: the first asks for a stop, the second ends the process.
//!
//! A handler may do next to nothing: it sets a flag and writes the eventfd that is read in the ring.

use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::wake::{self, Wake};

/// What the handler needs; set once and never dropped, so that it is always there for it.
static TARGET: OnceLock<(Arc<AtomicBool>, Arc<Wake>)> = OnceLock::new();

/// Exit status of a process that was told twice.
const IMPATIENT: libc::c_int = 130;

extern "C" fn on_signal(_: libc::c_int) {
    // Reading a set OnceLock is an atomic load.
    let Some((wanted, wake)) = TARGET.get() else {
        return;
    };
    if wanted.swap(true, Ordering::AcqRel) {
        // SAFETY: `_exit` may be called from a handler.
        unsafe { libc::_exit(IMPATIENT) };
    }
    // SAFETY: gives the address of this thread's errno, which the interrupted code may be about to
    // read: what the write below leaves there is undone.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    wake::signal(wake.descriptor());
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// Installs the handler; for the first caller in the process.
pub(super) fn install(wanted: Arc<AtomicBool>, wake: Arc<Wake>) -> io::Result<()> {
    if TARGET.set((wanted, wake)).is_err() {
        return Err(io::Error::other("signals are handled already"));
    }
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: all zeros is a valid action: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: the handler is a function that does only what handlers may do.
        if unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
