//! A replica that was away for longer than the others' journals reach: it fetches a checkpoint, and is
//! as good as the others from then on.

use std::time::{Duration, Instant};

use stampede_client::Client;
use stampede_client::wire::{Account, Transfer};

use super::cluster::Cluster;
use super::load::Load;

const PATIENCE: Duration = Duration::from_secs(60);

/// Accounts that the load does not use.
const DEBIT: u128 = 1001;
const CREDIT: u128 = 1002;

/// A full batch fills a mebibyte of journal; the smallest has 64.
const BATCH: u128 = 8_000;
const BATCHES: u128 = 90;

fn fill_journals(client: &mut Client) {
    let account = |id| Account {
        id,
        ledger: 7,
        code: 1,
        ..Account::default()
    };
    let results = client.create_accounts(&[account(DEBIT), account(CREDIT)]);
    assert!(results.expect("answered").iter().all(|r| r.is_created()));
    for batch in 0..BATCHES {
        let transfers: Vec<Transfer> = (0..BATCH)
            .map(|n| Transfer {
                id: (1 << 100) + batch * BATCH + n,
                debit_account_id: DEBIT,
                credit_account_id: CREDIT,
                amount: 1,
                ledger: 7,
                code: 1,
                ..Transfer::default()
            })
            .collect();
        let results = client.create_transfers(&transfers).expect("answered");
        assert!(results.iter().all(|r| r.is_created()));
    }
}

fn wait_for_line(cluster: &Cluster, index: usize, line: &str) {
    let end = Instant::now() + PATIENCE;
    while !cluster.log(index).contains(line) {
        assert!(
            Instant::now() < end,
            "replica {index} does not say {line:?}:\n{}",
            cluster.log(index)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One replica after the other goes and comes, so that the last one, 2, is primary in the end, and
/// whatever is asked is answered from its state.
fn make_last_replica_primary(cluster: &mut Cluster, load: &Load) {
    for gone in [0, 1] {
        cluster.kill(gone);
        load.wait_for(20, PATIENCE);
        cluster.launch(gone);
        cluster.wait_until_listening(gone);
        load.wait_for(20, PATIENCE);
    }
    cluster.kill(0);
    cluster.kill(1);
    cluster.launch(0);
    cluster.wait_until_listening(0);
    load.wait_for(20, PATIENCE);
}

#[test]
fn a_replica_that_was_away_for_too_long_fetches_a_checkpoint() {
    let mut cluster = Cluster::start("transfer", 3);
    let load = Load::start(&cluster, 2);
    load.wait_for(20, PATIENCE);
    cluster.kill(2);
    fill_journals(&mut cluster.client(PATIENCE));
    cluster.launch(2);
    wait_for_line(
        &cluster,
        2,
        "the checkpoint that was fetched or mended is in place",
    );
    make_last_replica_primary(&mut cluster, &load);
    let mut client = cluster.client(PATIENCE);
    let accounts = client.lookup_accounts(&[DEBIT, CREDIT]).expect("answered");
    assert_eq!(accounts[0].debits_posted, BATCH * BATCHES);
    assert_eq!(accounts[1].credits_posted, BATCH * BATCHES);
    let first = client.lookup_transfers(&[1 << 100]).expect("answered");
    assert_eq!(first[0].amount, 1);
    assert!(load.finish(&cluster) > 500);
}

#[test]
fn a_replica_whose_checkpoint_is_damaged_fetches_it_again() {
    let mut cluster = Cluster::start("transfer_damaged", 3);
    let load = Load::start(&cluster, 2);
    fill_journals(&mut cluster.client(PATIENCE));
    cluster.kill(2);
    let checkpoints = cluster.replicas[2].directory.join("checkpoints");
    let files = std::fs::read_dir(checkpoints).expect("the directory is there");
    let mut damaged = 0;
    for file in files {
        let path = file.expect("it can be listed").path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
        // One that was being written is none yet.
        let is_whole = |name: &String| name.starts_with("ledger-") && !name.ends_with(".tmp");
        if name.as_ref().is_some_and(is_whole) {
            let mut bytes = std::fs::read(&path).expect("it can be read");
            bytes[4096] ^= 1;
            std::fs::write(&path, bytes).expect("it can be written");
            damaged += 1;
        }
    }
    assert!(damaged > 0, "there was a checkpoint");
    load.wait_for(20, PATIENCE);
    cluster.launch(2);
    wait_for_line(
        &cluster,
        2,
        "the checkpoint that was fetched or mended is in place",
    );
    make_last_replica_primary(&mut cluster, &load);
    assert!(load.finish(&cluster) > 500);
}
