//! The ring of the replica thread: one io_uring, its features, and the names of its completions.
//!
//! ```text
//!   push, push, push ──► submission queue ──┐ one io_uring_enter: submits all of them,
//!   completions     ◄── completion queue ◄──┘ and waits for the next completion, or a while
//! ```
//!
//! Promises
//! - every operation that was pushed completes exactly once, and is counted until it does: the
//!   completion queue has room for all that can be in flight;
//! - a completion carries the [`Token`] of its operation: kind, index, generation;
//! - what the kernel lacks (DEFER_TASKRUN and its relatives, registration of files, buffers, the
//!   ring itself) is done without and named in [`Features`].
//!
//! With DEFER_TASKRUN completions are only made inside `io_uring_enter`, on the thread that created
//! the ring: so the ring is created there, and nobody looks at the completion queue alone.
//!
//! It knows no socket, file or message: those who push own the memory that the kernel uses.

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::host::locked_memory;
use super::refusal::RingRefused;
use crate::limits::{CONNECTIONS_MAX, MEMBERS_MAX};

/// Operations pushed between two enters; more only cause one enter more.
const SUBMISSIONS: u32 = 1024;

/// Room for everything in flight: a receive and a send for each connection (a dial has its timeout
/// instead), every disk operation, and the few of the world itself (accept, wake-up).
const COMPLETIONS: u32 = 32_768;
const _: () = assert!(
    (2 * (CONNECTIONS_MAX + MEMBERS_MAX) + super::disk::OPERATIONS_MAX + 8) < COMPLETIONS as usize
);

/// What a completion is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Wake = 1,
    Accept = 2,
    Receive = 3,
    Send = 4,
    Connect = 5,
    /// The timeout of a dial, or the end of a cancellation: nothing follows from it.
    Aside = 6,
    Disk = 7,
}

/// Which operation a completion belongs to: `kind << 56 | generation << 32 | index`.
///
/// Slots are not used again while an operation is in flight, so the generation is a check of that
/// promise, not a way to sort out late completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub kind: Kind,
    pub generation: u32,
    pub index: u32,
}

/// Generations are compared in 24 bits.
pub(super) const GENERATION_MASK: u32 = (1 << 24) - 1;

impl Token {
    pub(super) fn new(kind: Kind, generation: u32, index: u32) -> Self {
        Self {
            kind,
            generation: generation & GENERATION_MASK,
            index,
        }
    }

    fn encode(self) -> u64 {
        u64::from(self.kind as u8) << 56
            | u64::from(self.generation & GENERATION_MASK) << 32
            | u64::from(self.index)
    }

    fn decode(user_data: u64) -> Self {
        let kind = match user_data >> 56 {
            1 => Kind::Wake,
            2 => Kind::Accept,
            3 => Kind::Receive,
            4 => Kind::Send,
            5 => Kind::Connect,
            6 => Kind::Aside,
            7 => Kind::Disk,
            other => unreachable!("the kernel gave back a token of kind {other}"),
        };
        Self {
            kind,
            generation: u32::try_from(user_data >> 32 & u64::from(GENERATION_MASK))
                .expect("24 bits"),
            index: u32::try_from(user_data & u64::from(u32::MAX)).expect("32 bits"),
        }
    }
}

/// The end of an operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Completion {
    pub token: Token,
    /// As the system call would have given it: a count, or a negated error number.
    pub result: i32,
}

impl Completion {
    /// The result as the standard library puts it.
    pub(super) fn result(&self) -> io::Result<usize> {
        usize::try_from(self.result).map_err(|_| io::Error::from_raw_os_error(-self.result))
    }
}

/// What was obtained from this kernel.
#[derive(Debug, Clone, Default)]
pub struct Features {
    pub single_issuer: bool,
    pub defer_taskrun: bool,
    pub coop_taskrun: bool,
    /// Arenas of message buffers are registered; if not, why.
    pub buffers: Registration,
    /// Journal and superblock files are registered; if not, why.
    pub files: Registration,
}

/// Whether something could be registered with the ring.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Registration {
    #[default]
    None,
    Done,
    Refused(String),
}

impl fmt::Display for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Done => f.write_str("registered"),
            Self::Refused(_) => f.write_str("not registered"),
        }
    }
}

impl Features {
    /// How the ring was set up.
    pub fn flags(&self) -> String {
        let flags = [
            (self.single_issuer, "single_issuer"),
            (self.defer_taskrun, "defer_taskrun"),
            (self.coop_taskrun, "coop_taskrun"),
        ];
        let names: Vec<&str> = flags
            .into_iter()
            .filter_map(|(on, name)| on.then_some(name))
            .collect();
        if names.is_empty() {
            "without task-run flags (a newer kernel has them)".to_owned()
        } else {
            names.join(" ")
        }
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (flags, buffers, files) = (self.flags(), &self.buffers, &self.files);
        write!(f, "{flags}, buffers {buffers}, files {files}")
    }
}

/// How long an enter may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Submit, look what has completed, come back.
    No,
    /// Until something completes, or this long.
    Until(Duration),
}

pub(super) struct Ring {
    uring: IoUring,
    features: Features,
    in_flight: usize,
}

impl Ring {
    /// Creates the ring; on the thread that will use it.
    pub(super) fn new() -> Result<Self, RingRefused> {
        // From the best to what every kernel since 5.11 has.
        let levels: [(bool, bool, bool); 4] = [
            (true, true, true),
            (true, false, true),
            (false, false, true),
            (false, false, false),
        ];
        let mut error = None;
        for (single, defer, coop) in levels {
            let mut builder = IoUring::builder();
            builder.dontfork().setup_cqsize(COMPLETIONS);
            if single {
                builder.setup_single_issuer();
            }
            if defer {
                builder.setup_defer_taskrun();
            }
            if coop {
                builder.setup_coop_taskrun().setup_taskrun_flag();
            }
            match builder.build(SUBMISSIONS) {
                Ok(uring) => {
                    if !uring.params().is_feature_ext_arg() || !uring.params().is_feature_nodrop() {
                        let old = io::Error::from_raw_os_error(libc::ENOSYS);
                        return Err(RingRefused::explain(old));
                    }
                    return Ok(Self {
                        uring,
                        features: Features {
                            single_issuer: single,
                            defer_taskrun: defer,
                            coop_taskrun: coop,
                            ..Features::default()
                        },
                        in_flight: 0,
                    });
                }
                // A flag that this kernel does not know: try with fewer.
                Err(refused) if refused.raw_os_error() == Some(libc::EINVAL) => {
                    error = Some(refused);
                }
                Err(refused) => return Err(RingRefused::explain(refused)),
            }
        }
        let error = error.unwrap_or_else(|| io::Error::from_raw_os_error(libc::EINVAL));
        Err(RingRefused::explain(error))
    }

    pub(super) fn features(&self) -> &Features {
        &self.features
    }

    /// Registers stretches of memory, so that the kernel maps them once and not for each write.
    /// Gives whether it did.
    ///
    /// # Safety
    /// The stretches stay mapped for as long as the ring lives.
    pub(super) unsafe fn register_buffers(&mut self, regions: &[(*const u8, usize)]) -> bool {
        let vectors: Vec<libc::iovec> = regions
            .iter()
            .map(|(start, length)| libc::iovec {
                iov_base: start.cast_mut().cast(),
                iov_len: *length,
            })
            .collect();
        // SAFETY: the caller keeps the memory mapped.
        let result = unsafe { self.uring.submitter().register_buffers(&vectors) };
        self.features.buffers = match result {
            Ok(()) => Registration::Done,
            // Unprivileged users are charged for pinned pages.
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
                Registration::Refused(format!(
                    "locked memory is limited to {}; set LimitMEMLOCK=infinity or grant \
                     CAP_IPC_LOCK, it saves 5-10 us per MiB written",
                    locked_memory()
                ))
            }
            Err(error) => Registration::Refused(error.to_string()),
        };
        self.features.buffers == Registration::Done
    }

    /// Registers files; they are then named by their index. Gives whether it did.
    pub(super) fn register_files(&mut self, files: &[RawFd]) -> bool {
        self.features.files = match self.uring.submitter().register_files(files) {
            Ok(()) => Registration::Done,
            Err(error) => Registration::Refused(error.to_string()),
        };
        self.features.files == Registration::Done
    }

    /// Operations that have not completed.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Queues operations that stand together (links). Full queues are submitted first.
    ///
    /// # Safety
    /// What the entries point to stays valid, and is not touched, until they complete.
    pub(super) unsafe fn push<const N: usize>(&mut self, entries: [(Token, squeue::Entry); N]) {
        let entries = entries.map(|(token, entry)| entry.user_data(token.encode()));
        self.in_flight += N;
        assert!(
            self.in_flight < COMPLETIONS as usize,
            "the completion queue is sized for everything that can be in flight"
        );
        loop {
            // SAFETY: the caller's promise.
            if unsafe { self.uring.submission().push_multiple(&entries) }.is_ok() {
                return;
            }
            // A refusal to submit here shows itself again at the next enter.
            let _ = self.enter(Wait::No);
        }
    }

    /// Asks the kernel to end an operation early; it completes with an error then.
    pub(super) fn cancel(&mut self, token: Token) {
        let entry = opcode::AsyncCancel::new(token.encode()).build();
        // SAFETY: the operation names no memory.
        unsafe { self.push([(Token::new(Kind::Aside, 0, 0), entry)]) };
    }

    /// Whether something waits to be submitted.
    pub(super) fn has_pushed(&mut self) -> bool {
        !self.uring.submission().is_empty()
    }

    /// Submits what was pushed and, if asked to, waits for a completion.
    pub(super) fn enter(&mut self, wait: Wait) -> io::Result<()> {
        let result = match wait {
            Wait::No => self.uring.submit(),
            Wait::Until(limit) => {
                let limit = Timespec::from(limit);
                let arguments = SubmitArgs::new().timespec(&limit);
                self.uring.submitter().submit_with_args(1, &arguments)
            }
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Time is up; a signal; completions must be taken first; memory is short for a
                // moment. In each case the loop takes completions and comes back.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Takes what has completed.
    pub(super) fn completions(&mut self, into: &mut Vec<Completion>) {
        let before = into.len();
        let queue = self.uring.completion();
        into.extend(queue.map(|entry: cqueue::Entry| Completion {
            token: Token::decode(entry.user_data()),
            result: entry.result(),
        }));
        let taken = into.len() - before;
        self.in_flight = self
            .in_flight
            .checked_sub(taken)
            .expect("an operation completes once");
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ring {}, {} in flight", self.features, self.in_flight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip() {
        for kind in [
            Kind::Wake,
            Kind::Accept,
            Kind::Receive,
            Kind::Send,
            Kind::Connect,
            Kind::Aside,
            Kind::Disk,
        ] {
            for (generation, index) in [(0, 0), (GENERATION_MASK, u32::MAX), (77, 1029)] {
                let token = Token::new(kind, generation, index);
                assert_eq!(Token::decode(token.encode()), token);
            }
        }
        assert_eq!(Token::new(Kind::Send, 1 << 24, 3).generation, 0);
    }

    #[test]
    fn more_operations_than_the_queue_holds_all_complete_once() {
        let mut ring = Ring::new().unwrap();
        let count = SUBMISSIONS + 500;
        for index in 0..count {
            // SAFETY: the operation names no memory.
            unsafe { ring.push([(Token::new(Kind::Disk, 0, index), opcode::Nop::new().build())]) };
        }
        assert_eq!(ring.in_flight(), count as usize);
        let mut seen = vec![false; count as usize];
        let mut completions = Vec::new();
        while ring.in_flight() > 0 {
            ring.enter(Wait::Until(Duration::from_secs(5))).unwrap();
            ring.completions(&mut completions);
            assert!(!completions.is_empty());
            for completion in completions.drain(..) {
                let index = completion.token.index as usize;
                assert!(!seen[index]);
                seen[index] = true;
            }
        }
        assert!(seen.into_iter().all(|seen| seen));
    }

    /// Makes `io_uring_setup` fail for the calling thread, as container runtimes do.
    fn forbid_rings(errno: u16) {
        let instruction = |code: u32, jump_true, jump_false, k| libc::sock_filter {
            code: u16::try_from(code).unwrap(),
            jt: jump_true,
            jf: jump_false,
            k,
        };
        let number = u32::try_from(libc::SYS_io_uring_setup).unwrap();
        let mut filter = [
            // The system call's number is the first field of what a filter sees.
            instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
            instruction(
                libc::BPF_RET | libc::BPF_K,
                0,
                0,
                libc::SECCOMP_RET_ERRNO | u32::from(errno),
            ),
            instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog {
            len: u16::try_from(filter.len()).unwrap(),
            filter: filter.as_mut_ptr(),
        };
        // SAFETY: both calls concern the calling thread alone; the program is valid and is copied.
        let results = unsafe {
            [
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
                libc::prctl(
                    libc::PR_SET_SECCOMP,
                    libc::SECCOMP_MODE_FILTER,
                    &raw const program,
                ),
            ]
        };
        assert_eq!(results, [0, 0]);
    }

    #[test]
    fn a_container_that_forbids_rings_is_named_as_the_cause() {
        for errno in [libc::EPERM, libc::ENOSYS] {
            let attempt = std::thread::spawn(move || {
                forbid_rings(u16::try_from(errno).unwrap());
                Ring::new().map(|_| ()).unwrap_err().to_string()
            });
            let error = attempt.join().unwrap();
            assert!(
                error.contains("seccomp") && error.contains("io_uring_setup"),
                "{error}"
            );
        }
    }

    #[test]
    fn registered_memory_is_locked_or_the_limit_is_named() {
        const SIZE: usize = 1 << 20;
        let pinned = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("VmPin:"));
            let kib = line.unwrap().split_whitespace().nth(1).unwrap();
            kib.parse::<usize>().unwrap() << 10
        };
        let memory = vec![0u8; SIZE];
        let mut ring = Ring::new().unwrap();
        // SAFETY: the ring goes before the memory does.
        let registered = unsafe { ring.register_buffers(&[(memory.as_ptr(), SIZE)]) };
        if registered {
            // Pages that are pinned are not swapped out. (Other tests may have pinned more.)
            assert!(pinned() >= SIZE, "{} bytes", pinned());
        } else {
            let Registration::Refused(reason) = &ring.features().buffers else {
                panic!("neither registered nor refused");
            };
            assert!(reason.contains("locked memory is limited"), "{reason}");
        }
        drop(ring);
        drop(memory);
    }

    #[test]
    fn a_wait_ends_when_its_time_is_up() {
        let mut ring = Ring::new().unwrap();
        ring.enter(Wait::Until(Duration::from_millis(2))).unwrap();
        assert_eq!(ring.in_flight(), 0);
    }
}
