//! A thread that works on tasks: a bounded channel whose receiver sleeps as soon as it finds nothing.
//!
//! ```text
//!   sender                       the thread
//!   put a task                   look: a task? work on it, look again
//!   unpark the thread ─────────► nothing: park
//! ```
//!
//! An unpark before the park makes the park return at once, so no task is overlooked. The channel's own
//! blocking calls would do, but yield a few times before they sleep. With more busy threads than cores that is
//! dear: on Linux 6.18 a thread that had run for microseconds and yielded waited for milliseconds, most of the
//! time it was there.

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};

/// The side of whoever gives tasks. Dropped, it lets the thread end on its own.
pub(super) struct Worker<T> {
    /// `None` once the thread has been told to end.
    tasks: Option<Sender<T>>,
    thread: JoinHandle<()>,
}

/// The side of the thread.
pub(super) struct Tasks<T>(Receiver<T>);

/// What a thread that does not want to sleep for ever is to do.
pub(super) enum Next<T> {
    Task(T),
    /// Nothing came in time.
    Idle,
    End,
}

impl<T: Send + 'static> Worker<T> {
    /// Starts a thread that may have `bound` tasks waiting.
    ///
    /// # Errors
    /// When the system has no thread for us.
    pub(super) fn spawn(
        name: &str,
        bound: usize,
        work: impl FnOnce(Tasks<T>) + Send + 'static,
    ) -> io::Result<Self> {
        let (tasks, queue) = bounded(bound);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(Tasks(queue)))?;
        Ok(Self {
            tasks: Some(tasks),
            thread,
        })
    }

    /// Gives the thread a task.
    ///
    /// # Panics
    /// If it has ended, or has as many already as were agreed: whoever gives tasks counts them.
    pub(super) fn give(&self, task: T) {
        let tasks = self.tasks.as_ref().expect("not while stopping");
        let thread = self.thread.thread();
        let name = || thread.name().unwrap_or_default();
        match tasks.try_send(task) {
            Ok(()) => thread.unpark(),
            Err(TrySendError::Full(_)) => panic!("more tasks for the {} than were agreed", name()),
            Err(TrySendError::Disconnected(_)) => panic!("the {} thread is gone", name()),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.tasks.is_none()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

impl<T> Worker<T> {
    /// Lets the thread end when it has done what waits.
    pub(super) fn close(&mut self) {
        self.tasks = None;
        self.thread.thread().unpark();
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> Tasks<T> {
    /// The next task; `None` when there will be none any more.
    pub(super) fn next(&self) -> Option<T> {
        loop {
            match self.0.try_recv() {
                Ok(task) => return Some(task),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => std::thread::park(),
            }
        }
    }

    /// The next task, if it comes within this time.
    pub(super) fn next_within(&self, time: Duration) -> Next<T> {
        let until = Instant::now() + time;
        loop {
            match self.0.try_recv() {
                Ok(task) => return Next::Task(task),
                Err(TryRecvError::Disconnected) => return Next::End,
                Err(TryRecvError::Empty) => {}
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Next::Idle;
            }
            std::thread::park_timeout(left);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn a_sleeping_thread_gets_every_task_and_ends_when_told() {
        let (done, seen) = mpsc::channel();
        let mut worker = Worker::spawn("test", 2, move |tasks: Tasks<u32>| {
            while let Some(task) = tasks.next() {
                done.send(task).unwrap();
            }
        })
        .unwrap();
        for task in 0..1000 {
            worker.give(task);
            assert_eq!(seen.recv_timeout(PATIENCE), Ok(task));
        }
        assert!(!worker.has_ended());
        worker.close();
        let end = seen.recv_timeout(PATIENCE);
        assert_eq!(end, Err(mpsc::RecvTimeoutError::Disconnected));
    }

    #[test]
    fn what_waits_is_done_before_the_end() {
        let (done, seen) = mpsc::channel();
        let (begin, began) = mpsc::channel();
        let worker = Worker::spawn("test", 3, move |tasks: Tasks<u32>| {
            began.recv_timeout(PATIENCE).unwrap();
            while let Some(task) = tasks.next() {
                done.send(task).unwrap();
            }
        })
        .unwrap();
        (0..3).for_each(|task| worker.give(task));
        drop(worker);
        begin.send(()).unwrap();
        assert_eq!(seen.iter().collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn a_thread_with_nothing_to_do_is_told_so_in_time() {
        let (done, seen) = mpsc::channel();
        let worker = Worker::spawn("test", 1, move |tasks: Tasks<u32>| {
            loop {
                let what = match tasks.next_within(Duration::from_millis(5)) {
                    Next::Task(task) => Some(task),
                    Next::Idle => None,
                    Next::End => return,
                };
                if done.send(what).is_err() {
                    return;
                }
            }
        })
        .unwrap();
        assert_eq!(seen.recv_timeout(PATIENCE), Ok(None));
        worker.give(7);
        let come = seen.iter().find(Option::is_some);
        assert_eq!(come, Some(Some(7)));
        drop(worker);
        assert!(seen.iter().all(|what| what.is_none()));
    }

    #[test]
    #[should_panic(expected = "more tasks for the test than were agreed")]
    fn more_tasks_than_agreed_are_a_mistake() {
        let (_begin, began) = mpsc::channel::<()>();
        let worker = Worker::spawn("test", 1, move |_tasks: Tasks<u32>| {
            let _ = began.recv_timeout(PATIENCE);
        })
        .unwrap();
        worker.give(1);
        worker.give(2);
    }
}
