//! The journal as its callers see it: appending, completing, trimming, reopening; no faults here
//! but those a caller meets every day.

mod model;

use model::{Frame, Model, S, config, payload};
use stampede_journal::device::memory::{Image, MemoryDevice};
use stampede_journal::{AppendError, Config, Fault, Journal, OpenError, SECTOR, Xxh3};

#[test]
fn an_empty_journal_is_empty() {
    let model = Model::new(config(8, 3, 8));
    assert_eq!(model.recovery.entries, 0);
    assert_eq!(model.recovery.torn, None);
    assert_eq!(model.journal.durable(), 0);
    assert_eq!(model.journal.durable_tag(), None);
    assert_eq!(model.journal.free_bytes(), 24 * S);
    assert!(!model.journal.marker_due());
}

#[test]
fn entries_come_back_byte_for_byte() {
    let mut model = Model::new(config(64, 3, 64));
    for (tag, size) in [0, 1, 255, 3840, 3841, 4096, 10_000, 65_536]
        .into_iter()
        .enumerate()
    {
        model
            .append(tag as u64, &payload(tag as u64, size))
            .expect("room");
    }
    model.complete_all();
    let log = model.log.clone();
    for entry in &log {
        assert_eq!(
            model.read(entry.location),
            entry.found().map(|entry| entry.payload)
        );
    }
    let model = model.reopen(|_| false);
    assert_eq!(model.found.len(), log.len());
    assert_eq!(model.journal.durable_tag(), Some(7));
    assert_eq!(model.recovery.corruptions, []);
    assert_eq!(model.recovery.torn, None);
}

#[test]
fn the_durable_point_is_contiguous() {
    let mut model = Model::new(config(16, 2, 16));
    for tag in 1..=4 {
        model.append(tag, b"entry").expect("room");
    }
    // Tokens count from 1.
    model.complete(3);
    model.complete(2);
    assert_eq!(model.journal.durable(), 0);
    assert_eq!(model.journal.inflight(), 4);
    model.complete(1);
    assert_eq!(model.journal.durable(), 3 * S);
    assert_eq!(model.journal.durable_tag(), Some(3));
    assert_eq!(model.journal.durable_sequence(), 3);
    assert_eq!(model.journal.inflight(), 1);
    model.complete(4);
    assert_eq!(model.journal.durable(), model.journal.head());
    assert!(model.journal.marker_due());
    model.mark().expect("room");
    model.complete_all();
    assert!(
        !model.journal.marker_due(),
        "a marker does not call for another"
    );
}

#[test]
fn a_full_journal_refuses_until_it_is_trimmed() {
    let mut model = Model::new(config(4, 3, 8));
    for lap in 0..10_u64 {
        let mut last = None;
        while model
            .append(lap, &payload(lap, 5000))
            .map(|location| last = Some(location))
            .is_ok()
        {
            model.complete_all();
        }
        assert_eq!(model.append(0, b""), Err(AppendError::Full));
        let last = last.expect("room after a trim");
        assert_eq!(model.read(last), Some(payload(lap, 5000)));
        model.journal.trim(last.position);
        assert!(model.journal.oldest() <= last.position);
        assert_eq!(
            model.read(last),
            Some(payload(lap, 5000)),
            "its segment is kept"
        );
    }
    let oldest = model.journal.oldest();
    assert!(
        model
            .log
            .iter()
            .any(|entry| entry.location.position < oldest)
    );
    for entry in model.log.clone() {
        assert_eq!(
            model.read(entry.location).is_some(),
            entry.location.position >= oldest
        );
    }
}

#[test]
fn what_is_in_flight_is_bounded() {
    let mut model = Model::new(config(16, 4, 6));
    let limit = AppendError::InflightLimit;
    assert_eq!(
        model.append(1, &payload(1, 6 * SECTOR)).unwrap_err(),
        AppendError::TooLarge {
            size: 6 * SECTOR,
            max: 6 * SECTOR - 256
        }
    );
    model
        .append(1, &payload(1, 3 * SECTOR))
        .expect("four sectors");
    assert_eq!(model.append(2, &payload(2, 3 * SECTOR)), Err(limit));
    model.append(3, b"").expect("one sector");
    model.append(4, b"").expect("one sector");
    assert_eq!(model.append(5, b""), Err(limit));
    model.complete(1);
    model.append(5, b"").expect("room");
}

#[test]
fn one_frame_always_fits_when_nothing_is_in_flight() {
    // Four sectors of limit; the frame skips three unused ones at the end of the segment.
    let mut model = Model::new(config(7, 3, 4));
    for _ in 0..4 {
        model.append(1, b"").expect("room");
        model.complete_all();
    }
    let location = model.append(2, &payload(2, 3 * SECTOR)).expect("room");
    assert_eq!(location.position, 7 * S);
    let model = model.reopen(|_| true);
    assert_eq!(model.found.len(), 5);
    assert_eq!(model.recovery.corruptions, []);
}

#[test]
fn a_failed_write_fences_for_ever() {
    type Break = fn(&mut MemoryDevice);
    let cases: [(Break, Fault); 5] = [
        (
            |device| device.fail(2, libc::EIO),
            Fault::Io {
                position: S,
                errno: libc::EIO,
            },
        ),
        (
            |device| device.fail(2, libc::ENOSPC),
            Fault::NoSpace { position: S },
        ),
        (
            |device| device.fail(2, libc::EDQUOT),
            Fault::NoSpace { position: S },
        ),
        (
            |device| device.fail(2, libc::EINVAL),
            Fault::Misaligned { position: S },
        ),
        (
            |device| device.shorten(2, 512),
            Fault::Short {
                position: S,
                expected: 4096,
                written: 512,
            },
        ),
    ];
    for (break_write, fault) in cases {
        let mut model = Model::new(config(16, 2, 16));
        for tag in 1..=4 {
            model.append(tag, &payload(tag, 1000)).expect("room");
        }
        break_write(&mut model.device);
        model.complete(1);
        let failed = model.device.complete(2);
        assert_eq!(model.journal.on_written(2, failed.result), Err(fault));
        for token in [4, 3] {
            let done = model.device.complete(token);
            assert_eq!(model.journal.on_written(token, done.result), Err(fault));
        }
        assert_eq!(model.journal.fault(), Some(fault));
        assert_eq!(
            model.journal.durable(),
            S,
            "nothing behind the failure is acknowledged"
        );
        assert_eq!(model.append(5, b""), Err(AppendError::Fenced));
        assert!(!model.journal.marker_due());
        assert!(
            fault.to_string().contains("4096"),
            "the message says where: {fault}"
        );
        // The failed write left nothing (or part of a sector); the entries behind it are cut.
        let model = model.open_image(model.device.image().clone(), None);
        assert_eq!(model.found.len(), 1);
        assert_eq!(model.recovery.corruptions, []);
    }
}

#[test]
#[should_panic(expected = "is not in flight")]
fn a_write_completes_once() {
    let mut model = Model::new(config(16, 2, 16));
    model.append(1, b"a").expect("room");
    model.append(2, b"b").expect("room");
    model.complete(2);
    let _ = model.journal.on_written(2, Ok(SECTOR));
}

#[test]
fn opening_from_a_checkpoint_visits_only_what_follows() {
    let mut model = Model::new(config(8, 3, 8));
    for tag in 0..20 {
        model.append(tag, &payload(tag, 100)).expect("room");
        model.complete_all();
    }
    let image = model.device.image().clone();
    for (index, entry) in model.log.iter().enumerate() {
        let start = Some(entry.location.position);
        let opened = Model::open(model.config, image.clone(), start);
        let expected: Vec<_> = model.log[index..].iter().filter_map(Frame::found).collect();
        assert_eq!(opened.found, expected);
        assert_eq!(opened.recovery.head, model.journal.head());
        assert_eq!(
            opened.journal.oldest() / opened.config.segment_size,
            index as u64 / 8
        );
    }
}

#[test]
fn a_checkpoint_at_the_very_end_keeps_the_counters() {
    for count in [3_u64, 8, 11, 16] {
        let mut model = Model::new(config(8, 3, 8));
        for tag in 0..count {
            model.append(tag, b"").expect("room");
            model.complete_all();
        }
        let head = model.journal.head();
        let image = model.device.image().clone();
        let mut opened = model.open_image(image, Some(head));
        assert_eq!(opened.found, []);
        let marker = u64::from(opened.journal.head() > head);
        assert_eq!(
            opened.journal.durable_sequence(),
            count + marker,
            "at {head}"
        );
        opened.append(count, b"next").expect("room");
        let image = opened.crash_image(|_| true);
        let opened = opened.open_image(image, Some(head));
        assert_eq!(
            opened.found.last().expect("an entry").sequence,
            count + marker + 1
        );
        assert_eq!(opened.recovery.corruptions, []);
    }
}

#[test]
fn the_wrong_files_are_refused() {
    let mut model = Model::new(config(8, 3, 8));
    for tag in 0..12 {
        model.append(tag, b"").expect("room");
        model.complete_all();
    }
    let mut open = |config: Config, start| {
        Journal::open(config, &mut model.device, &Xxh3, start, |_| {})
            .map(|_| ())
            .unwrap_err()
    };
    let good = config(8, 3, 8);
    assert!(matches!(
        open(Config { id: 7, ..good }, None),
        OpenError::Foreign { found: 0x5eed, .. }
    ));
    assert!(matches!(
        open(
            Config {
                segment_size: 4 * S,
                ..good
            },
            None
        ),
        OpenError::Geometry
    ));
    assert!(matches!(
        open(
            Config {
                segment_count: 2,
                ..good
            },
            None
        ),
        OpenError::Geometry
    ));
    assert!(matches!(
        open(Config { id: 0, ..good }, None),
        OpenError::Config(_)
    ));
    assert!(matches!(open(good, Some(S + 1)), OpenError::Start { .. }));
    assert!(matches!(
        open(good, Some(u64::MAX)),
        OpenError::Start { .. }
    ));
    assert!(matches!(open(good, Some(900 * S)), OpenError::Blank { .. }));
    let mut blank: MemoryDevice = MemoryDevice::from_image(Image::new(&good));
    let error = Journal::open(good, &mut blank, &Xxh3, Some(9 * S), |_| {}).unwrap_err();
    assert!(matches!(error, OpenError::Blank { start } if start == 9 * S));
}

#[test]
fn a_checkpoint_older_than_the_log_is_refused() {
    let mut model = Model::new(config(4, 3, 4));
    for tag in 0..40 {
        model.append(tag, b"").expect("room");
        model.complete_all();
        model.journal.trim(model.journal.durable());
    }
    let mut device: MemoryDevice = MemoryDevice::from_image(model.device.image().clone());
    let error = Journal::open(model.config, &mut device, &Xxh3, Some(0), |_| {}).unwrap_err();
    assert!(matches!(error, OpenError::StartOverwritten { start: 0, oldest } if oldest == 28 * S));
    let opened = Model::open(model.config, model.device.image().clone(), Some(28 * S));
    assert_eq!(opened.found.len(), 12);
}
