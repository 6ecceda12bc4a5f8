//! Postings and positions against sets.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use zerocopy::FromBytes;

use super::{
    Blob, FileKind, FileName, Mapped, Matches, MemoryStorage, Positions, Postings, PostingsBuilder,
    SealedFile, SealedWriter, Term,
};

fn members(positions: Positions<'_>) -> Vec<u32> {
    let mut members = Vec::new();
    positions.for_each(|position| members.push(position));
    assert_eq!(members.len(), positions.count());
    members
}

fn build(columns: &[Vec<Option<u32>>]) -> Blob {
    let mut builder = PostingsBuilder::default();
    builder.begin(
        u32::try_from(columns[0].len()).unwrap(),
        u32::try_from(columns.len()).unwrap(),
    );
    columns
        .iter()
        .for_each(|column| builder.column(column.iter().copied()));
    builder.finish()
}

/// The same in a file, not at its beginning.
fn in_file(blob: &Blob) -> Blob {
    let mut storage = MemoryStorage::default();
    let name = FileName::new(FileKind::Transfers, 0);
    let mut writer = SealedWriter::create(&mut storage, name).unwrap();
    writer.section(1).unwrap();
    writer.write(&[0; 64]).unwrap();
    writer.write(blob.bytes()).unwrap();
    let entry = writer.finish().unwrap();
    let file = SealedFile::open(&storage, entry).unwrap();
    let mapped = Mapped::open(&storage, &file).unwrap();
    Blob::of_file(&mapped, 64, blob.len() as u64).unwrap()
}

/// Keys of one column: few, many, or wide apart, some missing.
fn column(rows: usize) -> impl Strategy<Value = Vec<Option<u32>>> {
    let key = prop_oneof![Just(3u32), 0u32..4, 0u32..300, any::<u32>(), Just(u32::MAX)];
    let of_kind = prop_oneof![
        prop::collection::vec(prop::option::weighted(0.9, key.clone()), rows),
        prop::collection::vec(prop::option::weighted(0.1, 0u32..9), rows),
        prop::collection::vec(any::<u32>().prop_map(Some), rows),
        key.prop_map(move |key| vec![Some(key); rows]),
        Just(vec![None; rows]),
    ];
    of_kind
}

fn columns() -> impl Strategy<Value = Vec<Vec<Option<u32>>>> {
    prop_oneof![Just(16usize), Just(32), Just(512), 1usize..100]
        .prop_flat_map(|rows| prop::collection::vec(column(rows), 1..5))
}

fn agree(blob: &Blob, columns: &[Vec<Option<u32>>]) -> bool {
    let postings = Postings::of(blob);
    let mut numbered = columns.iter().enumerate();
    numbered.all(|(number, keys)| postings.agree(number, keys))
}

fn sets(column: &[Option<u32>]) -> BTreeMap<u32, BTreeSet<u32>> {
    let mut sets: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    for (position, key) in (0..).zip(column) {
        if let Some(key) = key {
            sets.entry(*key).or_default().insert(position);
        }
    }
    sets
}

proptest! {
    #[test]
    fn other_keys_do_not_agree(
        columns in columns(),
        at in any::<prop::sample::Index>(),
        key in prop::option::of(0u32..5),
    ) {
        let blob = build(&columns);
        for blob in [&blob, &in_file(&blob)] {
            prop_assert!(agree(blob, &columns));
            for number in 0..columns.len() {
                let mut others = columns.clone();
                let row = at.index(others[number].len());
                others[number][row] = key;
                prop_assert_eq!(agree(blob, &others), others == columns);
                others = columns.clone();
                others[number].pop();
                prop_assert!(!agree(blob, &others));
            }
        }
    }

    #[test]
    fn whatever_agrees_is_found_right(
        columns in columns(),
        at in any::<prop::sample::Index>(),
        bit in 0..u32::BITS,
    ) {
        // Of a damaged copy nothing is believed; where it still agrees, no search can tell.
        let mut words = <[u32]>::ref_from_bytes(build(&columns).bytes()).unwrap().to_vec();
        let at = at.index(words.len());
        words[at] ^= 1 << bit;
        let damaged = Blob::of_words(words);
        if agree(&damaged, &columns) {
            let postings = Postings::of(&damaged);
            for (number, column) in columns.iter().enumerate() {
                for (key, rows) in sets(column) {
                    let found = members(postings.find(number, key));
                    prop_assert_eq!(found, rows.into_iter().collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn every_key_has_its_rows(columns in columns()) {
        let blob = build(&columns);
        let file = in_file(&blob);
        for blob in [&blob, &file] {
            let postings = Postings::of(blob);
            let count = u32::try_from(columns.len()).unwrap();
            let rows = u32::try_from(columns[0].len()).unwrap();
            prop_assert!(postings.is_plausible(rows, count));
            prop_assert!(!postings.is_plausible(rows + 1, count));
            for (number, column) in columns.iter().enumerate() {
                let sets = sets(column);
                let keys: Vec<u32> = postings.keys(number).map(|(key, _)| key).collect();
                prop_assert_eq!(keys, sets.keys().copied().collect::<Vec<_>>());
                for (key, set) in &sets {
                    let found = members(postings.find(number, *key));
                    prop_assert_eq!(found, set.iter().copied().collect::<Vec<_>>());
                }
                for key in [0, 1, 5, 1000, u32::MAX - 1, u32::MAX] {
                    let set = sets.get(&key).cloned().unwrap_or_default();
                    let found = members(postings.find(number, key));
                    prop_assert_eq!(found, set.into_iter().collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn a_column_of_one_is_a_column(rows in 1usize..200, key in prop::option::of(any::<u32>())) {
        let mut builder = PostingsBuilder::default();
        builder.begin(u32::try_from(rows).unwrap(), 1);
        builder.column_of_one(key);
        let (one, all) = (builder.finish(), build(&[vec![key; rows]]));
        prop_assert_eq!(one.bytes(), all.bytes());
    }

    #[test]
    fn matches_are_intersections(
        columns in columns(),
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 4),
        either in any::<bool>(),
        (start, end) in (0u32..520, 0u32..520),
    ) {
        let blob = build(&columns);
        let postings = Postings::of(&blob);
        let rows = u32::try_from(columns[0].len()).unwrap();
        let (start, end) = (start.min(rows), end.min(rows));
        let mut terms = Vec::new();
        let mut expected: BTreeSet<u32> = (start..end).collect();
        for ((number, column), (one, other)) in columns.iter().enumerate().zip(&picks) {
            let sets = sets(column);
            if sets.is_empty() {
                continue;
            }
            let keys: Vec<u32> = sets.keys().copied().collect();
            let (one, other) = (*one.get(&keys), *other.get(&keys));
            let mut set = sets[&one].clone();
            let found = postings.find(number, one);
            if either {
                set.extend(&sets[&other]);
                terms.push(Term::either(found, postings.find(number, other)));
            } else {
                terms.push(Term::of(found));
            }
            expected.retain(|position| set.contains(position));
        }
        let expected: Vec<u32> = expected.into_iter().collect();
        let forward: Vec<u32> = Matches::new(&terms, start..end, false).collect();
        prop_assert_eq!(&forward, &expected);
        let mut backward: Vec<u32> = Matches::new(&terms, start..end, true).collect();
        backward.reverse();
        prop_assert_eq!(&backward, &expected);
    }
}

#[test]
fn sizes_are_those_of_positions() {
    // A whole chunk: one value costs nothing, rare values two bytes a row, common ones a bit.
    let rows = 1 << 16;
    let everywhere = build(&[vec![Some(7); rows]]);
    let half = build(&[(0..rows).map(|row| (row % 2 == 0).then_some(7)).collect()]);
    let spread = build(&[(0..rows)
        .map(|row| Some(u32::try_from(row % 1000).unwrap()))
        .collect()]);
    assert_eq!(everywhere.len(), (2 + 5 + 2) * 4);
    assert_eq!(half.len(), (2 + 5 + 2) * 4 + rows / 8);
    assert_eq!(spread.len(), (2 + 5 + 2000) * 4 + rows * 2);
}

#[test]
fn damage_is_noticed() {
    let blob = build(&[(0..100).map(|row| Some(row / 3)).collect()]);
    let mut words: Vec<u32> = blob
        .bytes()
        .chunks_exact(4)
        .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
        .collect();
    for (at, value) in [(0, 99), (1, 2), (2, 1 << 20), (3, 1 << 20), (4, 1 << 30)] {
        let former = std::mem::replace(&mut words[at], value);
        let damaged = Blob::of_words(words.clone());
        assert!(!Postings::of(&damaged).is_plausible(100, 1), "{at}");
        words[at] = former;
    }
    for cut in 0..words.len() {
        let cut = Blob::of_words(words[..cut].to_vec());
        assert!(!Postings::of(&cut).is_plausible(100, 1));
    }
}
