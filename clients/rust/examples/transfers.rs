//! Two accounts, a transfer between them, and their balances afterwards.
//!
//! `cargo run --example transfers -- 127.0.0.1:3001,127.0.0.1:3002,127.0.0.1:3003`
#![expect(clippy::print_stdout, reason = "an example reports to the terminal")]

use stampede_client::wire::{Account, Transfer};
use stampede_client::{Client, Options};
use std::error::Error;
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let addresses = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let addresses = addresses
        .split(',')
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let mut options = Options::new(0, addresses);
    options.deadline = Some(Duration::from_secs(10));
    let mut client = Client::connect(options)?;
    println!(
        "session of client {:#x} in view {}",
        client.session().client(),
        client.session().view()
    );

    let account = |id| Account {
        id,
        ledger: 1,
        code: 1,
        ..Account::default()
    };
    for result in client.create_accounts(&[account(1), account(2)])? {
        // `exists` when the example runs a second time.
        println!(
            "account: {:?} at {}",
            result.account_status(),
            result.timestamp
        );
    }

    let transfer = Transfer {
        id: client.session().client(),
        debit_account_id: 1,
        credit_account_id: 2,
        amount: 100,
        ledger: 1,
        code: 1,
        ..Transfer::default()
    };
    for result in client.create_transfers(&[transfer])? {
        println!(
            "transfer: {:?} at {}",
            result.transfer_status(),
            result.timestamp
        );
    }

    for account in client.lookup_accounts(&[1, 2])? {
        println!(
            "account {}: debits {} credits {}",
            account.id, account.debits_posted, account.credits_posted
        );
    }
    Ok(())
}
