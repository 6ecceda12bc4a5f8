//! The threads beside the replica's: one executor, one builder, and the librarians.
//!
//! ```text
//!   replica thread ──Task──► executor thread ──Done──► replica thread
//!          │                 (in order, one at a time)
//!          ├──CheckpointTask──► builder thread ──CheckpointDone──► replica thread
//!          └──LibraryTask──► librarian threads ──LibraryDone──► replica thread
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
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};

use super::cores::Cores;
use super::wake::Wake;
use super::worker::{Next, Tasks, Worker};
use crate::limits::{EXECUTE_MAX, FILES_AHEAD, LENDING_READS_MAX, TRANSFER_WINDOW};
use crate::replica::executor::{CheckpointDone, CheckpointTask, Done, Task};
use crate::replica::io::Input;
use crate::replica::library::{LIBRARIANS, Librarian, LibraryDone, LibraryTask};

/// Tasks that can be queued: those with an answer are bounded by the replica, the others
/// (a checkpoint was published) come seldom.
const TASKS_MAX: usize = 2 * EXECUTE_MAX;

/// The replica takes one checkpoint at a time.
const CHECKPOINTS_MAX: usize = 2;

/// Blocks read for others; for each plan, of which an old one may not be over yet, pieces of a file to be
/// written, checks, and a list or sync; a step of the scrub. Of all librarians together.
const LIBRARY_MAX: usize = LENDING_READS_MAX + 2 * (TRANSFER_WINDOW + FILES_AHEAD + 1) + 1;

/// How long the first librarian has nothing to do before it touches memory for the executor. At full speed that
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
    execute: Worker<Task>,
    /// Tasks that the executor thread has been given and not finished.
    queued: Arc<AtomicUsize>,
    done: Receiver<Done>,
    build: Worker<CheckpointTask>,
    checkpoints_done: Receiver<CheckpointDone>,
    library: [Worker<LibraryTask>; LIBRARIANS],
    library_done: Receiver<LibraryDone>,
    /// Answers that are due from the executor thread.
    answers_due: usize,
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
        librarians: [Librarian; LIBRARIANS],
        cores: &Cores,
        wake: &Arc<Wake>,
    ) -> io::Result<Self> {
        // The first librarian's, and nobody else's.
        let mut prepare = executor.prepare();
        let executor = Arc::new(Mutex::new(executor));
        let queued = Arc::new(AtomicUsize::new(0));
        let (done_queue, done) = bounded::<Done>(TASKS_MAX);
        let (built_queue, checkpoints_done) = bounded::<CheckpointDone>(CHECKPOINTS_MAX);
        let (librarian_queue, library_done) = bounded::<LibraryDone>(LIBRARY_MAX);

        let core = cores.executor();
        let (owner, count, waker) = (Arc::clone(&executor), Arc::clone(&queued), Arc::clone(wake));
        let execute = Worker::spawn("executor", TASKS_MAX, move |tasks| {
            super::cores::pin(core);
            execute(&owner, &tasks, &done_queue, &count, &waker);
        })?;

        let waker = Arc::clone(wake);
        // At an ordinary priority: execution keeps pace with it, so starving it on a busy machine makes
        // everybody wait.
        let build = Worker::spawn("builder", CHECKPOINTS_MAX, move |tasks| {
            while let Some(task) = tasks.next() {
                if built_queue.send(builder.build(task)).is_err() {
                    return;
                }
                waker.notify();
            }
        })?;

        // At an ordinary priority: the kernel's lock on the process's memory is held while a page is
        // touched, and whoever maps one waits for it.
        let mut library = Vec::with_capacity(LIBRARIANS);
        for mut librarian in librarians {
            let (answers, waker) = (librarian_queue.clone(), Arc::clone(wake));
            let mut prepare = prepare.take();
            library.push(Worker::spawn("librarian", LIBRARY_MAX, move |tasks| {
                loop {
                    let next = match &prepare {
                        Some(_) => tasks.next_within(PREPARE_INTERVAL),
                        None => tasks.next().map_or(Next::End, Next::Task),
                    };
                    match (next, &mut prepare) {
                        (Next::Task(task), _) => {
                            if answers.send(librarian.run(task)).is_err() {
                                return;
                            }
                            waker.notify();
                        }
                        (Next::Idle, Some(prepare)) => prepare(),
                        (Next::Idle, None) => {}
                        (Next::End, _) => return,
                    }
                }
            })?);
        }
        let Ok(library) = library.try_into() else {
            unreachable!("one thread for each librarian")
        };
        Ok(Self {
            executor,
            execute,
            queued,
            done,
            build,
            checkpoints_done,
            library,
            library_done,
            answers_due: 0,
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
        self.execute.give(task);
        None
    }

    /// Hands a checkpoint to the builder.
    pub(super) fn build(&mut self, task: CheckpointTask) {
        self.build.give(task);
    }

    /// Hands a task to its librarian.
    pub(super) fn library(&mut self, task: LibraryTask) {
        self.library[task.librarian()].give(task);
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
            Err(TryRecvError::Disconnected) if !self.execute.is_closed() => {
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
        self.execute.close();
        self.build.close();
        self.library.iter_mut().for_each(Worker::close);
        let ended = |workers: &Self| {
            let library = workers.library.iter().all(Worker::has_ended);
            workers.execute.has_ended() && workers.build.has_ended() && library
        };
        while Instant::now() < deadline && !ended(&self) {
            std::thread::sleep(Duration::from_millis(1));
        }
        ended(&self)
    }
}

/// The executor thread.
fn execute<E: Execute>(
    executor: &Mutex<E>,
    tasks: &Tasks<Task>,
    answers: &Sender<Done>,
    queued: &AtomicUsize,
    wake: &Wake,
) {
    while let Some(task) = tasks.next() {
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
