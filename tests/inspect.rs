//! `stampede inspect` against a real server: refused while it runs, sound after a kill, and every
//! operation that was acknowledged is there.

#![expect(
    clippy::disallowed_methods,
    reason = "processes live in the real world, and are waited for"
)]
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use stampede_client::wire::{Account, Transfer};
use stampede_client::{Client, Options};

const TRANSFERS: u64 = 20;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // SIGKILL: nothing is tidied up.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn stampede(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_stampede"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn start(directory: &str, address: SocketAddr) -> Server {
    let child = Command::new(env!("CARGO_BIN_EXE_stampede"))
        .args(["start", "--log-level", "error", "--addresses"])
        .args([&address.to_string(), directory])
        .stdin(Stdio::null())
        .spawn();
    Server(child.unwrap())
}

/// Three accounts, then transfers one by one: each is an operation that was acknowledged.
fn work(address: SocketAddr) {
    let mut options = Options::new(7, vec![address]);
    options.deadline = Some(Duration::from_secs(30));
    let mut client = Client::connect(options).unwrap();
    let accounts = [1, 2, 3].map(|id| Account {
        id,
        ledger: 1,
        code: 1,
        ..Account::default()
    });
    client.create_accounts(&accounts).unwrap();
    for id in 1..=TRANSFERS {
        let transfer = Transfer {
            id: id.into(),
            debit_account_id: 1,
            credit_account_id: 2,
            amount: 1,
            ledger: 1,
            code: 1,
            ..Transfer::default()
        };
        assert!(client.create_transfers(&[transfer]).unwrap()[0].is_created());
    }
}

#[test]
fn a_killed_replica_shows_all_that_it_acknowledged() {
    let parent = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = parent.path().join("0");
    let directory = path.to_str().unwrap();
    let (code, _, error) = stampede(&[
        "format",
        "--cluster=7",
        "--replica=0",
        "--replica-count=1",
        "--journal-size=64MiB",
        "--quiet",
        directory,
    ]);
    assert_eq!(code, Some(0), "{error}");
    let (code, output, _) = stampede(&["inspect", directory]);
    assert_eq!(code, Some(0), "{output}");

    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let server = start(directory, address);
    work(address);
    let (code, output, error) = stampede(&["inspect", directory]);
    assert_eq!((code, output.as_str()), (Some(1), ""));
    assert!(error.contains("stop it first"), "{error}");
    drop(server);

    // The kernel gives the files back when the killed process's writes have ended.
    let give_up = Instant::now() + Duration::from_secs(10);
    let json = loop {
        let (code, output, error) = stampede(&["inspect", directory, "--json", "--limit", "0"]);
        match code {
            Some(1) if Instant::now() < give_up => std::thread::sleep(Duration::from_millis(50)),
            _ => {
                assert_eq!(code, Some(0), "{output}{error}");
                break serde_json::from_str::<Value>(&output).unwrap();
            }
        }
    };
    let rows = json["journal"]["rows"].as_array().unwrap();
    let of = |operation: &str| {
        let mine = |row: &&Value| row["operation"] == operation && row["status"] == "live";
        rows.iter().filter(mine).count() as u64
    };
    assert_eq!((of("register"), of("create_accounts")), (1, 1));
    assert_eq!(of("create_transfers"), TRANSFERS);

    let (code, output, _) = stampede(&["inspect", "journal", directory, "--op", "3..5"]);
    assert_eq!(code, Some(0));
    assert!(!output.contains("superblock"), "{output}");
    assert_eq!(output.matches("create_transfers").count(), 3, "{output}");

    let (code, output, _) = stampede(&["inspect", "verify", directory]);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("sound"), "{output}");
    // There is no checkpoint yet: all of them are in the log, which has been executed.
    let (_, output, _) = stampede(&["inspect", "verify", directory, "--json"]);
    let ledger = &serde_json::from_str::<Value>(&output).unwrap()["verify"]["ledger"];
    assert_eq!(
        (&ledger["transfers"], &ledger["broken"]),
        (&TRANSFERS.into(), &0.into())
    );

    // One byte of an acknowledged entry that is not the last.
    let segment = path.join("journal/journal-0000.seg");
    let mut bytes = fs::read(&segment).unwrap();
    let offset = rows[4]["offset"].as_u64().unwrap();
    bytes[usize::try_from(offset).unwrap() + 600] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let (code, output, error) = stampede(&["inspect", directory]);
    assert_eq!(code, Some(3), "{output}");
    assert!(output.contains("op 5, which had been durable"), "{output}");
    assert!(error.contains("is damaged in 1 place"), "{error}");

    let (code, _, error) = stampede(&["inspect", parent.path().to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(error.contains("not formatted"), "{error}");
}
