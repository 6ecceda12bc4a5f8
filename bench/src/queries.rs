//! Account queries against a server that holds transfers already: how long they take, and whether the answers
//! are right.
//!
//! ```text
//!   query_accounts ──► accounts that are there ──► one drawn, its transfers asked for ──► checked, timed
//! ```
//!
//! Latency counts from the request to its last byte; drawing and checking are not in it. Every answer is
//! looked at: each row belongs to the account, timestamps ascend, and where fewer rows came than were asked for
//! the posted ones add up to the account's balance, as it was before or after (other load may go on).

#![expect(clippy::disallowed_methods, reason = "a measurement needs the clock")]

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Instant;

use hdrhistogram::Histogram;
use serde::Serialize;
use stampede_client::wire::record::{account_filter_flags, transfer_flags};
use stampede_client::wire::{Account, AccountFilter, QueryFilter, Transfer};
use stampede_client::{Client, Options};

use crate::args::QueriesArgs;
use crate::failure::Failure;
use crate::random::Random;

/// Accounts that are drawn from: as many as one answer holds.
const ACCOUNTS_MAX: u32 = 8189;

/// Longer ones count as this long: a minute.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// Differences that are spelled out.
const DIFFERENCES_MAX: usize = 5;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct QueriesReport {
    pub queries: u64,
    pub clients: u32,
    pub limit: u32,
    pub accounts: u64,
    pub rows_p50: u64,
    pub rows_max: u64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub queries_per_s: f64,
    pub rows_per_s: f64,
    pub wrong: u64,
    pub differences: Vec<String>,
}

/// What one client has seen.
struct Seen {
    latencies: Histogram<u64>,
    rows: Histogram<u64>,
    rows_sum: u64,
    wrong: u64,
    differences: Vec<String>,
}

impl Seen {
    fn new() -> Self {
        let histogram =
            |most| Histogram::new_with_bounds(1, most, 3).expect("the bounds are constants");
        Self {
            latencies: histogram(LATENCY_MAX_NS),
            rows: histogram(u64::from(ACCOUNTS_MAX)),
            rows_sum: 0,
            wrong: 0,
            differences: Vec::new(),
        }
    }

    fn differ(&mut self, what: String) {
        self.wrong += 1;
        if self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(what);
        }
    }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::unreachable(error.to_string())
}

/// Runs the queries.
///
/// # Errors
/// The server cannot be reached, does not answer in time, or holds no accounts.
pub fn measure(args: &QueriesArgs, addresses: &[SocketAddr]) -> Result<QueriesReport, Failure> {
    let connect = || -> Result<Client, Failure> {
        let mut options = Options::new(args.cluster, addresses.to_vec());
        options.deadline = Some(args.timeout);
        Client::connect(options).map_err(failed)
    };
    let mut client = connect()?;
    let everything = QueryFilter {
        limit: ACCOUNTS_MAX,
        ..QueryFilter::default()
    };
    let accounts = client.query_accounts(everything).map_err(failed)?;
    if accounts.is_empty() {
        return Err(Failure::usage(
            "the cluster has no accounts: load it first (`stampede bench`)",
        ));
    }
    drop(client);
    let share = |client: u32| {
        let (all, clients) = (args.queries, u64::from(args.clients));
        all / clients + u64::from(u64::from(client) < all % clients)
    };
    let start = Instant::now();
    let seen: Vec<Result<Seen, Failure>> = std::thread::scope(|scope| {
        let run = |index: u32| {
            let accounts = &accounts;
            move || {
                let random = Random::new(args.seed, u64::from(index));
                ask(args, connect()?, accounts, random, share(index))
            }
        };
        let threads: Vec<_> = (0..args.clients)
            .map(|index| scope.spawn(run(index)))
            .collect();
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(seen) => seen,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect()
    });
    let elapsed = start.elapsed().as_secs_f64();
    let mut all = Seen::new();
    for seen in seen {
        let seen = seen?;
        all.latencies.add(&seen.latencies).map_err(failed)?;
        all.rows.add(&seen.rows).map_err(failed)?;
        all.rows_sum += seen.rows_sum;
        all.wrong += seen.wrong;
        all.differences.extend(seen.differences);
    }
    all.differences.truncate(DIFFERENCES_MAX);
    let millis = |quantile| all.latencies.value_at_quantile(quantile) as f64 / 1e6;
    Ok(QueriesReport {
        queries: all.latencies.len(),
        clients: args.clients,
        limit: args.limit,
        accounts: accounts.len() as u64,
        rows_p50: all.rows.value_at_quantile(0.5),
        rows_max: all.rows.max(),
        p50_ms: millis(0.5),
        p90_ms: millis(0.9),
        p99_ms: millis(0.99),
        max_ms: all.latencies.max() as f64 / 1e6,
        queries_per_s: all.latencies.len() as f64 / elapsed,
        rows_per_s: all.rows_sum as f64 / elapsed,
        wrong: all.wrong,
        differences: all.differences,
    })
}

fn ask(
    args: &QueriesArgs,
    mut client: Client,
    accounts: &[Account],
    mut random: Random,
    queries: u64,
) -> Result<Seen, Failure> {
    let mut seen = Seen::new();
    for number in 0..queries {
        let draw = usize::try_from(random.next_u64() % accounts.len() as u64);
        let account = accounts[draw.expect("an index")];
        let mut flags = account_filter_flags::DEBITS | account_filter_flags::CREDITS;
        let reversed = args.reversed || args.both && number % 2 == 1;
        if reversed {
            flags |= account_filter_flags::REVERSED;
        }
        let filter = AccountFilter {
            account_id: account.id,
            limit: args.limit,
            flags,
            ..AccountFilter::default()
        };
        let before = Instant::now();
        let mut rows = client.get_account_transfers(filter).map_err(failed)?;
        let took = u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX);
        seen.latencies.saturating_record(took);
        seen.rows.saturating_record(rows.len() as u64);
        seen.rows_sum += rows.len() as u64;
        if reversed {
            rows.reverse();
        }
        if let Some(wrong) = wrong(&account, &rows, args.limit, &mut client)? {
            seen.differ(wrong);
        }
        if let Some(pause) = args.pause {
            std::thread::sleep(pause);
        }
    }
    Ok(seen)
}

/// What is wrong with an answer, in ascending order, if anything is.
fn wrong(
    account: &Account,
    rows: &[Transfer],
    limit: u32,
    client: &mut Client,
) -> Result<Option<String>, Failure> {
    let id = account.id;
    if rows.len() > limit as usize {
        return Ok(Some(format!(
            "account {id}: {} rows, asked for {limit}",
            rows.len()
        )));
    }
    let is_own = |row: &Transfer| row.debit_account_id == id || row.credit_account_id == id;
    if let Some(row) = rows.iter().find(|row| !is_own(row)) {
        return Ok(Some(format!(
            "account {id}: transfer {} is not its own",
            row.id
        )));
    }
    if !rows.is_sorted_by(|a, b| a.timestamp < b.timestamp) {
        return Ok(Some(format!(
            "account {id}: the rows are not in order of time"
        )));
    }
    let plain = |row: &&Transfer| {
        row.flags & (transfer_flags::PENDING | transfer_flags::VOID_PENDING_TRANSFER) == 0
    };
    let debits = rows
        .iter()
        .filter(plain)
        .filter(|row| row.debit_account_id == id);
    let debits: u128 = debits.map(|row| row.amount).sum();
    if rows.len() < limit as usize {
        // Other load may go on: not less than before, not more than after.
        let now = client.lookup_accounts(&[id]).map_err(failed)?;
        let now = now.first().map_or(0, |account| account.debits_posted);
        if !(account.debits_posted..=now).contains(&debits) {
            return Ok(Some(format!(
                "account {id}: its transfers add up to {debits} posted debits, and it has {now}"
            )));
        }
    }
    Ok(None)
}

impl QueriesReport {
    /// For a terminal.
    pub fn text(&self) -> String {
        let mut text = String::from("\naccount queries\n\n");
        let mut row = |name: &str, value: String| {
            writeln!(text, "  {name:<15} {value}").expect("strings can be written to");
        };
        row(
            "asked",
            format!(
                "{} times get_account_transfers, limit {}, of {} accounts, {} client(s), one request in flight each",
                self.queries, self.limit, self.accounts, self.clients
            ),
        );
        row(
            "rows",
            format!("p50 {}  max {}", self.rows_p50, self.rows_max),
        );
        row(
            "query latency",
            format!(
                "p50 {:.2}  p90 {:.2}  p99 {:.2}  max {:.2} milliseconds",
                self.p50_ms, self.p90_ms, self.p99_ms, self.max_ms
            ),
        );
        row(
            "throughput",
            format!(
                "{:.0} queries/s, {:.0} rows/s",
                self.queries_per_s, self.rows_per_s
            ),
        );
        let verdict = match self.wrong {
            0 => "every answer is right".to_owned(),
            wrong => format!("{wrong} answers are WRONG"),
        };
        row("verified", verdict);
        for difference in &self.differences {
            row("", difference.clone());
        }
        text
    }

    /// Whether no answer was wrong.
    pub fn is_good(&self) -> bool {
        self.wrong == 0
    }
}
