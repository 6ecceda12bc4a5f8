//! Disks that fail and disks that are full, under real processes.
//!
//! A limit on the size of files makes every write behind it fail, as a broken disk does. A full disk is
//! a small file system in a file, mounted over a replica's checkpoints: that takes root, and the tests
//! that need it say so and pass where it is not permitted.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use stampede_client::Client;
use stampede_client::wire::{Account, Transfer};

use super::cluster::Cluster;
use super::load::Load;

const PATIENCE: Duration = Duration::from_secs(60);

/// Longer than a failover and a client's retries, shorter than anybody would wait.
const DEADLINE: Duration = Duration::from_secs(5);

const SMALL_DISK: u64 = 48 << 20;

/// What is left on it: less than any checkpoint.
const ROOM: u64 = 3 << 20;

#[test]
fn a_replica_whose_disk_fails_stops_with_its_own_exit_code_and_the_others_go_on() {
    // Inherited: writes beyond a limit fail, instead of killing the process.
    // SAFETY: nobody in this process handles that signal.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let mut cluster = Cluster::start("disk_fails", 3);
    let load = Load::start(&cluster, 4);
    load.wait_for(30, PATIENCE);
    // Enough for superblock and log, not for the journal.
    let limit = libc::rlimit {
        rlim_cur: 256 << 10,
        rlim_max: libc::RLIM_INFINITY,
    };
    let pid = i32::try_from(cluster.process_id(0)).expect("a process id");
    let none = std::ptr::null_mut();
    // SAFETY: the structure outlives the call, and nothing is to be written to the null pointer.
    let result = unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &raw const limit, none) };
    assert_eq!(result, 0);
    let end = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = cluster.exited(0) {
            break status;
        }
        assert!(Instant::now() < end, "{}", cluster.log(0));
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(4), "{}", cluster.log(0));
    let log = cluster.log(0);
    assert!(log.contains("error: journal write failed: "), "{log}");
    load.wait_for(30, PATIENCE);
    assert!(load.finish(&cluster) > 60);
}

#[test]
fn a_full_disk_refuses_writes_answers_look_ups_and_resumes_without_a_restart() {
    let mut cluster = Cluster::start("disk_full_single", 1);
    let Some(disk) = SmallDisk::under(&mut cluster, 0) else {
        return;
    };
    let mut writer = cluster.client(DEADLINE);
    let mut reader = cluster.client(DEADLINE);
    create_accounts(&mut writer);
    let mut batches = 0;
    while writer.create_transfers(&batch(batches)).is_ok() {
        batches += 1;
        assert!(batches < 40, "the disk is not full:\n{}", cluster.log(0));
    }
    let log = cluster.log(0);
    assert!(log.contains("the disk is full"), "{log}");
    assert!(log.contains("checkpoints"), "it says where: {log}");
    for _ in 0..100 {
        let found = reader.lookup_accounts(&[1]).expect("look-ups are answered");
        assert_eq!(found[0].debits_posted, batches * BATCH);
    }
    let process = cluster.process_id(0);
    disk.free();
    // The client whose request was given up, or its session's next one, is answered again.
    let mut writer = cluster.client(PATIENCE);
    let results = writer
        .create_transfers(&batch(batches))
        .expect("writes are taken again");
    assert_eq!(results.len() as u128, BATCH);
    let found = reader.lookup_accounts(&[1]).expect("look-ups are answered");
    assert_eq!(found[0].debits_posted, (batches + 1) * BATCH);
    assert_eq!(cluster.process_id(0), process);
    assert!(cluster.exited(0).is_none());
    assert!(cluster.log(0).contains("there is room in"));
}

#[test]
fn a_primary_with_a_full_disk_hands_over_and_nobody_waits() {
    let mut cluster = Cluster::start("disk_full_primary", 3);
    let Some(disk) = SmallDisk::under(&mut cluster, 1) else {
        return;
    };
    // A primary that was killed does not come back as one: the next replica is the primary.
    cluster.kill(0);
    let mut client = cluster.client(PATIENCE);
    create_accounts(&mut client);
    cluster.launch(0);
    cluster.wait_until_listening(0);
    assert!(cluster.log(1).contains("serving: primary of view"));
    drop(client);
    let mut client = cluster.client(DEADLINE);
    let mut batches = 0;
    // By the clock: a full disk is looked at again every second, whatever the clients manage in one.
    let mut give_way = |cluster: &mut Cluster, client: &mut Client, until: &str| {
        let begin = Instant::now();
        while begin.elapsed() < DEADLINE {
            client
                .create_transfers(&batch(batches))
                .expect("nobody waits for the full disk");
            batches += 1;
            if cluster.log(1).contains(until) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{until:?} was not said:\n{}", cluster.log(1));
    };
    give_way(&mut cluster, &mut client, "the disk is full");
    disk.free();
    give_way(&mut cluster, &mut client, "there is room in");
    let found = client.lookup_accounts(&[1]).expect("look-ups are answered");
    assert_eq!(found[0].debits_posted, batches * BATCH);
    assert!((0..3).all(|replica| cluster.exited(replica).is_none()));
}

const BATCH: u128 = 8189;

fn create_accounts(client: &mut Client) {
    let account = |id| Account {
        id,
        ledger: 1,
        code: 1,
        ..Account::default()
    };
    let results = client.create_accounts(&[account(1), account(2)]);
    assert_eq!(results.expect("accounts are created").len(), 2);
}

/// As many transfers as fit, of one unit each.
fn batch(number: u128) -> Vec<Transfer> {
    (0..BATCH)
        .map(|index| Transfer {
            id: number * BATCH + index + 1,
            debit_account_id: 1,
            credit_account_id: 2,
            amount: 1,
            ledger: 1,
            code: 1,
            ..Transfer::default()
        })
        .collect()
}

/// A file system with next to no room, where a replica writes its checkpoints. Goes when dropped.
struct SmallDisk {
    mount: PathBuf,
    filler: PathBuf,
}

impl SmallDisk {
    /// Stops the replica, mounts, and starts it again. `None`, and why, where that is not permitted.
    fn under(cluster: &mut Cluster, replica: usize) -> Option<Self> {
        let image = cluster.directory.join("small-disk");
        let mount = cluster.replicas[replica].directory.join("checkpoints");
        cluster.kill(replica);
        fs::create_dir_all(&mount).expect("the replica's directory is there");
        let file = File::create(&image).expect("target/ can be written");
        file.set_len(SMALL_DISK).expect("a sparse file");
        let made = run("mkfs.ext4", &["-q", "-F", "-m", "0"], &[&image])
            .and_then(|()| run("mount", &["-o", "loop"], &[&image, &mount]));
        if let Err(reason) = made {
            println!("skipped: {reason}");
            return None;
        }
        let disk = Self {
            filler: mount.join("filler"),
            mount,
        };
        disk.fill();
        cluster.launch(replica);
        cluster.wait_until_listening(replica);
        Some(disk)
    }

    fn fill(&self) {
        let file = File::create(&self.filler).expect("there is room as yet");
        let chunk = vec![0x5a; 1 << 20];
        while self.room() > ROOM {
            std::io::Write::write_all(&mut &file, &chunk).expect("there is room as yet");
            file.sync_all().expect("there is room as yet");
        }
    }

    fn room(&self) -> u64 {
        use stampede::store::Storage;
        let storage = stampede::runtime::storage::DirectoryStorage::open(&self.mount);
        storage
            .and_then(|storage| storage.room())
            .expect("it is mounted")
    }

    /// Makes room.
    fn free(&self) {
        fs::remove_file(&self.filler).expect("it was made by us");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the replica may still be there. The loop device goes with the last user.
        if let Err(reason) = run("umount", &["--lazy"], &[&self.mount]) {
            eprintln!("{reason}");
        }
    }
}

/// Runs a program of the system.
fn run(program: &str, options: &[&str], paths: &[&Path]) -> Result<(), String> {
    let output = Command::new(program).args(options).args(paths).output();
    let output = output.map_err(|error| format!("{program} cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program}: {}", said.trim()))
}
