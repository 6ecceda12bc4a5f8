//! The harness itself: that it finds what is wrong, and that every known way to go wrong has a test.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use stampede::message::{Command, Header};
use stampede::sim::check::Replies;
use stampede_client::wire::multibatch::encode_trailer;
use stampede_client::wire::{Account, Operation};

use super::vocabulary::*;

#[test]
fn a_canary_a_reply_that_the_model_does_not_expect_is_found() -> Scenario {
    // A look-up in an empty ledger finds nothing. A harness that lets anything else pass finds nothing.
    let body = |elements: &[u8], size: usize| {
        let mut body = vec![0; elements.len() + size];
        body[..elements.len()].copy_from_slice(elements);
        let counts = [u16::try_from(elements.len() / size).expect("one or none")];
        encode_trailer(&mut body, elements.len(), size, counts.into_iter());
        body
    };
    let operation = Operation::LookupAccounts;
    let mut header = Header::new(Command::Prepare, 0, 0, 0);
    (header.op, header.operation) = (1, operation.code());
    let mut replies = Replies::default();
    replies.on_execute(&header, &body(&7u128.to_le_bytes(), operation.event_size()));
    replies.on_reply(1, &body(&[], operation.result_size()))?;
    let violation = replies
        .on_reply(1, &body(&[0; Account::SIZE], operation.result_size()))
        .expect_err("the canary must fail");
    assert_eq!(violation.property, "replies");
    Ok(())
}

#[test]
fn a_canary_a_run_whose_answers_are_spoiled_fails() -> Scenario {
    let run = |options| Simulation::new(options, 1).and_then(|mut simulation| simulation.run());
    assert!(
        run(Options {
            canary: false,
            ..Options::CANARY
        })?
        .acknowledged
            > 0
    );
    let violation = run(Options::CANARY).expect_err("the canary must fail");
    assert_eq!(violation.property, "replies");
    Ok(())
}

#[test]
fn what_is_not_simulated_is_written_down() {
    let read = |path: &str| std::fs::read_to_string(tree().join(path)).expect("it is there");
    let header = read("src/sim/mod.rs");
    let header = header.lines().take_while(|line| line.starts_with("//!"));
    let header: Vec<&str> = header.collect();
    let at = |word: &str| header.iter().position(|line| line.contains(word));
    let (simulated, not) = (at("**Simulated**"), at("**Not simulated**"));
    assert!(simulated.is_some() && not > simulated, "{header:?}");
    assert!(read("docs/testing.md").contains("`src/sim/mod.rs`"));
}

/// The repository.
fn tree() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Rows of the tables in `docs/testing.md`: the number of a pitfall, and the tests that it names.
fn rows() -> Vec<(String, Vec<String>)> {
    let text = std::fs::read_to_string(tree().join("docs/testing.md")).expect("it is there");
    let cells = |line: &str| -> Vec<String> {
        let line = line.trim_matches('|');
        line.split(" | ")
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    let rows = text.lines().filter(|line| line.starts_with("| "));
    rows.map(cells)
        .filter(|cells| is_number(&cells[0]))
        .map(|cells| {
            let tests = cells.last().expect("a row has cells").split('`');
            let tests = tests.skip(1).step_by(2).filter(|test| test.contains("::"));
            let tests = tests.map(str::to_owned);
            (cells[0].clone(), tests.collect())
        })
        .collect()
}

/// Of a pitfall: V1, S2, H3.
fn is_number(cell: &str) -> bool {
    let digits = cell.strip_prefix(['V', 'S', 'H']);
    digits.is_some_and(|digits| digits.parse::<u32>().is_ok())
}

/// Whether a test exists: `area::name` is a scenario, `path::name` one in a file of the tree.
fn exists(test: &str) -> bool {
    let Some((place, name)) = test.rsplit_once("::") else {
        return false;
    };
    let path = if Path::new(place).extension().is_some() {
        tree().join(place)
    } else {
        tree().join("tests/simulator").join(format!("{place}.rs"))
    };
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.contains(&format!("fn {name}("))
}

#[test]
fn every_known_way_to_go_wrong_has_tests_that_exist() {
    let rows = rows();
    for (number, tests) in &rows {
        assert!(!tests.is_empty(), "{number} has no test");
        for test in tests {
            assert!(
                exists(test),
                "docs/testing.md, {number}: there is no test `{test}`"
            );
        }
    }
    let numbers: BTreeSet<&str> = rows.iter().map(|(number, _)| number.as_str()).collect();
    for (kind, count) in [("V", 13), ("S", 8), ("H", 5)] {
        for number in 1..=count {
            let number = format!("{kind}{number}");
            assert!(numbers.contains(number.as_str()), "{number} has no row");
        }
    }
}
