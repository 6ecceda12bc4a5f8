//! The threads beside the replica's: one executor, one builder, one librarian.
//!
//! ```text
//!   replica thread ──Task──► executor thread ──Done──► replica thread
//!          │                 (in order, one at a time)
//!          ├──CheckpointTask──► builder thread ──CheckpointDone──► replica thread
//!          └──LibraryTask──► librarian thread ──LibraryDone──► replica thread
//! ```
//!
//! Whole batches change hands, over bounded channels. A thread that sleeps costs 30 to 45 us to
//! wake, twice for a round trip, so a small task is run by the replica thread itself when nothing
//! is before it: [`Workers::start`] says which. Order holds, because that is never done while a
//! task is queued, running, or finished and not yet taken back.
//!
//! The executor is behind a mutex for that reason alone. It is never waited for: whoever finds it
//! taken queues the task instead.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError, bounded};

use super::cores::Cores;
use super::wake::Wake;
use crate::limits::{EXECUTE_MAX, LENDING_READS_MAX, TRANSFER_WINDOW};
use crate::replica::executor::{CheckpointDone, CheckpointTask, Done, Task};
use crate::replica::io::Input;
use crate::replica::library::{Librarian, LibraryDone, LibraryTask};

/// Tasks that can be queued: those with an answer are bounded by the replica, the others
/// (a checkpoint was published) come seldom.
const TASKS_MAX: usize = 2 * EXECUTE_MAX;

/// The replica takes one checkpoint at a time.
const CHECKPOINTS_MAX: usize = 2;

/// Blocks read for others; pieces of a file to be written; for each plan, of which an old one may
/// not be over yet, one check, list or sync.
const LIBRARY_MAX: usize = LENDING_READS_MAX + 4 * TRANSFER_WINDOW;

/// How long the librarian has nothing to do before it touches memory for the executor. At full speed that
/// takes a chunk of memory every twelve milliseconds.
const PREPARE_INTERVAL: Duration = Duration::from_millis(5);

/// Applies tasks, one after another.
pub trait Execute: Send + 'static {
    /// Runs a task; `None` for tasks without an answer.
    fn run(&mut self, task: Task) -> Option<Done>;

    /// Work for a thread that has nothing to do, a few milliseconds each time.
    fn prepare(&self) -> Option<Box<dyn FnMut() + Send>> {
        None
    }

    /// Whether a task is over so soon (some microseconds, no disk) that handing it to another
    /// thread would cost more.
    fn is_quick(task: &Task) -> bool;
}

/// Writes checkpoints; may take seconds.
pub trait Build: Send + 'static {
    fn build(&mut self, task: CheckpointTask) -> CheckpointDone;
}

pub(super) struct Workers<E: Execute> {
    executor: Arc<Mutex<E>>,
    /// `None` once a stop has begun.
    tasks: Option<Sender<Task>>,
    /// Tasks that the executor thread has been given and not finished.
    queued: Arc<AtomicUsize>,
    done: Receiver<Done>,
    checkpoints: Option<Sender<CheckpointTask>>,
    checkpoints_done: Receiver<CheckpointDone>,
    library: Option<Sender<LibraryTask>>,
    library_done: Receiver<LibraryDone>,
    /// Answers that are due from the executor thread.
    answers_due: usize,
    threads: Vec<JoinHandle<()>>,
    pub(super) inline_count: u64,
    pub(super) handed_count: u64,
}

impl<E: Execute> Workers<E> {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system has no thread for us.
    pub(super) fn spawn(
        executor: E,
        mut builder: impl Build,
        mut librarian: Librarian,
        cores: &Cores,
        wake: &Arc<Wake>,
    ) -> io::Result<Self> {
        let mut prepare = executor.prepare();
        let executor = Arc::new(Mutex::new(executor));
        let queued = Arc::new(AtomicUsize::new(0));
        let (tasks, task_queue) = bounded::<Task>(TASKS_MAX);
        let (done_queue, done) = bounded::<Done>(TASKS_MAX);
        let (checkpoints, checkpoint_queue) = bounded::<CheckpointTask>(CHECKPOINTS_MAX);
        let (built_queue, checkpoints_done) = bounded::<CheckpointDone>(CHECKPOINTS_MAX);

        let (library, library_queue) = bounded::<LibraryTask>(LIBRARY_MAX);
        let (librarian_queue, library_done) = bounded::<LibraryDone>(LIBRARY_MAX);

        let core = cores.executor();
        let (owner, count, waker) = (Arc::clone(&executor), Arc::clone(&queued), Arc::clone(wake));
        let executor_thread = std::thread::Builder::new()
            .name("executor".to_owned())
            .spawn(move || {
                super::cores::pin(core);
                execute(&owner, &task_queue, &done_queue, &count, &waker);
            })?;

        let waker = Arc::clone(wake);
        let builder_thread = std::thread::Builder::new()
            .name("builder".to_owned())
            .spawn(move || {
                // At an ordinary priority: execution keeps pace with it, so starving it on a busy
                // machine makes everybody wait.
                for task in checkpoint_queue {
                    let result = builder.build(task);
                    if built_queue.send(result).is_err() {
                        return;
                    }
                    waker.notify();
                }
            })?;
        let waker = Arc::clone(wake);
        let librarian_thread = std::thread::Builder::new()
            .name("librarian".to_owned())
            .spawn(move || {
                // At an ordinary priority: the kernel's lock on the process's memory is held while a page is
                // touched, and whoever maps one waits for it.
                loop {
                    match library_queue.recv_timeout(PREPARE_INTERVAL) {
                        Ok(task) => {
                            if librarian_queue.send(librarian.run(task)).is_err() {
                                return;
                            }
                            waker.notify();
                        }
                        Err(RecvTimeoutError::Timeout) => {
                            if let Some(prepare) = &mut prepare {
                                prepare();
                            }
                        }
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            })?;
        Ok(Self {
            executor,
            tasks: Some(tasks),
            queued,
            done,
            checkpoints: Some(checkpoints),
            checkpoints_done,
            library: Some(library),
            library_done,
            answers_due: 0,
            threads: vec![executor_thread, builder_thread, librarian_thread],
            inline_count: 0,
            handed_count: 0,
        })
    }

    /// Runs a task here, or hands it to the executor thread. Gives the answer if it is there already.
    pub(super) fn start(&mut self, task: Task) -> Option<Done> {
        if self.answers_due == 0
            && self.queued.load(Ordering::Acquire) == 0
            && E::is_quick(&task)
            && let Ok(mut executor) = self.executor.try_lock()
        {
            self.inline_count += 1;
            return executor.run(task);
        }
        self.handed_count += 1;
        self.answers_due += usize::from(matches!(task, Task::Apply { .. } | Task::Capture { .. }));
        self.queued.fetch_add(1, Ordering::AcqRel);
        let tasks = self.tasks.as_ref().expect("not while stopping");
        match tasks.try_send(task) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => panic!("more than {TASKS_MAX} tasks for the executor"),
            Err(TrySendError::Disconnected(_)) => panic!("the executor thread is gone"),
        }
        None
    }

    /// Hands a checkpoint to the builder.
    pub(super) fn build(&mut self, task: CheckpointTask) {
        let checkpoints = self.checkpoints.as_ref().expect("not while stopping");
        checkpoints
            .try_send(task)
            .expect("one checkpoint is under way at a time");
    }

    /// Hands a task to the librarian.
    pub(super) fn library(&mut self, task: LibraryTask) {
        let library = self.library.as_ref().expect("not while stopping");
        let sent = library.try_send(task);
        sent.expect("the replica bounds what is under way");
    }

    /// Whether an answer waits to be taken.
    pub(super) fn has_answers(&self) -> bool {
        !self.done.is_empty() || !self.checkpoints_done.is_empty() || !self.library_done.is_empty()
    }

    /// Whether the executor owes an answer.
    pub(super) fn is_executing(&self) -> bool {
        self.answers_due > 0
    }

    /// Takes an answer.
    pub(super) fn take(&mut self) -> Option<Input> {
        match self.done.try_recv() {
            Ok(done) => {
                self.answers_due -= 1;
                return Some(Input::Done(done));
            }
            // A panic there ends the process by itself in release builds; elsewhere it ends here.
            Err(TryRecvError::Disconnected) if self.tasks.is_some() => {
                panic!("the executor thread is gone")
            }
            Err(_) => {}
        }
        let built = self.checkpoints_done.try_recv().ok();
        built
            .map(Input::CheckpointDone)
            .or_else(|| self.library_done.try_recv().ok().map(Input::Library))
    }

    /// Ends the threads, waiting at most until `deadline`; a builder in the middle of a checkpoint
    /// is left behind, because nothing refers to what it writes. Gives whether all have ended.
    pub(super) fn stop(mut self, deadline: Instant) -> bool {
        self.tasks = None;
        self.checkpoints = None;
        self.library = None;
        let ended = |threads: &[JoinHandle<()>]| threads.iter().all(JoinHandle::is_finished);
        while Instant::now() < deadline && !ended(&self.threads) {
            std::thread::sleep(Duration::from_millis(1));
        }
        ended(&self.threads)
    }
}

/// The executor thread.
fn execute<E: Execute>(
    executor: &Mutex<E>,
    tasks: &Receiver<Task>,
    answers: &Sender<Done>,
    queued: &AtomicUsize,
    wake: &Wake,
) {
    // Receiving looks a few times before it sleeps.
    for task in tasks {
        let done = {
            // Free: the replica thread takes it only while nothing is queued.
            let mut executor = executor.lock().expect("a panic has ended the process");
            executor.run(task)
        };
        let answered = done.is_none_or(|done| answers.send(done).is_ok());
        queued.fetch_sub(1, Ordering::AcqRel);
        if !answered {
            return;
        }
        wake.notify();
    }
}
