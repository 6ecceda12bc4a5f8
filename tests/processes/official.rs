//! The official clients, unmodified, against real replicas.
//!
//! These tests need packages from PyPI and npm, so they are ignored by default; `scripts/test.sh`
//! installs the packages under `target/`, says where in `STAMPEDE_TEST_*`, and runs them. By hand:
//!
//! ```text
//! STAMPEDE_TEST_PYTHON_0_17_9=…/bin/python cargo test --test processes -- --ignored python_0_17_9
//! ```

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::cluster::Cluster;

fn script(name: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    directory.join(name).display().to_string()
}

fn place(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} says where the client is; scripts/test.sh sets it"))
}

/// Runs a script against a cluster and expects its last line to be "ok".
fn passes(mut command: Command, cluster: &Cluster) {
    let output = command
        .arg(cluster.cluster.to_string())
        .arg(cluster.addresses())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("the interpreter can be run");
    let (out, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let last = out.lines().last().unwrap_or_default();
    assert!(
        output.status.success() && last.starts_with("ok:"),
        "{}\n{out}\n{error}",
        output.status
    );
    println!("{last}");
}

fn python_rules(release: &str) {
    let python = place(&format!("STAMPEDE_TEST_PYTHON_{release}"));
    for replicas in [1, 3] {
        let cluster = Cluster::start(&format!("python_{release}_{replicas}"), replicas);
        for name in ["ledger.py", "queries.py"] {
            let mut command = Command::new(&python);
            command.arg(script(name));
            passes(command, &cluster);
        }
    }
}

/// The client's load goes on while one replica after the other, the primary too, is killed.
fn python_load(release: &str) {
    let python = place(&format!("STAMPEDE_TEST_PYTHON_{release}"));
    let mut cluster = Cluster::start(&format!("python_load_{release}"), 3);
    // Full of refused connections while replicas are down; of interest when the test fails.
    let errors = cluster.directory.join("client.log");
    let mut child = Command::new(python)
        .arg(script("load.py"))
        .arg(cluster.cluster.to_string())
        .arg(cluster.addresses())
        .arg("12")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdout(Stdio::piped())
        .stderr(File::create(&errors).expect("a log can be written"))
        .spawn()
        .expect("the interpreter can be run");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut next = || lines.next().map(|line| line.expect("text"));
    assert_eq!(next().as_deref(), Some("begun"));
    for index in [0, 1, 2, 0] {
        std::thread::sleep(Duration::from_secs(1));
        cluster.kill(index);
        std::thread::sleep(Duration::from_secs(1));
        cluster.launch(index);
        cluster.wait_until_listening(index);
    }
    let last = next().unwrap_or_default();
    let status = child.wait().expect("our own child");
    assert!(
        status.success() && last.starts_with("ok:"),
        "{status} {last}"
    );
    println!("{last}");
}

#[test]
#[ignore = "scripts/test.sh installs the official client, runs this, and fails if it has not passed"]
fn python_0_17_9() {
    python_rules("0_17_9");
    python_load("0_17_9");
}

#[test]
#[ignore = "scripts/test.sh installs the official client, runs this, and fails if it has not passed"]
fn python_0_16_78() {
    python_rules("0_16_78");
}

#[test]
#[ignore = "scripts/test.sh installs the official client, runs this, and fails if it has not passed"]
fn python_0_16_34() {
    python_rules("0_16_34");
}

#[test]
#[ignore = "scripts/test.sh installs the official client, runs this, and fails if it has not passed"]
fn node_0_17_9() {
    let package = place("STAMPEDE_TEST_NODE_0_17_9");
    for replicas in [1, 3] {
        let cluster = Cluster::start(&format!("node_{replicas}"), replicas);
        let mut command = Command::new("node");
        command
            .arg(script("ledger.mjs"))
            .env("STAMPEDE_TEST_NODE_PACKAGE", &package);
        passes(command, &cluster);
    }
}
