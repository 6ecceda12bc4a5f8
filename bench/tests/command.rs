//! The command as a user runs it: exit statuses, files, and what is said where.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    dead_code,
    reason = "tests use what a program has, and not all that the test server can do"
)]

mod fake;

use std::path::Path;
use std::process::{Command, Output};

use fake::{Behaviour, Fake};

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stampede-bench"))
        .args(arguments)
        .output()
        .unwrap()
}

fn run(fake: &Fake, arguments: &[&str]) -> Output {
    let address = fake.addresses[0].to_string();
    let common = [
        "--addresses",
        &address,
        "--transfers",
        "5k",
        "--accounts",
        "100",
        "--batch",
        "500",
    ];
    bench(&[&common, arguments].concat())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn path(directory: &Path, name: &str) -> String {
    directory.join(name).to_str().unwrap().to_string()
}

#[test]
fn a_good_run_prints_a_table_and_writes_its_files() {
    let fake = Fake::start(Behaviour::default());
    let directory = tempfile::tempdir().unwrap();
    let (json, html) = (
        path(directory.path(), "a/run.json"),
        path(directory.path(), "run.html"),
    );
    let output = run(
        &fake,
        &["--json", &json, "--html", &html, "--label", "mine"],
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let table = text(&output.stdout);
    assert!(
        table.contains("mine") && table.contains("5,000 created"),
        "{table}"
    );
    assert!(
        table.contains("5,000 transfers in batches of 500, 4 clients"),
        "{table}"
    );
    // No terminal, no progress bar.
    assert_eq!(text(&output.stderr), "");
    let page = std::fs::read_to_string(html).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("<h2>mine</h2>"));

    let merged = path(directory.path(), "all.html");
    let output = bench(&["report", &json, &json, "--html", &merged]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stdout).matches("mine").count(), 2);
    let page = std::fs::read_to_string(merged).unwrap();
    assert_eq!(page.matches("<h2>mine</h2>").count(), 2);
}

#[test]
fn quiet_is_quiet() {
    let fake = Fake::start(Behaviour::default());
    let output = run(&fake, &["--quiet"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        output.stdout.is_empty() && output.stderr.is_empty(),
        "{output:?}"
    );
}

#[test]
fn wrong_results_are_shown_and_have_their_exit_status() {
    let fake = Fake::start(Behaviour {
        refuse: Some(100),
        ..Behaviour::default()
    });
    let output = run(&fake, &[]);
    assert_eq!(output.status.code(), Some(1));
    let table = text(&output.stdout);
    assert!(
        table.contains("4,950 created, 50 exceeds_credits"),
        "{table}"
    );

    let fake = Fake::start(Behaviour {
        forget: Some(3),
        ..Behaviour::default()
    });
    let output = run(&fake, &[]);
    assert_eq!(output.status.code(), Some(1));
    let table = text(&output.stdout);
    assert!(table.contains("verified        NO: "), "{table}");
    assert!(table.contains("the sum of debits_posted is"), "{table}");
}

#[test]
fn errors_say_what_to_do() {
    let output = bench(&["--transfers", "many"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("use 100, 10k, 1m"),
        "{output:?}"
    );

    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let output = bench(&["--addresses", &free.to_string()]);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        text(&output.stderr).starts_with("error: no server answers"),
        "{output:?}"
    );
    assert!(text(&output.stderr).contains("refused"), "{output:?}");

    let fake = Fake::start(Behaviour {
        evict_after: Some(8),
        ..Behaviour::default()
    });
    let output = run(&fake, &[]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");

    let fake = Fake::start(Behaviour::default());
    let output = run(&fake, &["--disk-probe", "/nowhere"]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let output = bench(&["report", "/nowhere.json"]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
}
