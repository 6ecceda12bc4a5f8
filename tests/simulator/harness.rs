//! The harness itself: that it finds what is wrong, and that every known way to go wrong has a test.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::vocabulary::*;

#[test]
fn a_canary_a_reply_that_the_model_does_not_expect_is_found() -> Scenario {
    // Queries have no indexes yet and are answered with nothing; the model has them. A harness that
    // does not find this finds nothing.
    let mut options = Options {
        faults: FaultPlan::NONE,
        ..Options::CALM
    };
    options.mixture.queries = true;
    let violation = Simulation::new(options, 1)?
        .run()
        .expect_err("the canary must fail");
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
