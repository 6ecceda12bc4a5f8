//! The journal against fio: the same writes on the same file system in the same minutes.
//!
//! ```text
//! cargo run --release -p stampede-journal --example bench -- [--dir DIR] [--seconds N] [--rounds N]
//! ```
//!
//! Both write in place to preallocated, zeroed files with direct I/O and a data sync on every
//! write, through io_uring with registered files and buffers, at the same depths. Rounds alternate
//! between the two, because disks of virtual machines change their mood; the medians are compared.
//! Payload checksums are the caller's, who has them from receiving the payload; one row shows the
//! journal with a caller that makes them here. At the end the log is read back.
//!
//! A figure holds for one machine; the ratio is what says something of the journal.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark: it reads the clock, prints, and stops where anything fails"
)]

use std::fs;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use stampede_journal::device::files::Files;
use stampede_journal::device::uring::UringDevice;
use stampede_journal::device::{Completion, Device};
use stampede_journal::{
    AlignedBuffer, AppendError, Config, FRAME_HEADER_SIZE, FrameBuffer, Journal, Xxh3,
    checksum_payload,
};

const MIB: usize = 1 << 20;
const CONFIG: Config = Config {
    id: 0x0062_656e_6368,
    segment_size: 256 << 20,
    segment_count: 4,
    inflight_bytes_max: 48 << 20,
};
/// Huge pages are this large; a buffer inside one is one segment for the device.
const HUGE: usize = 2 * MIB;

struct Case {
    name: &'static str,
    write_size: usize,
    depth: u32,
    /// Our throughput must be at least this part of fio's.
    target: Option<f64>,
    hash: bool,
}

const CASES: [Case; 6] = [
    Case {
        name: "1 MiB, depth 1",
        write_size: MIB,
        depth: 1,
        target: Some(0.9),
        hash: false,
    },
    Case {
        name: "1 MiB, depth 2",
        write_size: MIB,
        depth: 2,
        target: Some(0.9),
        hash: false,
    },
    Case {
        name: "1 MiB, depth 4",
        write_size: MIB,
        depth: 4,
        target: Some(0.9),
        hash: false,
    },
    Case {
        name: "1 MiB, depth 4, hashing",
        write_size: MIB,
        depth: 4,
        target: None,
        hash: true,
    },
    Case {
        name: "4 KiB, depth 1",
        write_size: 4096,
        depth: 1,
        target: Some(0.8),
        hash: false,
    },
    Case {
        name: "4 KiB, depth 32",
        write_size: 4096,
        depth: 32,
        target: Some(0.8),
        hash: false,
    },
];

/// Writes per second, and latencies in microseconds.
#[derive(Clone, Copy)]
struct Figures {
    rate: f64,
    p50: f64,
    p99: f64,
    p999: f64,
}

struct Options {
    dir: PathBuf,
    seconds: u64,
    rounds: usize,
}

fn main() {
    let options = options();
    let dir = tempfile::tempdir_in(&options.dir).expect("a directory that can be written");
    let fio = prepare_fio(dir.path());
    let config = CONFIG;
    println!(
        "formatting {} MiB in {}",
        config.capacity() >> 20,
        dir.path().display()
    );
    drop(Files::create(dir.path(), &config, |_, _| {}).unwrap_or_else(|error| panic!("{error}")));
    println!(
        "{:?}",
        Files::open(dir.path(), &config).expect("just made").cache()
    );

    let time = Duration::from_secs(options.seconds);
    let mut failed = false;
    println!(
        "{:<24} {:<8} {:>10} {:>10} {:>9} {:>9} {:>9}",
        "case", "who", "writes/s", "MB/s", "p50 us", "p99 us", "p99.9 us"
    );
    for case in &CASES {
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for _ in 0..options.rounds {
            ours.push(run_ours(dir.path(), case, time));
            theirs.extend(
                fio.as_deref()
                    .map(|file| run_fio(file, case, options.seconds)),
            );
        }
        let journal = median(&ours);
        print_row(case, "journal", journal);
        if theirs.is_empty() {
            continue;
        }
        let fio = median(&theirs);
        print_row(case, "fio", fio);
        let ratio = journal.rate / fio.rate;
        let verdict = match case.target {
            Some(target) if ratio < target => {
                failed = true;
                format!("below the target of {target}")
            }
            Some(target) => format!("target {target}"),
            None => "no target".to_owned(),
        };
        println!("{:<24} {:<8} {ratio:>10.2}   {verdict}", "", "ratio");
    }
    read_back(dir.path());
    if failed {
        println!("a target was missed");
    }
}

fn options() -> Options {
    let mut options = Options {
        dir: PathBuf::from("."),
        seconds: 3,
        rounds: 3,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next();
        let value = value.unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--dir" => options.dir = PathBuf::from(value),
            "--seconds" => options.seconds = value.parse().expect("a number of seconds"),
            "--rounds" => options.rounds = value.parse().expect("a number of rounds"),
            _ => panic!("{argument}: unknown; there are --dir, --seconds and --rounds"),
        }
    }
    options
}

fn median(figures: &[Figures]) -> Figures {
    let mut figures = figures.to_vec();
    figures.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    figures[figures.len() / 2]
}

#[allow(clippy::cast_precision_loss, reason = "a size in a table")]
fn print_row(case: &Case, who: &str, figures: Figures) {
    println!(
        "{:<24} {who:<8} {:>10.0} {:>10.1} {:>9.0} {:>9.0} {:>9.0}",
        case.name,
        figures.rate,
        figures.rate * case.write_size as f64 / 1e6,
        figures.p50,
        figures.p99,
        figures.p999
    );
}

/// Memory for all buffers of a run: one mapping, in huge pages where the system has them.
struct Arena {
    start: *mut u8,
    len: usize,
}

impl Arena {
    fn new(len: usize) -> Self {
        let len = len.next_multiple_of(HUGE);
        let layout = std::alloc::Layout::from_size_align(len, HUGE).expect("a sane size");
        // SAFETY: the size is not zero.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        assert!(!start.is_null(), "no memory");
        // SAFETY: the range was just allocated; the advice changes no contents.
        unsafe { libc::madvise(start.cast(), len, libc::MADV_HUGEPAGE) };
        // SAFETY: as above; touching it all before the clock runs.
        unsafe { start.write_bytes(0x5a, len) };
        Self { start, len }
    }
}

/// A part of the arena, which is never freed.
#[derive(Clone, Copy)]
struct Part {
    start: *mut u8,
    len: usize,
    registered: Option<u16>,
    /// When its write was begun.
    since: Instant,
}

// SAFETY: parts are cut from one leaked, initialised allocation at multiples of their length, a
// multiple of 4096; each is in one write at a time; the registered index covers the whole arena.
unsafe impl FrameBuffer for Part {
    fn as_mut_ptr(&self) -> *mut u8 {
        self.start
    }

    fn capacity(&self) -> usize {
        self.len
    }

    fn registered(&self) -> Option<u16> {
        self.registered
    }
}

fn run_ours(dir: &Path, case: &Case, time: Duration) -> Figures {
    let files = Files::open(dir, &CONFIG).unwrap_or_else(|error| panic!("{error}"));
    let mut device: UringDevice<Part> =
        UringDevice::new(files, case.depth).unwrap_or_else(|error| panic!("{error}"));
    let depth = case.depth as usize;
    let arena = Arena::new(case.write_size * depth);
    // SAFETY: the arena is never freed.
    let registered = unsafe { device.register_memory(&[(arena.start, arena.len)]) };
    let registered = registered.expect("a ring").then_some(0);
    let mut free: Vec<Part> = (0..depth)
        .map(|index| {
            // SAFETY: the arena holds `depth` parts of this size.
            let start = unsafe { arena.start.add(index * case.write_size) };
            Part {
                start,
                len: case.write_size,
                registered,
                since: Instant::now(),
            }
        })
        .collect();

    let (mut journal, _) =
        Journal::open(CONFIG, &mut device, &Xxh3, None, |_| {}).expect("a sound journal");
    let payload_size = case.write_size - FRAME_HEADER_SIZE;
    let checksum = checksum_payload(&vec![0x5a; payload_size]);
    let mut latencies = Histogram::<u64>::new(3).expect("a sane precision");
    let mut done: Vec<Completion<Part>> = Vec::new();
    let mut tag = 0;
    let start = Instant::now();
    loop {
        let going_on = start.elapsed() < time;
        while going_on && let Some(mut part) = free.pop() {
            tag += 1;
            part.since = Instant::now();
            let checksum = if case.hash {
                hash(&part, payload_size)
            } else {
                checksum
            };
            let op = loop {
                match journal.append(tag, payload_size, checksum, part) {
                    Ok((_, op)) => break op,
                    Err(AppendError::Full) => journal.trim(journal.durable()),
                    Err(error) => panic!("{error}"),
                }
            };
            let submitted = device.submit(op);
            assert!(submitted.is_ok(), "the ring has room for every buffer");
        }
        if free.len() == depth {
            break;
        }
        device.wait(&mut done).expect("a ring");
        for completion in done.drain(..) {
            let latency = completion.buffer.since.elapsed();
            latencies
                .record(u64::try_from(latency.as_nanos()).unwrap())
                .unwrap();
            journal
                .on_written(completion.token, completion.result)
                .expect("a sound disk");
            free.push(completion.buffer);
        }
    }
    figures(&latencies, start.elapsed())
}

fn hash(part: &Part, payload_size: usize) -> u128 {
    // SAFETY: the part is initialised memory, and in no write.
    let frame = unsafe { std::slice::from_raw_parts(part.start, part.len) };
    checksum_payload(&frame[FRAME_HEADER_SIZE..][..payload_size])
}

#[allow(clippy::cast_precision_loss, reason = "figures in a table")]
fn figures(latencies: &Histogram<u64>, elapsed: Duration) -> Figures {
    let quantile = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
    Figures {
        rate: latencies.len() as f64 / elapsed.as_secs_f64(),
        p50: quantile(0.5),
        p99: quantile(0.99),
        p999: quantile(0.999),
    }
}

/// The file that fio writes to, zeroed like a segment; none if there is no fio.
fn prepare_fio(dir: &Path) -> Option<PathBuf> {
    if Command::new("fio").arg("--version").output().is_err() {
        println!("fio is not installed (apt-get install fio): nothing to compare with");
        return None;
    }
    let path = dir.join("fio.dat");
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path)
        .expect("a file system with direct I/O");
    let zeros = AlignedBuffer::new(4 * MIB);
    for offset in (0..CONFIG.capacity()).step_by(4 * MIB) {
        file.write_all_at(zeros.as_slice(), offset).expect("room");
    }
    file.sync_all().expect("a sound disk");
    Some(path)
}

fn run_fio(file: &Path, case: &Case, seconds: u64) -> Figures {
    let output = Command::new("fio")
        .args([
            "--name=journal",
            "--rw=write",
            "--ioengine=io_uring",
            "--direct=1",
        ])
        .args([
            "--sync=dsync",
            "--overwrite=1",
            "--fixedbufs=1",
            "--registerfiles=1",
        ])
        .args(["--thread", "--time_based", "--output-format=json"])
        .arg(format!("--filename={}", file.display()))
        .arg(format!("--size={}", CONFIG.capacity()))
        .arg(format!("--bs={}", case.write_size))
        .arg(format!("--iodepth={}", case.depth))
        .arg(format!("--runtime={seconds}"))
        .output()
        .expect("fio runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("fio's JSON");
    let write = &report["jobs"][0]["write"];
    let quantile = |name| {
        write["clat_ns"]["percentile"][name]
            .as_f64()
            .expect("a figure")
            / 1e3
    };
    Figures {
        rate: write["iops"].as_f64().expect("a figure"),
        p50: quantile("50.000000"),
        p99: quantile("99.000000"),
        p999: quantile("99.900000"),
    }
}

/// Reads the whole log back, as a restart would.
#[allow(clippy::cast_precision_loss, reason = "figures in a table")]
fn read_back(dir: &Path) {
    let mut files = Files::open(dir, &CONFIG).unwrap_or_else(|error| panic!("{error}"));
    let start = Instant::now();
    let (_, recovery) =
        Journal::open(CONFIG, &mut files, &Xxh3, None, |_| {}).expect("a sound journal");
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "read back: {} entries, {} MiB in {:.0} ms, {:.2} GB/s, checksums verified",
        recovery.entries,
        recovery.bytes_read >> 20,
        seconds * 1e3,
        recovery.bytes_read as f64 / 1e9 / seconds,
    );
}
