//! The journal on real files, under the build's own directory (a temporary directory may be
//! memory, which has no direct I/O).

#![allow(clippy::disallowed_methods, reason = "a test of the real world")]

use std::fs;
use std::path::Path;

use stampede_journal::device::files::{Files, FilesError, segment_name};
use stampede_journal::device::uring::UringDevice;
use stampede_journal::device::{Completion, Device};
use stampede_journal::{
    AlignedBuffer, AppendError, Config, Journal, Location, SECTOR, Xxh3, checksum_payload,
};

const CONFIG: Config = Config {
    id: 77,
    segment_size: 1 << 20,
    segment_count: 4,
    inflight_bytes_max: 512 << 10,
};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory is writable")
}

fn payload(tag: u64) -> Vec<u8> {
    let size = usize::try_from(tag * 7919 % 100_000).expect("small");
    (0..size)
        .map(|index| (index as u64 * 31 + tag).to_le_bytes()[0])
        .collect()
}

fn settle(journal: &mut Journal, device: &mut UringDevice<AlignedBuffer>) {
    let mut done: Vec<Completion<AlignedBuffer>> = Vec::new();
    device.wait(&mut done).expect("a working ring");
    for completion in done {
        journal
            .on_written(completion.token, completion.result)
            .expect("a working disk");
    }
}

/// Appends tags, trimming when full so that only the newest stay; gives what is still kept.
fn fill(
    journal: &mut Journal,
    device: &mut UringDevice<AlignedBuffer>,
    tags: std::ops::Range<u64>,
) -> Vec<(u64, Location)> {
    let mut log: Vec<(u64, Location)> = Vec::new();
    for tag in tags {
        let bytes = payload(tag);
        let (location, op) = loop {
            let buffer = AlignedBuffer::with_payload(&bytes);
            match journal.append(tag, bytes.len(), checksum_payload(&bytes), buffer) {
                Ok(appended) => break appended,
                Err(AppendError::InflightLimit) => settle(journal, device),
                Err(AppendError::Full) => {
                    while journal.inflight() > 0 {
                        settle(journal, device);
                    }
                    let durable = journal.durable();
                    let middle = log.get(log.len() / 2);
                    journal.trim(middle.map_or(durable, |(_, kept)| kept.position));
                    let oldest = journal.oldest();
                    log.retain(|(_, location)| location.position >= oldest);
                }
                Err(error) => panic!("{error}"),
            }
        };
        log.push((tag, location));
        let mut op = Some(op);
        while let Some(refused) = op.take() {
            if let Err(refused) = device.submit(refused) {
                settle(journal, device);
                op = Some(refused);
            }
        }
    }
    while journal.inflight() > 0 {
        settle(journal, device);
    }
    log
}

#[test]
fn what_was_durable_is_found_again_over_many_laps() {
    let dir = directory();
    let mut progress = Vec::new();
    let files = Files::create(dir.path(), &CONFIG, |done, all| progress.push((done, all)));
    assert_eq!(progress.last(), Some(&(4 << 20, 4 << 20)));
    let mut device = UringDevice::new(files.expect("a disk"), 8).expect("a kernel with io_uring");
    let mut log = Vec::new();
    for round in 0..4_u64 {
        let start = log
            .first()
            .map(|(_, location): &(u64, Location)| location.position);
        let mut found = Vec::new();
        let (mut journal, recovery) = Journal::open(CONFIG, &mut device, &Xxh3, start, |entry| {
            assert_eq!(entry.payload, payload(entry.tag));
            found.push((entry.tag, entry.location));
        })
        .expect("a journal that opens");
        assert_eq!(recovery.corruptions, []);
        assert_eq!(recovery.torn, None);
        assert_eq!(found, log);
        log.retain(|(_, location)| location.position >= journal.oldest());
        let more = fill(&mut journal, &mut device, round * 150..(round + 1) * 150);
        log.retain(|(_, location)| location.position >= journal.oldest());
        log.extend(more);
        drop(device);
        device = UringDevice::new(Files::open(dir.path(), &CONFIG).expect("files"), 8)
            .expect("a kernel with io_uring");
    }
}

#[test]
fn files_in_use_are_locked() {
    let dir = directory();
    let files = Files::create(dir.path(), &CONFIG, |_, _| {}).expect("a disk");
    let error = Files::open(dir.path(), &CONFIG).expect_err("locked");
    assert!(matches!(error, FilesError::Locked { .. }), "{error}");
    drop(files);
    Files::open(dir.path(), &CONFIG).expect("free again");
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let dir = directory();
    let path = |index| dir.path().join(segment_name(index));
    drop(Files::create(dir.path(), &CONFIG, |_, _| {}).expect("a disk"));
    let error = Files::create(dir.path(), &CONFIG, |_, _| {}).expect_err("it exists");
    assert!(
        matches!(&error, FilesError::Exists { path: found } if *found == path(0)),
        "{error}"
    );
    let open = |config| Files::open(dir.path(), &config).expect_err("does not fit");
    let error = open(Config {
        segment_size: 2 << 20,
        ..CONFIG
    });
    assert!(
        matches!(
            error,
            FilesError::Size {
                found: 0x10_0000,
                ..
            }
        ),
        "{error}"
    );
    let error = open(Config {
        segment_count: 3,
        ..CONFIG
    });
    assert!(
        matches!(error, FilesError::Size { expected: 0, .. }),
        "{error}"
    );
    let error = open(Config {
        segment_count: 5,
        ..CONFIG
    });
    assert!(
        matches!(error, FilesError::Missing { expected: 5, .. }),
        "{error}"
    );
    fs::remove_file(path(2)).expect("a file");
    let error = open(CONFIG);
    assert!(matches!(&error, FilesError::Missing { path: found, .. } if *found == path(2)));
}

#[test]
fn a_disk_without_room_is_found_out_before_anything_is_left_behind() {
    let dir = directory();
    let size = 1 << 40;
    let config = Config {
        segment_size: size,
        segment_count: 4096,
        ..CONFIG
    };
    let error = Files::create(dir.path(), &config, |_, _| panic!("too late")).expect_err("no room");
    assert!(
        matches!(error, FilesError::NoSpace { needed, .. } if needed == size * 4096),
        "{error}"
    );
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
}

#[test]
fn memory_is_no_place_for_a_journal() {
    let shm = Path::new("/dev/shm");
    let Ok(dir) = tempfile::tempdir_in(shm) else {
        return;
    };
    let error = Files::create(dir.path(), &CONFIG, |_, _| {}).expect_err("memory");
    assert!(matches!(error, FilesError::NoDirectIo { .. }), "{error}");
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
}

#[test]
fn a_write_beyond_the_file_is_a_fault_not_a_panic() {
    let dir = directory();
    let files = Files::create(dir.path(), &CONFIG, |_, _| {}).expect("a disk");
    let mut device = UringDevice::new(files, 8).expect("a kernel with io_uring");
    let (mut journal, _) =
        Journal::open(CONFIG, &mut device, &Xxh3, None, |_| {}).expect("an empty journal");
    let buffer = AlignedBuffer::with_payload(b"entry");
    let (_, mut op) = journal
        .append(1, 5, checksum_payload(b"entry"), buffer)
        .expect("room");
    op.offset += 1;
    let token = op.token;
    device.submit(op).expect("room in the ring");
    let mut done: Vec<Completion<AlignedBuffer>> = Vec::new();
    device.wait(&mut done).expect("a working ring");
    let fault = journal
        .on_written(token, done.remove(0).result)
        .expect_err("misaligned");
    assert!(fault.to_string().contains("misaligned"), "{fault}");
    assert_eq!(journal.accepts(SECTOR), Err(AppendError::Fenced));
}
