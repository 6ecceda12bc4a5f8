//! Random lives of a journal: appends, completions, trims, crashes and damage in any order.
//!
//! Two properties. Without damage, every recovery finds exactly what is owed. With damage, a scan
//! never fails, never hands over an entry that was not written as it is, and leaves no entry that
//! had been acknowledged unaccounted for, as long as the proof of it survives.

mod model;

use model::{Model, S, config, place};
use proptest::prelude::*;
use proptest::sample::Index;
use stampede_journal::device::memory::{Image, MemoryDevice};
use stampede_journal::{AppendError, Journal, SECTOR, Xxh3};

#[derive(Clone, Debug)]
enum Act {
    Append(usize),
    Complete(Index),
    CompleteAll,
    Mark,
    Trim(Index),
    Crash(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0_usize..5 * SECTOR).prop_map(Act::Append),
        4 => any::<Index>().prop_map(Act::Complete),
        3 => Just(Act::CompleteAll),
        1 => Just(Act::Mark),
        1 => any::<Index>().prop_map(Act::Trim),
        1 => any::<u64>().prop_map(Act::Crash),
    ]
}

/// A journal, its checkpoint, and the next tag.
struct Life {
    model: Model,
    start: u64,
    tag: u64,
}

impl Life {
    fn new() -> Self {
        Self {
            model: Model::new(config(7, 4, 14)),
            start: 0,
            tag: 0,
        }
    }

    fn live(&mut self, act: &Act) {
        let model = &mut self.model;
        match act {
            Act::Append(size) => {
                self.tag += 1;
                if model.append(self.tag, &model::payload(self.tag, *size))
                    == Err(AppendError::Full)
                {
                    self.start = model.journal.durable();
                    model.journal.trim(self.start);
                }
            }
            Act::Mark => {
                let _ = model.mark();
            }
            Act::Complete(index) => {
                let tokens: Vec<u64> = model.device.pending().collect();
                if !tokens.is_empty() {
                    model.complete(*index.get(&tokens));
                }
            }
            Act::CompleteAll => model.complete_all(),
            Act::Trim(index) => {
                let durable = model.journal.durable();
                let starts: Vec<u64> = model
                    .log
                    .iter()
                    .map(|frame| frame.location.position)
                    .filter(|position| (self.start..durable).contains(position))
                    .collect();
                if !starts.is_empty() {
                    self.start = *index.get(&starts);
                    model.journal.trim(self.start);
                }
            }
            Act::Crash(seed) => self.crash(*seed),
        }
    }

    fn crash(&mut self, seed: u64) {
        let image = self
            .model
            .crash_image(|sector| kept(seed, sector.token, sector.index));
        let owed = self.model.owed(&image, self.start);
        let model = self.model.open_image(image, Some(self.start));
        assert_eq!(model.found, owed);
        assert_eq!(model.recovery.corruptions, []);
        assert!(model.journal.durable() >= self.model.journal.durable().min(model.journal.head()));
        self.model = model;
    }
}

/// Draws for each sector whether it survives: mostly whole writes, sometimes torn ones.
fn kept(seed: u64, token: u64, index: usize) -> bool {
    let draw = |salt: u64| model::payload(seed ^ token.wrapping_mul(31) ^ salt << 40, 1)[0];
    match draw(0) % 4 {
        0 => false,
        1 | 2 => true,
        _ => draw(index as u64 + 1).is_multiple_of(2),
    }
}

/// What is done to the medium.
#[derive(Clone, Debug)]
enum Harm {
    Flip(Index, u8),
    Zero(Index),
    Garbage(Index, u64),
    Copy(Index, Index),
    Unreadable(Index),
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, bit)| Harm::Flip(at, bit)),
        1 => any::<Index>().prop_map(Harm::Zero),
        1 => (any::<Index>(), any::<u64>()).prop_map(|(at, seed)| Harm::Garbage(at, seed)),
        2 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Harm::Copy(from, to)),
        1 => any::<Index>().prop_map(Harm::Unreadable),
    ]
}

fn do_harm(life: &Life, image: Image, harms: &[Harm]) -> MemoryDevice {
    let mut device: MemoryDevice = MemoryDevice::from_image(image);
    let config = life.model.config;
    let sectors = usize::try_from(config.capacity() / S).expect("small");
    let at = |index: &Index| {
        let (file, offset) = place(&config, index.index(sectors) as u64 * S);
        (file, usize::try_from(offset).expect("small"))
    };
    for harm in harms {
        let (file, from) = match harm {
            Harm::Flip(index, bit) => {
                let byte = index.index(sectors * SECTOR) as u64;
                let (file, offset) = place(&config, byte);
                device.flip(file, offset, *bit);
                continue;
            }
            Harm::Zero(index)
            | Harm::Garbage(index, _)
            | Harm::Copy(index, _)
            | Harm::Unreadable(index) => at(index),
        };
        let put = |device: &mut MemoryDevice, file, at, bytes: &[u8]| {
            let image = device.image_mut();
            image.write(file, at as u64, bytes).expect("a sector");
        };
        match harm {
            Harm::Flip(..) => {}
            Harm::Zero(_) => put(&mut device, file, from, &[0; SECTOR]),
            Harm::Garbage(_, seed) => {
                let garbage = model::payload(*seed, SECTOR);
                put(&mut device, file, from, &garbage);
            }
            Harm::Copy(_, to) => {
                let sector = device.image().file(file)[from..from + SECTOR].to_vec();
                let (file, to) = at(to);
                put(&mut device, file, to, &sector);
            }
            Harm::Unreadable(_) => device.make_unreadable(file, from as u64),
        }
    }
    device
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_recovery_finds_what_is_owed(acts in prop::collection::vec(act(), 1..120)) {
        let mut life = Life::new();
        for act in &acts {
            life.live(act);
        }
        life.crash(acts.len() as u64);
        life.crash(0);
    }

    #[test]
    fn damage_is_never_hidden_and_nothing_is_made_up(
        acts in prop::collection::vec(act(), 1..120),
        harms in prop::collection::vec(harm(), 1..6),
        seed in any::<u64>(),
    ) {
        let mut life = Life::new();
        for act in &acts {
            life.live(act);
        }
        let image = life.model.crash_image(|sector| kept(seed, sector.token, sector.index));
        let model = &life.model;
        let mut device = do_harm(&life, image, &harms);
        let mut found = Vec::new();
        let opened = Journal::open(model.config, &mut device, &Xxh3, Some(life.start), |entry| {
            found.push((entry.location.position, entry.tag, entry.payload.to_vec()));
        });
        let Ok((journal, recovery)) = opened else {
            // Only if nothing at all is left around the start.
            prop_assert!(life.start > 0);
            return Ok(());
        };
        for (position, tag, payload) in &found {
            let written = model.log.iter().find(|frame| frame.location.position == *position);
            let entry = written.and_then(|frame| frame.entry.clone());
            prop_assert_eq!(entry, Some((*tag, payload.clone())));
        }
        prop_assert!(found.is_sorted_by_key(|(position, ..)| *position));
        // Every acknowledged entry below the proven point is found or lies in a reported stretch.
        prop_assert!(recovery.proven <= journal.head());
        for frame in &model.log {
            let position = frame.location.position;
            let owed = (life.start..recovery.proven).contains(&position)
                && position < model.journal.durable();
            if owed && frame.entry.is_some() {
                let reported = recovery.corruptions.iter().any(|corruption| {
                    (corruption.position..corruption.position + corruption.bytes)
                        .contains(&position)
                });
                let visited = found.iter().any(|(at, ..)| *at == position);
                prop_assert!(visited != reported, "{position}: {visited} {recovery:?}");
            }
        }
        // And the log goes on: what is appended now is found next time. (The image below has no
        // unreadable sectors.)
        if harms.iter().any(|harm| matches!(harm, Harm::Unreadable(_))) {
            return Ok(());
        }
        let medium = device.image().clone();
        let mut next = model.open_image(medium, Some(life.start));
        next.log.retain(|frame| found.iter().any(|(at, ..)| *at == frame.location.position));
        if next.append(u64::MAX, b"after the damage").is_ok() {
            next.complete_all();
            let last = next.open_image(next.device.image().clone(), Some(life.start));
            let tags: Vec<u64> = last.found.iter().map(|entry| entry.tag).collect();
            let expected: Vec<u64> =
                found.iter().map(|(_, tag, _)| *tag).chain([u64::MAX]).collect();
            prop_assert_eq!(tags, expected);
        }
    }
}
