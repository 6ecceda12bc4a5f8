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

/// A core as the scheduler sees it, and the physical one that it shares with its hyperthreads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Core {
    id: usize,
    physical: usize,
}

/// The plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cores {
    count: usize,
    /// For the replica's thread and the executor's.
    pinned: Option<(usize, usize)>,
}

impl Cores {
    /// Looks at the cores that this process may use.
    pub(super) fn plan(pin: Pin) -> Self {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let cores: Vec<Core> = cores
            .into_iter()
            .map(|core| Core {
                id: core.id,
                physical: physical(core.id),
            })
            .collect();
        Self::of(pin, &cores)
    }

    /// The last core, because the first ones serve most interrupts; and the last one that is not its
    /// hyperthread, which would share its caches.
    fn of(pin: Pin, cores: &[Core]) -> Self {
        let count = cores.len();
        let wanted = match pin {
            Pin::Auto => count >= BUSY_THREADS,
            Pin::Always => count >= 2,
            Pin::Never => false,
        };
        let pinned = cores
            .split_last()
            .filter(|_| wanted)
            .and_then(|(replica, others)| {
                let elsewhere = |core: &&Core| core.physical != replica.physical;
                let executor = others
                    .iter()
                    .rev()
                    .find(elsewhere)
                    .or_else(|| others.last())?;
                Some((replica.id, executor.id))
            });
        Self { count, pinned }
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.pinned.is_some()
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn replica(&self) -> Option<usize> {
        self.pinned.map(|(replica, _)| replica)
    }

    pub(super) fn executor(&self) -> Option<usize> {
        self.pinned.map(|(_, executor)| executor)
    }
}

/// The first of the hyperthreads that share a core's hardware; the core itself where that is unknown.
fn physical(id: usize) -> usize {
    let path = format!("/sys/devices/system/cpu/cpu{id}/topology/thread_siblings_list");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let first = text.split(|c: char| !c.is_ascii_digit()).next();
    first.and_then(|number| number.parse().ok()).unwrap_or(id)
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

    fn cores(physical: &[usize]) -> Vec<Core> {
        let core = |(id, physical): (usize, &usize)| Core {
            id,
            physical: *physical,
        };
        physical.iter().enumerate().map(core).collect()
    }

    #[test]
    fn threads_are_pinned_only_where_each_has_a_core() {
        assert!(!Cores::of(Pin::Auto, &cores(&[0, 1])).is_pinned());
        assert!(!Cores::of(Pin::Never, &cores(&[0, 1, 2, 3])).is_pinned());
        assert!(!Cores::of(Pin::Always, &cores(&[0])).is_pinned());
        assert!(!Cores::of(Pin::Always, &[]).is_pinned());
        assert_eq!(
            Cores::of(Pin::Auto, &cores(&[0, 1, 2, 3])).pinned,
            Some((3, 2))
        );
        assert_eq!(Cores::of(Pin::Always, &cores(&[0, 0])).pinned, Some((1, 0)));
    }

    #[test]
    fn hyperthreads_of_one_core_are_not_both_taken() {
        let neighbours = [0, 0, 2, 2];
        assert_eq!(
            Cores::of(Pin::Auto, &cores(&neighbours)).pinned,
            Some((3, 1))
        );
        let halves = [0, 1, 0, 1];
        assert_eq!(Cores::of(Pin::Auto, &cores(&halves)).pinned, Some((3, 2)));
    }
}
