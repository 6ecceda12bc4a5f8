//! Loss of power at every instant: what a crash may leave of the writes in flight, exhaustively for
//! small logs, and what is owed afterwards.
//!
//! Each case also goes on from where it recovered: it appends, crashes and recovers again. That is
//! where journals go wrong: a frame that was in flight at the first crash, whole on the medium but
//! cut off with the tail, lies exactly where the next frames might lead to. Without the erasure of
//! such frames at opening it would come back from the dead, which the last test shows.

mod model;

use model::{Frame, Model, S, config, is_whole, payload};
use stampede_journal::device::memory::{Image, MemoryDevice};
use stampede_journal::device::{ReadAt, WriteAt};
use stampede_journal::{Config, Damage, Journal, OpenError, SECTOR, Xxh3, scan};
use std::io;

/// Sizes in sectors of a log that fills every kind of gap at the end of a six-sector segment.
const SIZES: [usize; 12] = [1, 2, 3, 1, 4, 2, 6, 5, 1, 1, 3, 2];

/// Recovers from `image` and checks it against what is owed, twice: recovery must leave a medium
/// from which it recovers the same, with nothing torn.
fn recover(model: &Model, image: &Image, start: u64) -> Model {
    let owed = model.owed(image, start);
    let opened = model.open_image(image.clone(), Some(start));
    assert_eq!(opened.found, owed);
    assert_eq!(opened.recovery.corruptions, []);
    // The header of a torn frame that began a segment tells that the rest before it is unused.
    let live_end = model
        .live(image)
        .last()
        .map_or(start, Frame::end)
        .max(start);
    let next_segment = live_end.next_multiple_of(model.config.segment_size);
    assert!([live_end, next_segment].contains(&opened.recovery.head));
    let behind = model
        .log
        .iter()
        .filter(|frame| frame.location.position >= live_end);
    if behind
        .clone()
        .any(|frame| is_whole(image, &model.config, frame))
    {
        assert!(
            opened.recovery.torn.is_some(),
            "a whole frame was cut without a word"
        );
    }
    let again = opened.open_image(opened.device.image().clone(), Some(start));
    assert_eq!(again.found, owed);
    assert_eq!(again.recovery.torn, None);
    assert_eq!(again.journal.head(), opened.journal.head());
    opened
}

/// Goes on after a recovery with frames of `sizes`, which are then all lost, half kept, or all
/// kept, in each case recovering what is owed.
fn go_on(recovered: &Model, start: u64, sizes: &[usize]) {
    for keep in 0..3 {
        let image = recovered.device.image().clone();
        let mut model = recovered.open_image(image, Some(start));
        for (tag, size) in (1000..).zip(sizes) {
            if model.append_sectors(tag, *size).is_err() {
                break;
            }
        }
        let image = model.crash_image(|sector| match keep {
            0 => false,
            1 => (sector.index + usize::try_from(sector.token).expect("small")).is_multiple_of(2),
            _ => true,
        });
        recover(&model, &image, start);
    }
}

#[test]
fn every_prefix_of_every_write() {
    let config = config(6, 4, 12);
    let mut model = Model::new(config);
    let mut start = 0;
    // Three laps over the ring: fresh segments and recycled ones.
    for (tag, sectors) in (0..).zip(SIZES.iter().cycle().take(48).copied()) {
        if model.append_sectors(tag, sectors).is_err() {
            start = model.log[model.log.len() - 3].location.position;
            model.journal.trim(start);
            model
                .append_sectors(tag, sectors)
                .expect("the last three take three segments");
        }
        for prefix in 0..=sectors {
            let mut device: MemoryDevice = MemoryDevice::from_image(model.device.image().clone());
            let frame = model.log.last().expect("just appended");
            let (file, offset) = model::place(&config, frame.location.position);
            device
                .write_at(file, offset, &frame.bytes[..prefix * SECTOR])
                .expect("in range");
            let recovered = recover(&model, device.image(), start);
            assert_eq!(
                recovered.found.last().map(|entry| entry.tag) == Some(tag),
                prefix == sectors
            );
            if prefix > 0 && prefix < sectors {
                let torn = recovered.recovery.torn.expect("part of a frame");
                assert_eq!(torn.position, frame.location.position);
                assert_eq!(torn.bytes, u64::from(frame.location.size));
                assert!([Damage::Payload, Damage::Padding].contains(&torn.damage));
            }
            go_on(&recovered, start, &[1, 1, 2]);
        }
        model.complete_all();
    }
    assert!(
        model.journal.durable() > 3 * config.capacity(),
        "three laps"
    );
}

/// All subsets of `count` things.
fn subsets(count: usize) -> impl Iterator<Item = u32> {
    0..1 << count
}

#[test]
fn every_subset_of_several_writes_in_flight() {
    for (config, warm_up) in [
        (config(6, 4, 12), 0),
        (config(6, 4, 12), 31),
        (config(16, 2, 12), 3),
    ] {
        for sizes in [
            &[1, 1, 1, 1][..],
            &[2, 1, 3, 2],
            &[3, 3, 1],
            &[1, 4, 1, 1, 1],
        ] {
            let mut model = Model::new(config);
            let start = warm(&mut model, warm_up);
            for (tag, size) in (100..).zip(sizes) {
                model.append_sectors(tag, *size).expect("room");
            }
            let count = sizes.iter().sum();
            let before = model.device.image().clone();
            for subset in subsets(count) {
                let image = with_subset(&model, &before, sizes.len(), subset);
                recover(&model, &image, start);
            }
        }
    }
}

/// Fills a journal with so many frames of one sector, trimming behind; gives the start.
fn warm(model: &mut Model, frames: u64) -> u64 {
    for tag in 0..frames {
        model.append_sectors(tag, 1).expect("room");
        model.complete_all();
        model.journal.trim(
            model.log[model.log.len().saturating_sub(3)]
                .location
                .position,
        );
    }
    model
        .log
        .len()
        .checked_sub(3)
        .map_or(0, |index| model.log[index].location.position)
}

/// The medium `before`, with those sectors of the last `writes` frames that `subset` names.
fn with_subset(model: &Model, before: &Image, writes: usize, subset: u32) -> Image {
    let mut device: MemoryDevice = MemoryDevice::from_image(before.clone());
    let mut index = 0;
    for frame in &model.log[model.log.len() - writes..] {
        let (file, offset) = model::place(&model.config, frame.location.position);
        for (ahead, sector) in (0_u64..).zip(frame.bytes.chunks(SECTOR)) {
            if subset & 1 << index != 0 {
                device
                    .write_at(file, offset + ahead * S, sector)
                    .expect("in range");
            }
            index += 1;
        }
    }
    device.image().clone()
}

#[test]
fn every_set_of_completions_before_the_crash() {
    let config = config(8, 3, 12);
    let sizes = [1, 2, 1, 2];
    for completed in subsets(sizes.len()) {
        for kept in subsets(sizes.iter().sum()) {
            let mut model = Model::new(config);
            model.append_sectors(0, 3).expect("room");
            model.complete_all();
            for (tag, size) in (1..).zip(sizes) {
                model.append_sectors(tag, size).expect("room");
            }
            for (index, token) in (2..6).enumerate() {
                if completed & 1 << index != 0 {
                    model.complete(token);
                }
            }
            let mut index = 0;
            let image = model.crash_image(|_| {
                index += 1;
                kept & 1 << (index - 1) != 0
            });
            recover(&model, &image, 0);
            if completed != 0 {
                // Fewer sectors were pending: the rest of the subsets repeats these.
                let pending: usize = (0..4)
                    .filter(|i| completed & 1 << i == 0)
                    .map(|i| sizes[i])
                    .sum();
                if kept >> pending != 0 {
                    break;
                }
            }
        }
    }
}

#[test]
fn every_pair_of_crashes() {
    let config = config(6, 3, 12);
    let first_sizes = [1, 1, 2, 1];
    for second_sizes in [&[1, 1, 1][..], &[2, 1], &[1, 3, 1], &[4, 1], &[2, 2]] {
        for first in subsets(first_sizes.iter().sum()) {
            let mut model = Model::new(config);
            model.append_sectors(1, 1).expect("room");
            model.complete_all();
            for (tag, size) in (10..).zip(first_sizes) {
                model.append_sectors(tag, size).expect("room");
            }
            let before = model.device.image().clone();
            let image = with_subset(&model, &before, first_sizes.len(), first);
            let recovered = recover(&model, &image, 0);
            let after = recovered.device.image().clone();
            let mut model = recovered.open_image(after.clone(), None);
            for (tag, size) in (20..).zip(second_sizes) {
                model.append_sectors(tag, *size).expect("room");
            }
            for second in subsets(second_sizes.iter().sum()) {
                let image = with_subset(&model, &after, second_sizes.len(), second);
                recover(&model, &image, 0);
            }
        }
    }
}

/// A device that dies after so many durable writes.
struct Dying<'a> {
    device: &'a mut MemoryDevice,
    writes_left: usize,
}

impl ReadAt for Dying<'_> {
    fn read_at(&mut self, file: u32, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.device.read_at(file, offset, bytes)
    }
}

impl WriteAt for Dying<'_> {
    fn write_at(&mut self, file: u32, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let dead = || io::Error::from_raw_os_error(libc::EIO);
        self.writes_left = self.writes_left.checked_sub(1).ok_or_else(dead)?;
        self.device.write_at(file, offset, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn every_crash_while_opening() {
    // The first write in flight is torn, or lost; the four behind it are whole. In the second case
    // the marker that opening writes has the place, the size and the count of the lost frame, so
    // that the dead frames behind it fit on: only its epoch tells.
    for sizes in [[2, 1, 1, 2, 1], [1, 1, 1, 2, 1]] {
        let mut model = Model::new(config(16, 2, 12));
        model.append_sectors(1, 2).expect("room");
        model.complete_all();
        for (tag, size) in (2..).zip(sizes) {
            model.append_sectors(tag, size).expect("room");
        }
        let image = model
            .crash_image(|sector| sector.token > 2 || (sector.count == 2 && sector.index == 0));
        // One marker, over the place of the first, and four erasures.
        for writes_left in 0..=5 {
            let mut device: MemoryDevice = MemoryDevice::from_image(image.clone());
            let mut dying = Dying {
                device: &mut device,
                writes_left,
            };
            let opened = Journal::open(model.config, &mut dying, &Xxh3, None, |_| {});
            assert_eq!(opened.is_ok(), writes_left == 5, "five writes");
            if let Err(error) = opened {
                assert!(matches!(error, OpenError::Write { .. }), "{error}");
            }
            let recovered = model.open_image(device.image().clone(), None);
            assert_eq!(recovered.found, model.owed(&image, 0));
            assert_eq!(recovered.recovery.corruptions, []);
            go_on(&recovered, 0, &[2, 1, 1]);
            go_on(&recovered, 0, &[1, 1, 1]);
        }
    }
}

/// The story of the erasure, which the epochs alone cannot replace. Four frames in flight, two to a
/// segment; the first is torn, the others are whole. After the recovery one entry is appended, and
/// the caller makes a checkpoint behind it: at the third frame, where a segment begins.
#[test]
fn without_the_erasure_a_dead_frame_would_live_again() {
    let config: Config = config(2, 4, 4);
    let mut model = Model::new(config);
    for tag in 1..=4 {
        model.append(tag, &payload(tag, 100)).expect("room");
    }
    let torn = model.crash_image(|sector| sector.token > 1);
    let mut model = model.open_image(torn.clone(), None);
    assert_eq!(model.found, []);
    let cut = model.recovery.torn.expect("three whole frames were cut");
    assert_eq!((cut.position, cut.frames), (0, 3));
    model.append(9, &payload(9, 200)).expect("room");
    model.complete_all();
    let start = model.journal.durable();
    assert_eq!(start, 2 * S);

    let tags = |image: Image| {
        let mut tags = Vec::new();
        let mut device: MemoryDevice = MemoryDevice::from_image(image);
        let visit = |entry: scan::Entry<'_>| tags.push(entry.tag);
        scan::scan(config, &mut device, &Xxh3, Some(start), visit).expect("a readable log");
        tags
    };
    assert_eq!(tags(model.device.image().clone()), []);
    let mut unerased = torn;
    unerased
        .write(0, 0, &model.device.image().file(0))
        .expect("the whole file");
    assert_eq!(tags(unerased), [3, 4], "this is what the erasure prevents");
}

/// The story of the marker that goes before the erasure. Two entries were acknowledged while later
/// ones were in flight; the only frame that says so is torn away with the tail, by the recovery
/// itself. When one of the two rots, the report must not turn into a torn tail at the next opening.
#[test]
fn the_proof_of_durability_survives_the_erasure() {
    let mut model = Model::new(config(16, 2, 12));
    model.append_sectors(1, 1).expect("room");
    model.append_sectors(2, 1).expect("room");
    model.complete_all();
    model.append_sectors(3, 2).expect("room");
    model.append_sectors(4, 1).expect("room");
    let mut image = model.crash_image(|sector| sector.token == 4);
    image.change(0, 100..101, |byte| byte[0] ^= 1);
    let mut model = model.open_image(image, None);
    for _ in 0..3 {
        assert_eq!(
            model
                .found
                .iter()
                .map(|entry| entry.tag)
                .collect::<Vec<_>>(),
            [2]
        );
        assert_eq!(model.recovery.corruptions.len(), 1);
        assert_eq!(model.recovery.corruptions[0].entries, Some(1));
        model = model.open_image(model.device.image().clone(), None);
    }
}
