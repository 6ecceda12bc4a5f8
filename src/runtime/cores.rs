//! Which core each thread runs on.
//!
//! Pinning pays only when every busy thread gets a core of its own; beside a busy neighbour a
//! pinned thread loses up to half of its speed. So `auto` pins on four cores or more, and leaves
//! the rest to the scheduler.

use core_affinity::CoreId;

/// Threads that are busy under load: replica, executor, builder, and the kernel's or a client's.
const BUSY_THREADS: usize = 4;

/// Whether threads are bound to cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pin {
    /// When there are enough cores.
    #[default]
    Auto,
    Always,
    Never,
}

/// The plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cores {
    cores: Vec<usize>,
    pinned: bool,
}

impl Cores {
    /// Looks at the cores that this process may use.
    pub(super) fn plan(pin: Pin) -> Self {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        Self::of(pin, cores.into_iter().map(|core| core.id).collect())
    }

    fn of(pin: Pin, cores: Vec<usize>) -> Self {
        let pinned = match pin {
            Pin::Auto => cores.len() >= BUSY_THREADS,
            Pin::Always => cores.len() >= 2,
            Pin::Never => false,
        };
        Self { cores, pinned }
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.pinned
    }

    pub(super) fn count(&self) -> usize {
        self.cores.len()
    }

    /// The last core but one: the first ones serve most interrupts.
    pub(super) fn replica(&self) -> Option<usize> {
        self.pinned.then(|| self.cores[self.cores.len() - 2])
    }

    /// The last core.
    pub(super) fn executor(&self) -> Option<usize> {
        self.pinned.then(|| self.cores[self.cores.len() - 1])
    }
}

/// Binds the calling thread, if there is a core for it.
pub(super) fn pin(core: Option<usize>) {
    if let Some(id) = core
        && !core_affinity::set_for_current(CoreId { id })
    {
        tracing::warn!(
            core = id,
            "could not pin a thread; it runs where the scheduler puts it"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_pinned_only_where_each_has_a_core() {
        assert!(!Cores::of(Pin::Auto, vec![0, 1]).is_pinned());
        assert!(!Cores::of(Pin::Never, vec![0, 1, 2, 3]).is_pinned());
        assert!(!Cores::of(Pin::Always, vec![0]).is_pinned());
        assert!(!Cores::of(Pin::Always, vec![]).is_pinned());
        let four = Cores::of(Pin::Auto, vec![0, 2, 4, 6]);
        assert_eq!((four.replica(), four.executor()), (Some(4), Some(6)));
        let two = Cores::of(Pin::Always, vec![0, 1]);
        assert_eq!((two.replica(), two.executor()), (Some(0), Some(1)));
    }
}
