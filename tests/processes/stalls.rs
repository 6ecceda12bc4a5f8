//! Checkpoints never stop the world: hundreds of them, under batches of 1 and under full ones, and the
//! longest that anybody waited for an answer.
//!
//! A journal of the smallest size takes a checkpoint for each 8 MiB of log. A machine that runs other tests
//! besides this one has pauses of its own, so the bound is wide: it is less than others let all requests
//! wait every thousand small batches (0.7 to 1.6 s). What it is on a quiet machine, `scripts/bench.sh
//! --suite ledger` measures.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stampede::limits::{HEADER_SIZE, JOURNAL_SIZE_MIN, checkpoint_bytes, log_bytes};
use stampede_client::Client;
use stampede_client::wire::{Account, Transfer};

use super::cluster::{Cluster, PROGRAM};

const PATIENCE: Duration = Duration::from_secs(60);
const LONGEST_MAX: Duration = Duration::from_millis(400);

const FULL: u64 = 8_189;
const CHECKPOINTS: u64 = 200;

fn transfer(id: u64) -> Transfer {
    Transfer {
        id: u128::from(id),
        debit_account_id: u128::from(id % 100 + 1),
        credit_account_id: u128::from(id % 99 + 101),
        amount: 1,
        ledger: 7,
        code: 1,
        ..Transfer::default()
    }
}

/// Creates batches of this size until so many have been taken from `number`; the longest wait.
fn work(mut client: Client, size: u64, batches: u64, number: &AtomicU64) -> Duration {
    let mut longest = Duration::ZERO;
    loop {
        let number = number.fetch_add(1, Ordering::Relaxed);
        if number >= batches {
            return longest;
        }
        let first = 1 + number * size;
        let batch: Vec<_> = (first..first + size).map(transfer).collect();
        let asked = Instant::now();
        let results = client.create_transfers(&batch).expect("answered");
        longest = longest.max(asked.elapsed());
        assert!(
            results.iter().all(|result| result.is_created()),
            "{:?}",
            results.first()
        );
    }
}

/// What a stopped replica's superblock says.
fn superblock(cluster: &Cluster, of: &str) -> u64 {
    let output = std::process::Command::new(PROGRAM)
        .args(["inspect", "--json", "superblock"])
        .arg(&cluster.replicas[0].directory)
        .output()
        .expect("it can be run");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let found = report.pointer(&format!("/superblock/state/{of}"));
    let found = found.and_then(serde_json::Value::as_u64);
    found.unwrap_or_else(|| panic!("no {of} in {report:#}"))
}

fn crossing_checkpoints(name: &str, clients: usize, size: u64) {
    let mut cluster = Cluster::start(name, 1);
    let mut client = cluster.client(PATIENCE);
    let account = |id| Account {
        id,
        ledger: 7,
        code: 1,
        ..Account::default()
    };
    let accounts: Vec<_> = (1..=200).map(account).collect();
    client.create_accounts(&accounts).expect("answered");
    let bytes = HEADER_SIZE as u64 + size * Transfer::SIZE as u64;
    let sectors = log_bytes(u32::try_from(bytes).expect("a message"));
    let each = checkpoint_bytes(JOURNAL_SIZE_MIN) / sectors;
    let (batches, number) = (each * CHECKPOINTS, AtomicU64::new(0));
    let clients: Vec<_> = (0..clients).map(|_| cluster.client(PATIENCE)).collect();
    let longest = std::thread::scope(|scope| {
        let begin = |client| scope.spawn(|| work(client, size, batches, &number));
        let threads: Vec<_> = clients.into_iter().map(begin).collect();
        let longest = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        longest.max().expect("some clients")
    });
    println!("{CHECKPOINTS} checkpoints under batches of {size}: longest wait {longest:?}");
    assert!(longest < LONGEST_MAX, "somebody waited {longest:?}");
    let status = cluster.stop(0, libc::SIGTERM);
    assert!(status.success(), "{status}");
    // They were made, one for each share of the log: each changes the superblock, and little else does.
    let (op, changes) = (
        superblock(&cluster, "checkpoint/op"),
        superblock(&cluster, "sequence"),
    );
    assert!(batches - op <= 3 * each, "{op} of {batches}");
    assert!(changes >= CHECKPOINTS * 9 / 10, "{changes}");
}

#[test]
fn hundreds_of_checkpoints_under_full_batches_let_nobody_wait() {
    crossing_checkpoints("stalls-full", 2, FULL);
}

#[test]
fn hundreds_of_checkpoints_under_batches_of_one_let_nobody_wait() {
    crossing_checkpoints("stalls-one", 32, 1);
}
