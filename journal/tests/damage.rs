//! Disks that lie: flipped bits, sectors that cannot be read, writes that were lost or went
//! elsewhere. Damage to what had been acknowledged must be reported where it is, with what it cost,
//! and everything else must still be found.

mod model;

use model::{Frame, Model, S, config, payload, place};
use stampede_journal::device::memory::{Image, MemoryDevice};
use stampede_journal::{Corruption, Damage, Journal, ReadError, SECTOR, Xxh3};

/// A log of two segments with an unused rest between them, entries of several sizes, a marker in
/// the middle and one at the end. Everything but the last marker is proven durable.
fn small_log() -> Model {
    let mut model = Model::new(config(8, 3, 12));
    for (tag, size) in [(1, 1), (2, 3), (3, 1)] {
        model.append_sectors(tag, size).expect("room");
    }
    model.complete_all();
    model.mark().expect("room");
    model.complete_all();
    for (tag, size) in [(4, 4), (5, 2)] {
        model.append_sectors(tag, size).expect("room");
        model.complete_all();
    }
    model.mark().expect("room");
    model.complete_all();
    model
}

fn entries(model: &Model, but: Option<&Frame>) -> Vec<u64> {
    let kept = model
        .log
        .iter()
        .filter(|frame| but.is_none_or(|but| but != *frame));
    kept.filter_map(|frame| Some(frame.found()?.tag)).collect()
}

fn tags(model: &Model) -> Vec<u64> {
    model.found.iter().map(|entry| entry.tag).collect()
}

/// Checks that one frame, and nothing else, is missing from what was recovered, and that this is
/// said exactly.
fn assert_reported(model: &Model, opened: &Model, hit: &Frame) -> Corruption {
    assert_eq!(tags(opened), entries(model, Some(hit)));
    let [corruption] = opened.recovery.corruptions[..] else {
        panic!("{:?}", opened.recovery.corruptions);
    };
    assert_eq!(corruption.position, hit.location.position);
    assert_eq!(corruption.entries, Some(u64::from(hit.entry.is_some())));
    assert_eq!(corruption.sequence_last, Some(hit.sequence));
    assert!(corruption.bytes >= u64::from(hit.location.size));
    assert_eq!(opened.recovery.torn, None);
    assert_eq!(opened.journal.head(), model.journal.head());
    assert_eq!(
        opened.journal.durable_sequence(),
        model.journal.durable_sequence()
    );
    corruption
}

#[test]
fn every_byte_of_a_small_log() {
    let model = small_log();
    let image = model.device.image();
    let last = model.log.last().expect("a marker");
    let mut hits = vec![0; model.log.len()];
    let mut unused = 0;
    for position in (0..16 * S).step_by(1) {
        let (file, offset) = place(&model.config, position);
        let mut device: MemoryDevice = MemoryDevice::from_image(image.clone());
        device.flip(file, offset, (position % 8).to_le_bytes()[0]);
        let damaged = model.open_image(device.image().clone(), None);
        let index = model
            .log
            .iter()
            .position(|frame| (frame.location.position..frame.end()).contains(&position));
        match index {
            None => {
                assert_eq!(tags(&damaged), entries(&model, None));
                assert_eq!(damaged.recovery.corruptions, []);
                assert_eq!(damaged.recovery.torn, None);
                unused += 1;
            }
            // No one knows that the last frame was ever acknowledged; it holds no entry.
            Some(index) if model.log[index] == *last => {
                assert_eq!(tags(&damaged), entries(&model, None));
                assert_eq!(damaged.recovery.corruptions, []);
                hits[index] += 1;
            }
            Some(index) => {
                let hit = &model.log[index];
                let corruption = assert_reported(&model, &damaged, hit);
                let offset = position - hit.location.position;
                let tag = hit.found().map(|entry| entry.tag);
                let header_survives = offset >= 256;
                assert_eq!(corruption.tag, tag.filter(|_| header_survives));
                hits[index] += 1;
            }
        }
    }
    let sizes: Vec<u32> = model.log.iter().map(|frame| frame.location.size).collect();
    assert_eq!(hits, sizes);
    assert_eq!(unused, 16 * S - u64::from(sizes.iter().sum::<u32>()));
}

#[test]
fn every_bit_of_a_header() {
    let model = small_log();
    for hit in &model.log[..model.log.len() - 1] {
        let (file, offset) = place(&model.config, hit.location.position);
        for bit in 0..256 * 8 {
            let mut device: MemoryDevice = MemoryDevice::from_image(model.device.image().clone());
            device.flip(file, offset + bit / 8, (bit % 8).to_le_bytes()[0]);
            let opened = model.open_image(device.image().clone(), None);
            assert_reported(&model, &opened, hit);
        }
    }
}

#[test]
fn every_pair_of_damaged_frames() {
    let model = small_log();
    let proven = model.log.len() - 1;
    for first in 0..proven {
        for second in first + 1..proven {
            for offset in [100, 300] {
                let mut device: MemoryDevice =
                    MemoryDevice::from_image(model.device.image().clone());
                for index in [first, second] {
                    let (file, at) = place(&model.config, model.log[index].location.position);
                    device.flip(file, at + offset, 0);
                }
                let opened = model.open_image(device.image().clone(), None);
                let lost = |frame: &Frame| [&model.log[first], &model.log[second]].contains(&frame);
                let kept = model.log.iter().filter(|frame| !lost(frame));
                let kept: Vec<u64> = kept.filter_map(|frame| Some(frame.found()?.tag)).collect();
                assert_eq!(tags(&opened), kept);
                let corruptions = &opened.recovery.corruptions;
                let count: u64 = corruptions.iter().filter_map(|found| found.entries).sum();
                let expected = [first, second].map(|index| model.log[index].entry.is_some());
                assert_eq!(count, expected.into_iter().map(u64::from).sum());
                assert_eq!(opened.journal.head(), model.journal.head());
            }
        }
    }
}

#[test]
fn every_sector_that_cannot_be_read() {
    let model = small_log();
    let last = model.log.last().expect("a marker");
    for position in (0..24 * S).step_by(SECTOR) {
        let (file, offset) = place(&model.config, position);
        let mut device: MemoryDevice = MemoryDevice::from_image(model.device.image().clone());
        device.make_unreadable(file, offset);
        let mut found = Vec::new();
        let (journal, recovery) = Journal::open(model.config, &mut device, &Xxh3, None, |entry| {
            found.push(entry.tag)
        })
        .expect("one bad sector does not stop a journal");
        let hit = model
            .log
            .iter()
            .find(|frame| (frame.location.position..frame.end()).contains(&position));
        assert_eq!(found, entries(&model, hit));
        match hit {
            Some(hit) if hit != last => {
                assert_eq!(recovery.corruptions[0].damage, Damage::Unreadable);
                assert_eq!(recovery.corruptions[0].position, hit.location.position);
            }
            _ => assert_eq!(recovery.corruptions, []),
        }
        if position >= journal.head() {
            let mut bytes = vec![1; SECTOR];
            stampede_journal::device::ReadAt::read_at(&mut device, file, offset, &mut bytes)
                .expect("healed by writing it");
            assert!(bytes.iter().all(|byte| *byte == 0));
        }
    }
}

#[test]
fn every_misdirected_write() {
    let healthy = small_log();
    let count = healthy.log.len();
    for victim in 0..count - 1 {
        for target in 0..24 {
            let (model, image) = replay_with(&healthy, |device, index, frame| {
                let (file, offset) = place(&healthy.config, target * S);
                let fits = offset + u64::from(frame.location.size) <= healthy.config.segment_size;
                if index == victim && fits && target * S != frame.location.position {
                    device.misdirect(frame.sequence, file, offset);
                }
            });
            let opened = model.open_image(image.clone(), None);
            // Whatever is whole at its place on the medium is found, nothing else.
            let whole: Vec<u64> = model
                .log
                .iter()
                .filter(|frame| model::is_whole(&image, &model.config, frame))
                .filter_map(|frame| Some(frame.found()?.tag))
                .collect();
            let tail_hit = !model::is_whole(&image, &model.config, &model.log[count - 1]);
            let found = tags(&opened);
            assert!(found.iter().all(|tag| whole.contains(tag)));
            if !tail_hit {
                assert_eq!(found, whole);
                let lost: u64 = opened
                    .recovery
                    .corruptions
                    .iter()
                    .filter_map(|found| found.entries)
                    .sum();
                let entries = entries(&model, None).len();
                assert_eq!(lost, (entries - whole.len()) as u64);
            }
        }
    }
}

#[test]
fn every_lost_write_on_fresh_and_recycled_segments() {
    let healthy = small_log();
    for victim in 0..healthy.log.len() - 1 {
        let (model, image) = replay_with(&healthy, |device, index, frame| {
            if index == victim {
                device.lose(frame.sequence);
            }
        });
        let opened = model.open_image(image, None);
        assert_reported(&model, &opened, &model.log[victim]);
    }
    // On recycled segments the place of the lost frame holds a whole frame of an earlier lap.
    for victim in 30..38 {
        let mut model = Model::new(config(4, 3, 4));
        let mut start = 0;
        for tag in 0..40 {
            if model.append_sectors(tag, 1).is_err() {
                start = model.log[model.log.len() - 6].location.position;
                model.journal.trim(start);
                model.append_sectors(tag, 1).expect("room after a trim");
            }
            if tag == victim {
                model.device.lose(tag + 1);
            }
            model.complete_all();
        }
        let opened = model.open_image(model.device.image().clone(), Some(start));
        let [corruption] = opened.recovery.corruptions[..] else {
            panic!("one frame is lost")
        };
        assert_eq!(corruption.position, victim * S);
        assert_eq!(corruption.entries, Some(1));
        assert!(
            matches!(corruption.damage, Damage::Misplaced(stale) if stale == (victim - 12) * S)
        );
        assert!(!tags(&opened).contains(&victim));
    }
}

/// Writes the frames of a log once more, each completed before the next, with a fault chosen for
/// each; gives the model and the medium.
fn replay_with(
    healthy: &Model,
    mut fault: impl FnMut(&mut MemoryDevice, usize, &Frame),
) -> (Model, Image) {
    let mut model = Model::new(healthy.config);
    for (index, frame) in healthy.log.iter().enumerate() {
        match &frame.entry {
            Some((tag, payload)) => model.append(*tag, payload),
            None => model.mark(),
        }
        .expect("room, as before");
        fault(&mut model.device, index, frame);
        model.complete_all();
    }
    let image = model.device.image().clone();
    (model, image)
}

#[test]
fn damage_in_the_middle_of_a_long_log_is_reported_however_far_the_proof() {
    // Half of the ring is zeroed: more than could ever be in flight.
    let mut model = Model::new(config(64, 4, 8));
    for tag in 0..250 {
        model.append_sectors(tag, 1).expect("room");
        model.complete_all();
    }
    let mut image = model.device.image().clone();
    for file in [1, 2] {
        let whole = 0..image.file(file).len();
        image.change(file, whole, |bytes| bytes.fill(0));
    }
    let opened = model.open_image(image, None);
    let [corruption] = opened.recovery.corruptions[..] else {
        panic!("one stretch")
    };
    assert_eq!((corruption.position, corruption.bytes), (64 * S, 128 * S));
    assert_eq!(
        (corruption.sequence_first, corruption.sequence_last),
        (Some(65), Some(192))
    );
    assert_eq!(corruption.entries, Some(128));
    assert_eq!(opened.found.len(), 250 - 128);
}

#[test]
fn a_corrupt_end_before_the_durable_point_is_not_cut() {
    // Frames 1 to 4; 1 to 3 durable when 4 is written; 4 torn but for its header, and 3 damaged.
    let mut model = Model::new(config(16, 2, 12));
    for tag in 1..=3 {
        model.append_sectors(tag, 1).expect("room");
        model.complete_all();
    }
    model.append_sectors(4, 2).expect("room");
    let mut image = model.crash_image(|sector| sector.index == 0);
    image.change(0, 2 * SECTOR + 20..2 * SECTOR + 21, |byte| byte[0] ^= 1);
    let mut opened = model.open_image(image, None);
    assert_eq!(tags(&opened), [1, 2]);
    let [corruption] = opened.recovery.corruptions[..] else {
        panic!("entry 3 is lost")
    };
    assert_eq!((corruption.position, corruption.bytes), (2 * S, S));
    assert_eq!(
        (corruption.sequence_first, corruption.sequence_last),
        (Some(3), Some(3))
    );
    assert_eq!(corruption.entries, Some(1));
    assert_eq!(opened.recovery.torn.map(|torn| torn.position), Some(3 * S));
    assert_eq!(opened.recovery.head, 3 * S);
    assert_eq!(opened.journal.durable_sequence(), 4, "with the marker");
    // What follows is found, and the loss is still reported.
    opened.append_sectors(5, 1).expect("room");
    opened.complete_all();
    let image = opened.crash_image(|_| false);
    let again = opened.open_image(image, None);
    assert_eq!(tags(&again), [1, 2, 5]);
    assert_eq!(again.recovery.corruptions.len(), 1);
    assert_eq!(again.recovery.corruptions[0].entries, Some(1));
}

#[test]
fn a_frame_behind_damage_and_a_hole_is_not_taken_up() {
    // 1 and 2 were durable when 3 and 4 were written; 3 was lost in the crash, and 2 is damaged.
    // 4 proves that 2 is a loss, but is itself part of the torn tail.
    let mut model = Model::new(config(16, 2, 12));
    for tag in 1..=2 {
        model.append_sectors(tag, 1).expect("room");
        model.complete_all();
    }
    for tag in 3..=4 {
        model.append_sectors(tag, 1).expect("room");
    }
    let mut image = model.crash_image(|sector| sector.token == 4);
    image.change(0, SECTOR + 30..SECTOR + 31, |byte| byte[0] ^= 1);
    let opened = model.open_image(image, None);
    assert_eq!(tags(&opened), [1]);
    assert_eq!(opened.recovery.head, 2 * S);
    assert_eq!(opened.recovery.corruptions[0].position, S);
    assert_eq!(opened.recovery.corruptions[0].entries, Some(1));
    let torn = opened.recovery.torn.expect("frame 4 was cut");
    assert_eq!((torn.position, torn.frames), (2 * S, 1));
}

#[test]
fn damage_below_the_checkpoint_is_nobodys_loss() {
    let model = small_log();
    for (index, frame) in model.log.iter().enumerate() {
        let mut image = model.device.image().clone();
        for before in &model.log[..index] {
            let (file, offset) = place(&model.config, before.location.position);
            let at = usize::try_from(offset).expect("small") + 50;
            image.change(file, at..at + 1, |byte| byte[0] ^= 1);
        }
        let opened = model.open_image(image, Some(frame.location.position));
        assert_eq!(
            opened.recovery.corruptions,
            [],
            "start {}",
            frame.location.position
        );
        let expected: Vec<_> = model.log[index..].iter().filter_map(Frame::found).collect();
        assert_eq!(opened.found, expected);
        assert_eq!(opened.recovery.head, model.journal.head());
    }
}

#[test]
fn a_damaged_log_below_the_checkpoint_goes_on_behind_it() {
    // Everything up to the checkpoint, which is the head, is damaged, but for the first frame.
    let mut model = Model::new(config(8, 3, 8));
    for tag in 0..5 {
        model.append_sectors(tag, 1).expect("room");
        model.complete_all();
    }
    let start = Some(model.journal.head());
    let mut image = model.device.image().clone();
    let rest = SECTOR..image.file(0).len();
    image.change(0, rest, |bytes| bytes.fill(0xaa));
    let mut opened = model.open_image(image, start);
    assert_eq!((tags(&opened), opened.recovery.head), (vec![], 5 * S));
    // A frame that does not fit the rest of the segment, then some that do.
    opened.append_sectors(10, 4).expect("room");
    opened.append_sectors(11, 2).expect("room");
    opened.complete_all();
    let again = opened.open_image(opened.device.image().clone(), start);
    assert_eq!(tags(&again), [10, 11]);
    assert_eq!(again.recovery.corruptions, []);
}

#[test]
fn reads_are_verified() {
    let mut model = small_log();
    let location = model.log[1].location;
    assert_eq!(model.read(location), Some(payload(2, 3 * SECTOR - 300)));
    let bytes = model.log[1].bytes.clone();
    let verify = |bytes: &[u8]| {
        model
            .journal
            .verify_read(location, bytes, &Xxh3)
            .map(|e| e.tag)
    };
    assert_eq!(verify(&bytes), Ok(2));
    for at in (0..bytes.len()).step_by(37) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        assert!(
            matches!(verify(&damaged), Err(ReadError::Damaged { .. })),
            "byte {at}"
        );
    }
    assert!(matches!(
        verify(&bytes[..SECTOR]),
        Err(ReadError::Size { .. })
    ));
    let other = &model.log[4];
    let misread = model
        .journal
        .verify_read(location, &other.bytes[..3 * SECTOR], &Xxh3);
    let misplaced = Damage::Misplaced(other.location.position);
    assert_eq!(
        misread.unwrap_err(),
        ReadError::Damaged {
            position: location.position,
            damage: misplaced
        }
    );
    let marker = &model.log[3];
    let error = model
        .journal
        .verify_read(marker.location, &marker.bytes, &Xxh3)
        .unwrap_err();
    assert_eq!(
        error,
        ReadError::Marker {
            position: marker.location.position
        }
    );
}
