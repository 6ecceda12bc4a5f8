//! Ctrl-C and SIGTERM: a drill stops at its next wait, cleans up and says so. The second one ends the
//! process at once; its replicas go with it (see `process`).

use std::sync::atomic::{AtomicBool, Ordering};

use crate::trouble::Trouble;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(signal: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
    // SAFETY: `signal` may be called from a handler, and with the default action it needs no memory.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

pub(crate) fn install() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let handler = on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // SAFETY: the handler does only what handlers may do. If it cannot be installed, the default
        // action ends the process and its replicas.
        unsafe { libc::signal(signal, handler) };
    }
}

/// To be asked wherever a drill waits.
pub(crate) fn check() -> Result<(), Trouble> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        Err(Trouble::Interrupted)
    } else {
        Ok(())
    }
}
