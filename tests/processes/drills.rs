//! `stampede drill` as it is run, with little load and one fault each: that drills begin, judge, end,
//! and clean up. What they find is theirs to test, and CI's to read.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::cluster::{PROGRAM, test_directory};

/// Plays drills; the report.
fn play(name: &str, drills: &[&str]) -> String {
    let directory = test_directory(name);
    let json = directory.join("report.json");
    let html = directory.join("report.html");
    let output = Command::new(PROGRAM)
        .arg("drill")
        .args(drills)
        .args(["--runs=1", "--steady=0.3"])
        .arg(format!("--dir={}", directory.join("data").display()))
        .arg(format!("--json={}", json.display()))
        .arg(format!("--html={}", html.display()))
        .output()
        .expect("the program can be run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}\n{log}");
    let left = fs::read_dir(directory.join("data")).expect("the directory that was named stays");
    assert_eq!(left.count(), 0, "green drills leave nothing in it");
    assert!(
        fs::read_to_string(html)
            .expect("a page was written")
            .contains("<svg")
    );
    let report = fs::read_to_string(json).expect("a report was written");
    fs::remove_dir_all(directory).expect("it is ours");
    report
}

#[test]
fn quick_drills_are_green() {
    let drills = ["primary-crash", "sessions", "power-loss"];
    let report = play("drills", &drills);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    for (index, name) in drills.iter().enumerate() {
        let drill = &report["drills"][index];
        assert_eq!(
            (&drill["name"], &drill["verdict"]),
            (&(*name).into(), &"green".into())
        );
        assert!(drill["acknowledged"].as_u64().unwrap() > 0);
        assert_eq!(
            (&drill["lost"], &drill["duplicated"]),
            (&0.into(), &0.into())
        );
    }
}

/// Stands for `stampede`, and makes a replica's directory anew at every start but the first.
const FORGETFUL: &str = r#"#!/bin/sh
for directory; do :; done
case $1 in
    format) echo "$@" >"$directory.format" ;;
    start)
        if [ -e "$directory.started" ]; then
            rm -rf "$directory"
            "$STAMPEDE_REAL" $(cat "$directory.format")
        fi
        touch "$directory.started"
        ;;
esac
exec "$STAMPEDE_REAL" "$@"
"#;

/// Stands for `stampede`, and keeps all sessions.
const HOSPITABLE: &str = r#"#!/bin/sh
[ "$1" = format ] && set -- $(echo "$@" | sed 's/--clients-max=[0-9]*/--clients-max=100/')
exec "$STAMPEDE_REAL" "$@"
"#;

/// Plays a drill with a script in the place of the program: it must be red, and say so.
fn is_red_with(script: &str, drill: &str, complaint: &str) {
    let directory = test_directory(&format!("drills_canary_{drill}"));
    let program = directory.join("stand-in");
    fs::write(&program, script).expect("target/ can be written");
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&program, mode).expect("it is ours");
    let data = directory.join("data");
    let output = Command::new(PROGRAM)
        .args(["drill", drill, "--runs=1", "--steady=0.3"])
        .arg(format!("--program={}", program.display()))
        .arg(format!("--dir={}", data.display()))
        .env("STAMPEDE_REAL", PROGRAM)
        .output()
        .expect("the program can be run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let verdict = format!("{drill}: RED: ");
    assert!(text.contains(&verdict), "{text}");
    assert!(text.contains(complaint), "{text}");
    assert!(text.contains("data and logs are in "), "{text}");
    let left = fs::read_dir(&data).expect("a failed drill leaves its data");
    assert_eq!(left.count(), 1);
    fs::remove_dir_all(directory).expect("it is ours");
}

#[test]
fn a_cluster_that_forgets_what_it_acknowledged_is_red() {
    is_red_with(FORGETFUL, "power-loss", "");
}

#[test]
fn a_cluster_that_evicts_nobody_is_red() {
    let complaint = "answered in a session that was pushed out";
    is_red_with(HOSPITABLE, "sessions", complaint);
}

#[test]
fn an_unknown_drill_is_refused_and_all_are_listed() {
    let run = |word: &str| {
        let output = Command::new(PROGRAM).args(["drill", word]).output();
        output.expect("the program can be run")
    };
    let refused = run("dance");
    assert_eq!(refused.status.code(), Some(2));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        text.contains("dance") && text.contains("power-loss"),
        "{text}"
    );
    let listed = run("list");
    assert!(listed.status.success());
    assert!(String::from_utf8_lossy(&listed.stdout).contains("primary-crash"));
}
