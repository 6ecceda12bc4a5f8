//! Every target for a moment, and one that must fail.
//!
//! `BOLERO_RANDOM_TEST_TIME_MS` makes them run longer; a failure prints the seed that repeats it.

use std::time::Duration;

use stampede_fuzz::{disk, foreign, ours};

/// For each target, on the stable toolchain; fuzzers with coverage run as long as they are told.
const TIME: Duration = Duration::from_secs(2);

macro_rules! targets {
    ($($name:ident: $target:path, $input_size_max:literal;)*) => {$(
        #[test]
        fn $name() {
            bolero::check!()
                .with_max_len($input_size_max)
                .with_iterations(10_000_000)
                .with_test_time(TIME)
                .for_each(|input: &[u8]| {
                    $target(input);
                });
        }
    )*};
}

targets! {
    foreign_header: foreign::header, 128;
    foreign_message: foreign::message, 1024;
    foreign_multibatch: foreign::multibatch, 512;
    foreign_operation_body: foreign::operation_body, 512;
    ours_header: ours::header, 128;
    disk_journal: disk::journal, 256;
    disk_superblock: disk::superblock, 256;
    disk_checkpoint: disk::checkpoint, 64;
    disk_sessions: disk::sessions, 256;
    disk_file_name: disk::file_name, 64;
}

/// Inputs that all end at the first checksum test nothing: a good share must get past it, and some
/// must not.
#[test]
fn targets_reach_what_is_behind_the_checksums() {
    let share = |inputs: u64, target: fn(&[u8]) -> bool| {
        let mut state = 1u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        };
        let reached = (0..inputs).filter(|_| {
            let input: Vec<u8> = (0..400).map(|_| next()).collect();
            target(&input)
        });
        reached.count() as u64 * 100 / inputs
    };
    let shares = [
        ("foreign_message", share(4_000, foreign::message)),
        ("disk_journal", share(1_000, disk::journal)),
        ("disk_superblock", share(4_000, disk::superblock)),
        ("disk_checkpoint", share(200, disk::checkpoint)),
        ("disk_sessions", share(1_000, disk::sessions)),
    ];
    for (name, percent) in shares {
        assert!(
            (10..=98).contains(&percent),
            "{percent} % of inputs reach the end: {name} of {shares:?}"
        );
    }
}

/// A harness that cannot fail finds nothing: this target has a fault that a few bytes reach.
#[test]
#[should_panic(expected = "test failed")]
fn canary() {
    bolero::check!()
        .with_max_len(64)
        .with_iterations(100_000)
        .with_test_time(Duration::from_secs(20))
        .with_shrink_time(Duration::ZERO)
        .for_each(|input: &[u8]| {
            assert!(!input.starts_with(&[7]), "canary: found");
        });
}
