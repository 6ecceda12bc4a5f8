//! The journal on real files, under the build's own directory (a temporary directory may be
//! memory, which has no direct I/O).

#![allow(clippy::disallowed_methods, reason = "a test of the real world")]

use std::fs;
use std::path::Path;

use io_uring::IoUring;
use stampede_journal::device::files::{Files, FilesError, segment_name};
use stampede_journal::device::uring::{Target, UringDevice, read_entry, result_of, write_entry};
use stampede_journal::device::{Completion, Device};
use stampede_journal::{
    AlignedBuffer, AppendError, Config, FrameBuffer, Journal, Location, SECTOR, Xxh3,
    checksum_payload,
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

/// A buffer that is registered with the ring it is written through.
struct Registered {
    memory: AlignedBuffer,
    index: Option<u16>,
}

// SAFETY: as AlignedBuffer, whose memory does not move with the value; the index is the one under
// which the tests register exactly this memory.
unsafe impl FrameBuffer for Registered {
    fn as_mut_ptr(&self) -> *mut u8 {
        self.memory.as_mut_ptr()
    }

    fn capacity(&self) -> usize {
        self.memory.capacity()
    }

    fn registered(&self) -> Option<u16> {
        self.index
    }
}

fn iovec(buffer: &AlignedBuffer) -> libc::iovec {
    libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.capacity(),
    }
}

#[test]
fn the_callers_own_ring_writes_and_reads_frames() {
    let dir = directory();
    let mut files = Files::create(dir.path(), &CONFIG, |_, _| {}).expect("a disk");
    let (mut journal, _) =
        Journal::open(CONFIG, &mut files, &Xxh3, None, |_| {}).expect("an empty journal");
    let mut ring = IoUring::new(8).expect("a kernel with io_uring");
    let descriptors = files.descriptors();
    ring.submitter()
        .register_files(&descriptors)
        .expect("registered files");
    let memories: Vec<AlignedBuffer> = (0..4)
        .map(|tag| AlignedBuffer::with_payload(&payload(tag + 1)))
        .collect();
    let parts: Vec<libc::iovec> = memories.iter().map(iovec).collect();
    // SAFETY: the ring is dropped before the buffers' memory: by the end of this test both are
    // idle, and registration keeps the pages.
    unsafe { ring.submitter().register_buffers(&parts) }.expect("four small buffers");

    let mut run = |entry: io_uring::squeue::Entry| {
        // SAFETY: the buffer of the operation is alive and untouched until the wait below returns.
        unsafe { ring.submission().push(&entry) }.expect("an empty queue");
        ring.submit_and_wait(1).expect("a working ring");
        let done = ring.completion().next().expect("one completion");
        (done.user_data(), result_of(done.result()))
    };
    let mut log = Vec::new();
    for (tag, memory) in (1..).zip(memories) {
        let size = payload(tag).len();
        // All four combinations of registered and plain files and buffers.
        let index = u16::try_from(tag - 1).ok().filter(|index| index % 2 == 0);
        let checksum = checksum_payload(&payload(tag));
        let buffer = Registered { memory, index };
        let (location, op) = journal.append(tag, size, checksum, buffer).expect("room");
        let target = match tag {
            1 | 2 => Target::Fixed(op.file),
            _ => Target::Raw(descriptors[op.file as usize]),
        };
        let (token, result) = run(write_entry(&op, target));
        assert_eq!(token, op.token);
        journal.on_written(token, result).expect("a working disk");
        assert_eq!(journal.durable_tag(), Some(tag));
        log.push((location, op.buffer, target));
    }
    for (tag, (location, mut buffer, target)) in (1..).zip(log) {
        buffer.memory.as_mut_slice().fill(0);
        let extent = journal.locate(location).expect("not trimmed");
        let (_, result) = run(read_entry(&buffer, extent.offset, extent.len, target));
        assert_eq!(result.expect("a working disk"), extent.len);
        let bytes = &buffer.memory.as_slice()[..extent.len];
        let entry = journal
            .verify_read(location, bytes, &Xxh3)
            .expect("the entry");
        assert_eq!(entry.payload, payload(tag));
    }
}

#[test]
fn registered_memory_or_not_the_entry_is_written() {
    let dir = directory();
    let files = Files::create(dir.path(), &CONFIG, |_, _| {}).expect("a disk");
    let mut device: UringDevice<Registered> =
        UringDevice::new(files, 4).expect("a kernel with io_uring");
    assert!(device.files_registered());
    let memory = AlignedBuffer::with_payload(&payload(1));
    let parts = [(memory.as_mut_ptr(), memory.capacity())];
    // SAFETY: the memory outlives the device: it is handed to it and comes back.
    let registered = unsafe { device.register_memory(&parts) }.expect("a ring");
    let (mut journal, _) =
        Journal::open(CONFIG, &mut device, &Xxh3, None, |_| {}).expect("an empty journal");
    let buffer = Registered {
        memory,
        index: registered.then_some(0),
    };
    let checksum = checksum_payload(&payload(1));
    let (_, op) = journal
        .append(1, payload(1).len(), checksum, buffer)
        .expect("room");
    assert!(device.submit(op).is_ok());
    let mut done = Vec::new();
    device.wait(&mut done).expect("a ring");
    let completion = done.remove(0);
    journal
        .on_written(completion.token, completion.result)
        .expect("a working disk");
    assert_eq!(journal.durable_tag(), Some(1));
    drop(device);
    drop(completion.buffer);
}
