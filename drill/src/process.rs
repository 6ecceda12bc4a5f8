//! A child process that never outlives the drill, and what it says on standard error.
//!
//! The kernel kills it when the thread that started it ends, for whatever reason: an error, a panic,
//! a second Ctrl-C, kill -9. Each line is kept with the instant at which it was said, and goes to the
//! replica's log file too.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use stampede_bench::engine::Clock;
use stampede_bench::pace::Nanos;

use crate::trouble::Trouble;

/// Lines kept in memory; a replica that says more still says it to its file.
const LINES_MAX: usize = 10_000;
/// A longer line is cut: log lines are for people.
const LINE_SIZE_MAX: usize = 4096;

#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) at: Nanos,
    pub(crate) text: String,
}

#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<Line>>>,
}

impl Process {
    /// Starts `command`; `log` gets what it writes to standard error.
    pub(crate) fn start(mut command: Command, log: File, clock: Clock) -> Result<Self, Trouble> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C is for the drill, which then ends its replicas.
            .process_group(0);
        end_with_this_thread(&mut command);
        let mut child = command.spawn().map_err(|error| {
            let program = command.get_program().to_string_lossy().into_owned();
            Trouble::failed(format!("cannot run {program}: {error}"))
        })?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let stderr = child.stderr.take().expect("it was asked for");
        std::thread::spawn({
            let lines = Arc::clone(&lines);
            move || listen(stderr, log, clock, &lines)
        });
        Ok(Self { child, lines })
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        // It can fail only for a process that is not our child.
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal; to a process that has ended, nothing.
    pub(crate) fn signal(&mut self, signal: i32) {
        if self.ended().is_some() {
            return;
        }
        let pid = i32::try_from(self.child.id()).expect("a process id");
        // SAFETY: no memory is involved; it is our own child and has not been waited for, so the id
        // cannot be another's.
        unsafe { libc::kill(pid, signal) };
    }

    /// Waits for the end; to be called when it has been told to end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child
            .wait()
            .unwrap_or_else(|_| ExitStatus::from_raw(0))
    }

    /// The first line from `start` on that holds `text`.
    pub(crate) fn said(&self, text: &str, start: Nanos) -> Option<Line> {
        let lines = self.lines.lock().expect("listeners do not panic");
        let mut late = lines.iter().filter(|line| line.at >= start);
        late.find(|line| line.text.contains(text)).cloned()
    }

    /// The last line that holds one of these texts.
    pub(crate) fn said_last(&self, texts: &[&str]) -> Option<Line> {
        let lines = self.lines.lock().expect("listeners do not panic");
        let holds = |line: &&Line| texts.iter().any(|text| line.text.contains(text));
        lines.iter().rev().find(holds).cloned()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The last lines, for a person who wonders what went wrong.
    pub(crate) fn tail(&self, count: usize) -> String {
        let lines = self.lines.lock().expect("listeners do not panic");
        let tail = &lines[lines.len().saturating_sub(count)..];
        let texts: Vec<&str> = tail.iter().map(|line| line.text.as_str()).collect();
        texts.join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(libc::SIGKILL);
        self.wait();
    }
}

/// Runs a small program of the system to its end; why it failed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program} cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{program} {}: {}",
        arguments.join(" "),
        said.trim()
    ))
}

/// Has the kernel kill the child when the thread that starts it ends.
pub(crate) fn end_with_this_thread(command: &mut Command) {
    let ask = || {
        // SAFETY: prctl with these arguments changes one flag of the calling process.
        let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        if result == 0 {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    };
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(ask) };
}

fn listen(stderr: ChildStderr, mut log: File, clock: Clock, lines: &Mutex<Vec<Line>>) {
    let mut reader = BufReader::new(stderr);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match reader.read_until(b'\n', &mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        // A log that cannot be written must not stop the replica: the lines in memory remain.
        let _ = log.write_all(&bytes);
        let at = clock.now();
        let end = bytes.len().min(LINE_SIZE_MAX);
        let text = String::from_utf8_lossy(&bytes[..end]).trim_end().to_owned();
        let mut lines = lines.lock().expect("listeners do not panic");
        if lines.len() < LINES_MAX {
            lines.push(Line { at, text });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let log = tempfile::tempfile().unwrap();
        Process::start(command, log, Clock::start()).unwrap()
    }

    fn wait_for(mut condition: impl FnMut() -> bool) {
        for _ in 0..1000 {
            if condition() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it never happened");
    }

    #[test]
    fn lines_are_kept_and_ends_are_seen() {
        let mut process = shell("echo one >&2; echo two >&2; exit 3");
        wait_for(|| process.said("two", 0).is_some());
        assert_eq!(process.said("one", 0).unwrap().text, "one");
        assert!(process.said("one", Nanos::MAX).is_none());
        wait_for(|| process.ended().is_some());
        assert_eq!(process.ended().unwrap().code(), Some(3));
    }

    #[test]
    fn a_process_goes_with_the_thread_that_started_it() {
        let process = std::thread::spawn(|| shell("exec sleep 1000")).join();
        let mut process = process.unwrap();
        wait_for(|| process.ended().is_some());
        assert_eq!(process.ended().unwrap().signal(), Some(libc::SIGKILL));
    }
}
