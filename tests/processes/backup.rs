//! An image is taken from a replica at work, and a new cluster begins with it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use stampede_client::wire::{Account, Transfer};
use stampede_client::{Client, Options};

use super::cluster::{Cluster, PROGRAM};
use super::load::Load;

const PATIENCE: Duration = Duration::from_secs(60);

/// A full batch fills a mebibyte of the journal, of which the smallest has 64: checkpoints come.
const BATCH: u128 = 8_000;

/// Accounts that the load does not use.
const DEBIT: u128 = 1001;
const CREDIT: u128 = 1002;

fn batch(number: u128) -> Vec<Transfer> {
    let transfer = |n| Transfer {
        id: (1 << 100) + number * BATCH + n,
        debit_account_id: DEBIT,
        credit_account_id: CREDIT,
        amount: 1,
        ledger: 7,
        code: 1,
        ..Transfer::default()
    };
    (0..BATCH).map(transfer).collect()
}

fn fill(client: &mut Client, batches: std::ops::Range<u128>) {
    for number in batches {
        let results = client.create_transfers(&batch(number)).expect("answered");
        assert!(results.iter().all(|result| result.is_created()));
    }
}

fn stampede(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(PROGRAM)
        .args(arguments)
        .output()
        .expect("it can be run");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

fn backup(cluster: &Cluster, replica: usize, image: &Path) -> String {
    let from = cluster.replicas[replica].directory.display().to_string();
    let (done, text) = stampede(&["backup", &from, &image.display().to_string()]);
    assert!(done, "{text}");
    let (sound, verified) = verify(image);
    assert!(sound && verified.contains("all hold"), "{verified}");
    text
}

/// Every checksum of an image, and every invariant of what a restore of it would be.
fn verify(image: &Path) -> (bool, String) {
    stampede(&["inspect", "verify", &image.display().to_string()])
}

/// What was acknowledged before the image was taken is in the cluster.
fn holds(cluster: &Cluster, batches: u128) -> Client {
    let addresses = cluster
        .replicas
        .iter()
        .map(|replica| replica.address)
        .collect();
    let mut options = Options::new(cluster.cluster, addresses);
    options.deadline = Some(PATIENCE);
    let mut client = Client::connect(options).expect("it serves");
    for number in 0..batches {
        let expected = batch(number);
        let ids: Vec<u128> = expected.iter().map(|transfer| transfer.id).collect();
        let found = client.lookup_transfers(&ids).expect("answered");
        assert_eq!(found.len(), ids.len(), "batch {number}");
        assert!(
            found
                .iter()
                .zip(&expected)
                .all(|(found, expected)| Transfer {
                    timestamp: 0,
                    ..*found
                } == *expected)
        );
    }
    let found = client.lookup_accounts(&[DEBIT, CREDIT]).expect("answered");
    assert!(found[0].debits_posted >= batches * BATCH);
    assert_eq!(found[0].debits_posted, found[1].credits_posted);
    client
}

#[test]
fn an_image_of_a_replica_at_work_begins_a_new_cluster() {
    let cluster = Cluster::start("backup_source", 3);
    let load = Load::start(&cluster, 2);
    let mut client = cluster.client(PATIENCE);
    let account = |id| Account {
        id,
        ledger: 7,
        code: 1,
        ..Account::default()
    };
    let results = client.create_accounts(&[account(DEBIT), account(CREDIT)]);
    assert!(
        results
            .expect("answered")
            .iter()
            .all(|result| result.is_created())
    );
    let image = cluster.directory.join("image");

    // Nothing but a log yet.
    fill(&mut client, 0..2);
    let text = backup(&cluster, 0, &image);
    assert!(text.contains("checkpoint of op 0 in 0 files"), "{text}");
    let young = Cluster::restore("backup_young", 43, 1, &image);
    holds(&young, 2);
    drop(young);

    fill(&mut client, 2..60);
    let first = backup(&cluster, 0, &image);
    assert!(!first.contains("checkpoint of op 0 "), "{first}");
    fill(&mut client, 60..70);
    let second = backup(&cluster, 0, &image);
    assert!(
        !second.contains(", 0 B were there"),
        "what was there is not copied again: {second}"
    );
    let another = backup(&cluster, 1, &image);
    assert!(another.contains("replica 1"), "{another}");
    load.wait_for(10, PATIENCE);
    load.finish(&cluster);

    let mut restored = Cluster::restore("backup_restored", 44, 3, &image);
    let mut client = holds(&restored, 70);
    fill(&mut client, 70..72);
    // It survives what clusters survive.
    for replica in 0..3 {
        restored.kill(replica);
    }
    for replica in 0..3 {
        restored.launch(replica);
        restored.wait_until_listening(replica);
    }
    holds(&restored, 72);
    let directory = restored.replicas[2].directory.display().to_string();
    restored.kill(2);
    let (sound, text) = stampede(&["inspect", "verify", &directory]);
    assert!(sound, "{text}");
}

#[test]
fn what_is_no_image_is_refused() {
    let cluster = Cluster::start("backup_refused", 1);
    let replica = cluster.replicas[0].directory.display().to_string();
    let to = cluster.directory.join("new").display().to_string();
    let refused = |arguments: &[&str], what: &str| {
        let (done, text) = stampede(arguments);
        assert!(!done && text.contains(what), "{text}");
    };
    let restore = |from: &str| {
        let from = format!("--from={from}");
        let line = [
            "restore",
            "--cluster=5",
            "--replica=0",
            "--replica-count=1",
            "-q",
            &from,
            &to,
        ];
        let (done, text) = stampede(&line);
        assert!(!done, "{text}");
        assert!(!Path::new(&to).exists(), "nothing is left behind");
        text
    };
    assert!(restore(&replica).contains("makes an image of it"));
    assert!(restore("/nowhere").contains("cannot read /nowhere/superblock"));
    refused(
        &["backup", &replica, &replica],
        "is the directory of a replica",
    );
    refused(&["backup", "/nowhere", &to], "does not exist");
    let image = cluster.directory.join("image");
    backup(&cluster, 0, &image);
    std::fs::write(image.join("log-00000000000000000000"), [7; 100]).unwrap();
    assert!(restore(&image.display().to_string()).contains("take another image"));
    let (sound, text) = verify(&image);
    assert!(!sound && text.contains("take another image"), "{text}");
}
