//! What can be asked for: the command line, its human sizes, and the checks between options.
//!
//! [`BenchArgs`] is the clap structure that the `stampede` command embeds and that the stand-alone
//! binary wraps; [`Settings`] is the same after everything that can be refused has been refused, so
//! that the engine never meets a batch of zero or an account universe of one. Reading the command
//! line does no input or output.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// Events that fit one message of 1 MiB: (1,048,320 - 128) / 128.
pub const BATCH_EVENTS_MAX: u32 = 8189;
/// Replicas that a client may know (the protocol's bound).
pub const ADDRESSES_MAX: usize = 6;
/// Sessions that servers keep; one more would evict another.
pub const CLIENTS_MAX: u32 = 64;
/// Verification needs 32 bytes for each account, and Zipf's law 16: about a gigabyte.
pub const ACCOUNTS_MAX: u64 = 20_000_000;

#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true, args_override_self = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub command: Option<BenchCommand>,

    #[command(flatten)]
    pub load: LoadArgs,
}

#[derive(Subcommand, Clone, Debug)]
pub enum BenchCommand {
    /// Ask for the transfers of accounts of a loaded cluster, time and check every answer
    Queries(QueriesArgs),
    /// Merge the JSON files of several runs into one table and one HTML report
    Report(ReportArgs),
}

#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// JSON files written by earlier runs with --json, in the order to show them
    #[arg(required = true)]
    pub runs: Vec<PathBuf>,
    /// Write one self-contained HTML page with all runs
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub struct QueriesArgs {
    /// Replica addresses in replica order, separated by commas (a bare port means 127.0.0.1)
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:3001")]
    pub addresses: Vec<String>,
    /// Cluster id that the data files were formatted with
    #[arg(long, default_value_t = 0)]
    pub cluster: u128,
    /// Queries in all
    #[arg(long, value_name = "COUNT", default_value = "1k", value_parser = count)]
    pub queries: u64,
    /// Rows that each asks for
    #[arg(long, default_value_t = BATCH_EVENTS_MAX, value_parser = clap::value_parser!(u32).range(1..=i64::from(BATCH_EVENTS_MAX)))]
    pub limit: u32,
    /// Client sessions; each has one query in flight
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(CLIENTS_MAX)))]
    pub clients: u32,
    /// The newest transfers first
    #[arg(long)]
    pub reversed: bool,
    /// Every second query from the newest on
    #[arg(long, conflicts_with = "reversed")]
    pub both: bool,
    /// Wait between two queries of a client (10ms)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub pause: Option<Duration>,
    /// Seed of the accounts that are asked for
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Give up when a query has not been answered for this long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Write everything measured as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl QueriesArgs {
    /// Where the cluster is.
    pub fn servers(&self) -> Result<Vec<SocketAddr>, Failure> {
        addresses(&self.addresses)
    }
}

#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    /// Replica addresses in replica order, separated by commas (a bare port means 127.0.0.1)
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:3001")]
    pub addresses: Vec<String>,
    /// Cluster id that the data files were formatted with
    #[arg(long, default_value_t = 0)]
    pub cluster: u128,
    /// Transfers to create: 100, 1k, 10k, 100k, 1m, 10m, ... [default: 1m, or no limit with --duration]
    #[arg(long, value_name = "COUNT", value_parser = count)]
    pub transfers: Option<u64>,
    /// Stop sending after this long (500ms, 30s, 5m)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Transfers to send first and leave out of the figures
    #[arg(long, value_name = "COUNT", default_value = "0", value_parser = count)]
    pub warmup: u64,
    /// Accounts to create first and to move money between
    #[arg(long, value_name = "COUNT", default_value = "10k", value_parser = count)]
    pub accounts: u64,
    /// Client sessions; each has one request in flight
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=i64::from(CLIENTS_MAX)))]
    pub clients: u32,
    /// Transfers per request
    #[arg(long, default_value_t = BATCH_EVENTS_MAX, value_parser = clap::value_parser!(u32).range(1..=i64::from(BATCH_EVENTS_MAX)))]
    pub batch: u32,
    /// Which accounts and flags the transfers have
    #[arg(long, value_enum, default_value_t = WorkloadKind::Uniform)]
    pub workload: WorkloadKind,
    /// Skew of --workload zipfian: the account of rank r is chosen with weight 1 / r^theta
    #[arg(long, default_value_t = 0.99)]
    pub zipf_theta: f64,
    /// Share of the transfers of --workload hot that touch the one hot account
    #[arg(long, default_value_t = 0.5)]
    pub hot_share: f64,
    /// Order of the transfer ids
    #[arg(long, value_enum, default_value_t = IdOrder::Time)]
    pub ids: IdOrder,
    /// Open loop: this many transfers a second on a fixed schedule, latency counted from the
    /// scheduled instant; without it every client sends as soon as it has its answer
    #[arg(long, value_name = "TPS", value_parser = count)]
    pub rate: Option<u64>,
    /// Seed of accounts, amounts and ids
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Give up when nothing was acknowledged for this long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Leave out the check of all balances and of sampled transfers after the run
    #[arg(long)]
    pub no_verify: bool,
    /// Also measure 4 KiB durable writes in this directory and single-transfer requests, and print
    /// their ratio
    #[arg(long, value_name = "DIR")]
    pub disk_probe: Option<PathBuf>,
    /// Name of this run in tables and reports
    #[arg(long)]
    pub label: Option<String>,
    /// Words about the server for the report: replicas, disk, durability
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// Write everything measured as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write one self-contained HTML page with plots
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// No progress bar
    #[arg(long)]
    pub no_progress: bool,
    /// No progress bar and no table; errors and exit status only
    #[arg(long)]
    pub quiet: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkloadKind {
    /// Two different accounts, every pair as likely as any other
    Uniform,
    /// Accounts by Zipf's law (--zipf-theta)
    Zipfian,
    /// One account takes part in a share of all transfers (--hot-share)
    Hot,
    /// Every second event posts (7 of 8) or voids (1 of 8) an earlier pending transfer
    TwoPhase,
    /// Chains of four linked transfers
    Linked,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdOrder {
    /// Ascending, a millisecond clock above random bits, as the official clients make them
    Time,
    /// 128 random bits
    Random,
    /// Descending
    Reversed,
}

/// When a run ends and how it is paced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extent {
    pub transfers: Option<u64>,
    pub duration: Option<Duration>,
    /// Transfers a second, or as fast as answers come.
    pub rate: Option<u64>,
}

/// A checked run.
#[derive(Clone, Debug)]
pub struct Settings {
    pub addresses: Vec<SocketAddr>,
    pub cluster: u128,
    pub extent: Extent,
    pub warmup: u64,
    pub accounts: u32,
    pub clients: u32,
    pub batch: u32,
    pub workload: WorkloadKind,
    pub zipf_theta: f64,
    pub hot_share: f64,
    pub ids: IdOrder,
    pub seed: u64,
    pub timeout: Duration,
    pub verify: bool,
    pub disk_probe: Option<PathBuf>,
    pub label: String,
    pub note: Option<String>,
}

#[cfg(test)]
impl Settings {
    /// Settings for tests to change.
    pub(crate) fn example() -> Settings {
        Settings {
            addresses: vec!["127.0.0.1:3001".parse().expect("an address")],
            cluster: 0,
            extent: Extent {
                transfers: Some(1000),
                duration: None,
                rate: None,
            },
            warmup: 0,
            accounts: 100,
            clients: 1,
            batch: 100,
            workload: WorkloadKind::Uniform,
            zipf_theta: 0.99,
            hot_share: 0.5,
            ids: IdOrder::Time,
            seed: 42,
            timeout: Duration::from_secs(5),
            verify: true,
            disk_probe: None,
            label: "example".into(),
            note: None,
        }
    }
}

impl LoadArgs {
    /// Refuses what cannot be run, with the option to change.
    pub fn settings(&self) -> Result<Settings, Failure> {
        let accounts = u32::try_from(self.accounts)
            .ok()
            .filter(|&accounts| (2..=ACCOUNTS_MAX).contains(&u64::from(accounts)))
            .ok_or_else(|| {
                Failure::usage(format!(
                    "--accounts {} is not possible: a transfer needs two accounts, and at most \
                     {ACCOUNTS_MAX} are supported",
                    self.accounts
                ))
            })?;
        if !(0.0..=10.0).contains(&self.zipf_theta) {
            return Err(Failure::usage(format!(
                "--zipf-theta {} is out of range: use 0 (uniform) to 10",
                self.zipf_theta
            )));
        }
        if !(0.0..=1.0).contains(&self.hot_share) {
            return Err(Failure::usage(format!(
                "--hot-share {} is out of range: use 0 to 1",
                self.hot_share
            )));
        }
        for (option, value) in [("--transfers", self.transfers), ("--rate", self.rate)] {
            if value == Some(0) {
                return Err(Failure::usage(format!("{option} must be at least 1")));
            }
        }
        for (option, value) in [
            ("--duration", self.duration),
            ("--timeout", Some(self.timeout)),
        ] {
            if value == Some(Duration::ZERO) {
                return Err(Failure::usage(format!(
                    "{option} must be longer than nothing"
                )));
            }
        }
        let transfers = match (self.transfers, self.duration) {
            (None, None) => Some(1_000_000),
            (transfers, _) => transfers,
        };
        Ok(Settings {
            addresses: addresses(&self.addresses)?,
            cluster: self.cluster,
            extent: Extent {
                transfers,
                duration: self.duration,
                rate: self.rate,
            },
            warmup: self.warmup,
            accounts,
            clients: self.clients,
            batch: self.batch,
            workload: self.workload,
            zipf_theta: self.zipf_theta,
            hot_share: self.hot_share,
            ids: self.ids,
            seed: self.seed,
            timeout: self.timeout,
            verify: !self.no_verify,
            disk_probe: self.disk_probe.clone(),
            label: self
                .label
                .clone()
                .unwrap_or_else(|| match (transfers, self.duration) {
                    (Some(transfers), _) => count_short(transfers),
                    (None, Some(duration)) => format!("{}s", duration.as_secs_f64()),
                    (None, None) => unreachable!("one of them was set above"),
                }),
            note: self.note.clone(),
        })
    }
}

fn addresses(texts: &[String]) -> Result<Vec<SocketAddr>, Failure> {
    if texts.len() > ADDRESSES_MAX {
        return Err(Failure::usage(format!(
            "--addresses names {} replicas; a cluster has at most {ADDRESSES_MAX}",
            texts.len()
        )));
    }
    let mut addresses = Vec::with_capacity(texts.len());
    for text in texts {
        let full = if text.parse::<u16>().is_ok() {
            format!("127.0.0.1:{text}")
        } else {
            text.clone()
        };
        let address = full
            .to_socket_addrs()
            .ok()
            .and_then(|mut found| found.next());
        addresses.push(address.ok_or_else(|| {
            Failure::usage(format!(
                "--addresses: `{text}` is not an address; use HOST:PORT, for example \
                 127.0.0.1:3001"
            ))
        })?);
    }
    Ok(addresses)
}

/// Reads `100`, `8_189`, `10k`, `1.5m`, `2b`.
pub fn count(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a count; use 100, 10k, 1m, 2.5m or 1b");
    let clean = text.trim().replace(['_', ','], "").to_ascii_lowercase();
    let (digits, factor) = match clean.chars().last() {
        Some('k') => (&clean[..clean.len() - 1], 1_000_u64),
        Some('m') => (&clean[..clean.len() - 1], 1_000_000),
        Some('b' | 'g') => (&clean[..clean.len() - 1], 1_000_000_000),
        _ => (clean.as_str(), 1),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || fraction.len() > 9 {
        return Err(wrong());
    }
    // The fraction must come out even: 1.5k is 1500, 1.0005k is nobody's intention.
    let scale = 10_u64.pow(u32::try_from(fraction.len()).map_err(|_| wrong())?);
    let parts = match fraction {
        "" => 0,
        digits => digits.parse::<u64>().map_err(|_| wrong())?,
    };
    if !(parts * factor).is_multiple_of(scale) {
        return Err(wrong());
    }
    whole
        .parse::<u64>()
        .ok()
        .and_then(|whole| whole.checked_mul(factor))
        .and_then(|whole| whole.checked_add(parts * factor / scale))
        .ok_or_else(wrong)
}

/// Writes a count the way [`count`] reads it, where it comes out even: `10k`, `1m`, `8189`.
pub fn count_short(value: u64) -> String {
    match value {
        0 => "0".into(),
        value if value.is_multiple_of(1_000_000_000) => format!("{}b", value / 1_000_000_000),
        value if value.is_multiple_of(1_000_000) => format!("{}m", value / 1_000_000),
        value if value.is_multiple_of(1_000) => format!("{}k", value / 1_000),
        value => value.to_string(),
    }
}

/// Reads `500ms`, `30s`, `5m`, `1h`, and a bare number as seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let clean = text.trim().to_ascii_lowercase();
    let split = clean
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(clean.len());
    let (digits, unit) = clean.split_at(split);
    let factor = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => f64::NAN,
    };
    digits
        .parse::<f64>()
        .ok()
        .map(|value| value * factor)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("`{text}` is not a time; use 500ms, 30s, 5m or 1h"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn settings(words: &[&str]) -> Result<Settings, String> {
        let all = std::iter::once("bench").chain(words.iter().copied());
        let command = Command::try_parse_from(all).map_err(|error| error.to_string())?;
        command
            .args
            .load
            .settings()
            .map_err(|error| error.to_string())
    }

    #[test]
    fn counts_are_read_the_way_people_write_them() {
        for (text, value) in [
            ("100", 100),
            ("1k", 1_000),
            ("10K", 10_000),
            ("100k", 100_000),
            ("1m", 1_000_000),
            ("2.5m", 2_500_000),
            ("100M", 100_000_000),
            ("8_189", 8_189),
            ("1,000", 1_000),
            ("1b", 1_000_000_000),
            ("0", 0),
        ] {
            assert_eq!(count(text), Ok(value), "{text}");
        }
        for text in [
            "",
            "k",
            "1.5",
            "-1",
            "1e6",
            "99999999999999b",
            "1.0005k",
            "1.x",
            "ten",
        ] {
            assert!(count(text).is_err(), "{text}");
        }
        for value in [
            0,
            7,
            100,
            1_000,
            10_000,
            1_000_000,
            1_500_000,
            8_189,
            3_000_000_000,
        ] {
            assert_eq!(count(&count_short(value)), Ok(value));
        }
    }

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "s", "5 parsecs", "-3s", "1..2s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_defaults_are_a_million_full_batches() {
        let settings = settings(&[]).unwrap();
        assert_eq!(settings.extent.transfers, Some(1_000_000));
        assert_eq!(settings.batch, 8189);
        assert_eq!(settings.accounts, 10_000);
        assert_eq!(settings.label, "1m");
        assert!(settings.verify);
        assert_eq!(settings.addresses, ["127.0.0.1:3001".parse().unwrap()]);
    }

    #[test]
    fn a_duration_alone_has_no_count() {
        let timed = settings(&["--duration", "3s"]).unwrap();
        assert_eq!(timed.extent.transfers, None);
        let both = settings(&["--duration", "3s", "--transfers", "10k"]).unwrap();
        assert_eq!(both.extent.transfers, Some(10_000));
    }

    #[test]
    fn impossible_runs_are_refused_with_the_option_to_change() {
        for (words, expected) in [
            (&["--accounts", "1"][..], "--accounts"),
            (&["--zipf-theta=-1"], "--zipf-theta"),
            (&["--zipf-theta", "nan"], "--zipf-theta"),
            (&["--hot-share", "1.5"], "--hot-share"),
            (&["--rate", "0"], "--rate"),
            (&["--timeout", "0"], "--timeout"),
            (&["--batch", "8190"], "--batch"),
            (&["--batch", "0"], "--batch"),
            (&["--clients", "65"], "--clients"),
            (&["--addresses", "nowhere"], "--addresses"),
            (&["--addresses", "1,2,3,4,5,6,7"], "--addresses"),
            (&["--workload", "odd"], "--workload"),
        ] {
            let error = settings(words).map(|_| ()).unwrap_err();
            assert!(error.contains(expected), "{words:?}: {error}");
        }
    }

    #[test]
    fn addresses_may_be_bare_ports() {
        let settings = settings(&["--addresses", "3001,127.0.0.1:3002"]).unwrap();
        let expected: Vec<SocketAddr> = vec![
            "127.0.0.1:3001".parse().unwrap(),
            "127.0.0.1:3002".parse().unwrap(),
        ];
        assert_eq!(settings.addresses, expected);
    }

    #[test]
    fn runs_can_be_merged_without_load_options() {
        let words = ["bench", "report", "a.json", "b.json", "--html", "all.html"];
        let command = Command::try_parse_from(words).unwrap();
        let Some(BenchCommand::Report(report)) = command.args.command else {
            panic!()
        };
        assert_eq!(report.runs.len(), 2);
        assert!(Command::try_parse_from(["bench", "--batch", "1", "report", "a"]).is_err());
    }

    /// As the `stampede` command has it.
    #[derive(Parser)]
    enum Root {
        Bench(BenchArgs),
    }

    #[test]
    fn the_load_generator_is_a_command_among_others() {
        let words = ["stampede", "bench", "report", "a.json"];
        let Root::Bench(args) = Root::try_parse_from(words).unwrap();
        assert!(args.command.is_some());
        // A script may put defaults first; what comes later counts.
        let words = [
            "stampede", "bench", "--batch", "10", "--label", "a", "--batch", "20",
        ];
        let Root::Bench(args) = Root::try_parse_from(words).unwrap();
        assert_eq!(args.load.batch, 20);
    }
}
