//! `stampede start`: runs a replica until it is told to stop.
//!
//! The order is that of the likely mistakes: the command line against the superblock, the lock, the
//! port, and only then what takes time (the checkpoint, the journal). One log line when it listens,
//! one when it serves.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};
use tracing::level_filters::LevelFilter;

use super::addresses;
use super::budget::Budget;
use super::size::Size;
use super::{Failure, format};
use crate::limits::connections_max;
use crate::machine::ledger::{Ledger, LedgerOptions, ROWS_AHEAD, RowsMax};
use crate::message::{Pool, PoolConfig};
use crate::replica::TICK_NS;
use crate::replica::library::Librarian;
use crate::replica::open::{Opened, open, restore, session_limits};
use crate::replica::superblock::State;
use crate::runtime::directory::{DataDirectory, OpenDirectory};
use crate::runtime::lock::DirectoryLock;
use crate::runtime::storage::DirectoryStorage;
use crate::runtime::{
    self, Config, Files, Listener, Parts, Pin, ReplicaDriver, Report, Stop, host,
};
use crate::vsr::sessions::Limits;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Addresses of all replicas in the order of their indexes; a port alone means 127.0.0.1
    #[arg(long, value_delimiter = ',', required = true, value_parser = addresses::parse)]
    addresses: Vec<SocketAddr>,
    /// Address to listen on, where it differs from this replica's place in the list (NAT, containers)
    #[arg(long, value_parser = addresses::parse)]
    listen: Option<SocketAddr>,
    /// Refuse to start unless the directory is of this cluster
    #[arg(long, value_parser = format::cluster)]
    cluster: Option<u128>,
    /// Refuse to start unless the directory is of this replica
    #[arg(long)]
    replica: Option<u8>,
    /// Bind threads to cores; auto does so on four or more
    #[arg(long, value_enum, default_value_t = PinArgument::Auto)]
    pin: PinArgument,
    /// Bytes per second of the checkpoint files to read and verify all the time; 0 for none
    #[arg(long, value_name = "SIZE", default_value = "8MiB", value_parser = super::size::parse)]
    scrub: u64,
    /// Memory for what does not grow with what is stored, and for what the next three flags bound; printed at start,
    /// part by part. Usually less than 3GiB
    #[arg(long, value_name = "SIZE", value_parser = super::size::parse)]
    memory: Option<u64>,
    /// With so many accounts, clients that create are sent away; 4 billion without
    #[arg(long, value_name = "COUNT", value_parser = stampede_bench::args::count)]
    accounts_max: Option<u64>,
    /// The same for transfers; 3 billion without
    #[arg(long, value_name = "COUNT", value_parser = stampede_bench::args::count)]
    transfers_max: Option<u64>,
    /// The same for pending transfers that wait for their timeout
    #[arg(long, value_name = "COUNT", value_parser = stampede_bench::args::count)]
    timeouts_max: Option<u64>,
    /// How much to log, to standard error
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = ["off", "error", "warn", "info", "debug", "trace"])]
    log_level: String,
    /// Data directory, made by `stampede format`
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PinArgument {
    Auto,
    Always,
    Never,
}

impl From<PinArgument> for Pin {
    fn from(argument: PinArgument) -> Self {
        match argument {
            PinArgument::Auto => Self::Auto,
            PinArgument::Always => Self::Always,
            PinArgument::Never => Self::Never,
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if cfg!(feature = "mutants") {
        return Err(Failure::new(
            "this build has mistakes compiled in, for tests of the simulator (the feature `mutants`), and serves \
             nobody: build it without",
        ));
    }
    log_to_standard_error(&arguments.log_level)?;
    let data = DataDirectory::new(&arguments.directory);
    let state = data.state().map_err(Failure::new)?;
    check(arguments, &state)?;
    let budget = Budget::new(&state, arguments.memory, rows_max(arguments))?;
    need_open_files(&state)?;
    let mut directory = data.open().map_err(Failure::new)?;
    let stop = Stop::new().map_err(Failure::new)?;
    stop.on_signals().map_err(Failure::new)?;
    introduce(&state, &data);
    budget
        .lines()
        .iter()
        .for_each(|line| tracing::info!("{line}"));
    loop {
        let (report, lock) = run_once(arguments, budget.ledger, &data, directory, &stop)?;
        if !report.reopen || stop.is_requested() {
            tracing::info!(
                received = report.received,
                sends = report.sends,
                connections = report.accepted,
                "stopped"
            );
            tracing::debug!("{report:?}");
            drop(lock);
            return Ok(());
        }
        tracing::info!("the checkpoint that was fetched or mended is in place: opening it");
        directory = data.open_again(lock).map_err(Failure::new)?;
    }
}

/// What the ledger may hold: what is asked for, and on top of it what may be under way when that is reached.
fn rows_max(arguments: &Arguments) -> RowsMax {
    let usual = RowsMax::INDEXED;
    let max = |asked: Option<u64>, usual: u32| {
        let asked = asked.and_then(|asked| u32::try_from(asked).ok());
        let with_those_ahead = asked.map(|asked| asked.saturating_add(ROWS_AHEAD));
        with_those_ahead.map_or(usual, |max| max.min(usual))
    };
    RowsMax {
        accounts: max(arguments.accounts_max, usual.accounts),
        transfers: max(arguments.transfers_max, usual.transfers),
        timeouts: max(arguments.timeouts_max, usual.timeouts),
        ..usual
    }
}

/// From what is on the disk to a stop, or to the moment when what is on the disk has been replaced.
fn run_once(
    arguments: &Arguments,
    ledger: LedgerOptions,
    data: &DataDirectory,
    directory: OpenDirectory,
    stop: &Stop,
) -> Result<(Report, DirectoryLock), Failure> {
    let OpenDirectory {
        lock,
        state,
        journal: mut segments,
        superblock,
    } = directory;
    let address = arguments.addresses[usize::from(state.replica)];
    let listener = Listener::bind(arguments.listen.unwrap_or(address)).map_err(Failure::new)?;
    let pool = Pool::new(&PoolConfig::REPLICA)
        .map_err(|error| Failure::new(format!("cannot get memory for messages: {error}")))?;
    let storage = DirectoryStorage::open(data.checkpoints()).map_err(|error| {
        Failure::new(format!(
            "cannot open {}: {error}",
            data.checkpoints().display()
        ))
    })?;
    let start = Instant::now();
    let populating = std::thread::spawn({
        let pool = pool.clone();
        move || {
            host::give_way();
            runtime::populate(&pool)
        }
    });
    let life = random_life()?;
    // The checkpoint and the journal at once: neither keeps two cores or the disk busy.
    // A thread that has given way stays behind, so this one does neither.
    let opened = std::thread::scope(|scope| {
        let restoring = scope.spawn(|| {
            host::give_way();
            restore(&state, &storage, || Ledger::new(ledger))
        });
        let restored = || match restoring.join() {
            Ok(restored) => restored,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let opening = scope.spawn(|| {
            host::give_way();
            open(state, life, restored, &mut segments, &pool)
        });
        match opening.join() {
            Ok(opened) => opened,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    let opened = opened
        .map_err(|error| Failure::new(format!("cannot open {}: {error}", data.path().display())))?;
    recount(&opened, start);
    populating
        .join()
        .map_err(|_| Failure::new("preparing memory failed"))?;

    let config = Config {
        replica: state.replica,
        addresses: arguments.addresses.clone(),
        connections_max: connections_max(state.sessions_max as usize),
        pin: arguments.pin.into(),
        tick: TICK_NS,
    };
    tracing::info!("listening on {}", arguments.listen.unwrap_or(address));
    let mut replica = opened.replica;
    replica.set_scrub_rate(arguments.scrub);
    let parts = Parts {
        listener,
        pool,
        files: Files::new(segments, superblock),
        driver: ReplicaDriver::new(replica, data.checkpoints()),
        executor: opened.executor,
        librarians: std::array::from_fn(|_| Librarian::new(Box::new(storage.for_librarian()))),
        builder: storage,
    };
    let report = runtime::run(&config, parts, stop).map_err(|error| {
        if matches!(error, runtime::Error::Fatal(_)) {
            Failure::fenced(error)
        } else {
            Failure::new(error)
        }
    })?;
    Ok((report, lock))
}

/// Tells this start of the replica from every other.
fn random_life() -> Result<u64, Failure> {
    let random = host::random_id()
        .map_err(|error| Failure::new(format!("no random number to be had: {error}")))?;
    Ok(u64::try_from(random >> 64).expect("the upper half"))
}

/// The command line against the superblock.
fn check(arguments: &Arguments, state: &State) -> Result<(), Failure> {
    let directory = arguments.directory.display();
    if let Some(cluster) = arguments
        .cluster
        .filter(|cluster| *cluster != state.cluster)
    {
        return Err(Failure::usage(format!(
            "{directory} is of cluster {}, not {cluster}; start it with the addresses of its own cluster",
            state.cluster
        )));
    }
    if let Some(replica) = arguments
        .replica
        .filter(|replica| *replica != state.replica)
    {
        return Err(Failure::usage(format!(
            "{directory} is of replica {}, not {replica}; indexes are fixed by format",
            state.replica
        )));
    }
    let (given, expected) = (arguments.addresses.len(), usize::from(state.member_count()));
    if given != expected {
        let standbys = match state.standby_count {
            0 => String::new(),
            count => format!(" ({count} of them standbys)"),
        };
        return Err(Failure::usage(format!(
            "--addresses has {given} entries, but the cluster of {directory} has {expected} replicas{standbys}: \
             list all of them in the order of their indexes"
        )));
    }
    if let Some(address) = addresses::repeated(&arguments.addresses) {
        return Err(Failure::usage(format!(
            "--addresses has {address} twice: each replica has its own"
        )));
    }
    Ok(())
}

/// A limit on open files that is too low would show itself under load, as refused connections.
fn need_open_files(state: &State) -> Result<(), Failure> {
    let limit = host::raise_open_files();
    let segments = u64::from(state.segment_count);
    let own = segments + 64;
    if limit < own {
        return Err(Failure::new(format!(
            "this process may open {limit} files, but the journal alone has {segments}; raise it \
             (LimitNOFILE= in the service, or `ulimit -n`)"
        )));
    }
    let wanted = own + connections_max(state.sessions_max as usize) as u64;
    if limit < wanted {
        tracing::warn!(
            "this process may open {limit} files: connections are refused beyond {}; raise it to {wanted} \
             (LimitNOFILE= in the service, or `ulimit -n`)",
            limit - own
        );
    }
    Ok(())
}

fn log_to_standard_error(level: &str) -> Result<(), Failure> {
    let level: LevelFilter = level
        .parse()
        .map_err(|error| Failure::usage(format!("--log-level {level}: {error}")))?;
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .try_init()
        .map_err(Failure::new)
}

/// What this is and where it runs.
fn introduce(state: &State, data: &DataDirectory) {
    tracing::info!(
        "stampede {} on Linux {}: replica {} of {}, cluster {}",
        env!("CARGO_PKG_VERSION"),
        runtime::kernel_release(),
        state.replica,
        state.replica_count,
        state.cluster
    );
    let size = Size(state.segment_size * u64::from(state.segment_count));
    match host::block_device(&data.journal()) {
        Some(device) => tracing::info!("journal {size} on {device}"),
        None => tracing::info!("journal {size}"),
    }
    let Limits {
        sessions,
        reply_bytes,
    } = session_limits(state);
    tracing::info!(
        "sessions of up to {sessions} clients, {} connections, up to {} of replies kept",
        connections_max(sessions),
        Size(reply_bytes as u64)
    );
}

/// What the disk held.
fn recount(opened: &Opened, start: Instant) {
    let progress = opened.replica.progress();
    let recovery = &opened.recovery;
    tracing::info!(
        "recovered in {:.1?}: checkpoint at op {}, log to op {} ({} entries, {} read)",
        start.elapsed(),
        progress.checkpoint,
        progress.head,
        recovery.entries,
        Size(recovery.bytes_read)
    );
    for damage in &recovery.corruptions {
        tracing::warn!("journal: {damage}");
    }
    if let Some(error) = &opened.checkpoint_lost {
        tracing::error!(
            "{error}. This replica fetches it from another one, and does nothing but follow the log until then"
        );
    }
    if let Some(torn) = &recovery.torn {
        tracing::info!(
            "cut off {} that were being written when the machine stopped; they had not been acknowledged",
            Size(torn.bytes)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::superblock::Identity;

    fn arguments(addresses: &str) -> Arguments {
        Arguments {
            addresses: addresses
                .split(',')
                .map(|text| addresses::parse(text).unwrap())
                .collect(),
            listen: None,
            cluster: None,
            replica: None,
            pin: PinArgument::Never,
            scrub: 0,
            memory: None,
            accounts_max: None,
            transfers_max: None,
            timeouts_max: None,
            log_level: "off".to_owned(),
            directory: PathBuf::from("data"),
        }
    }

    #[test]
    fn limits_of_the_ledger_leave_room_for_what_is_under_way() {
        let mut arguments = arguments("3001");
        let usual = rows_max(&arguments);
        assert_eq!(usual.accounts, RowsMax::INDEXED.accounts);
        arguments.accounts_max = Some(1_000_000);
        arguments.transfers_max = Some(u64::MAX);
        arguments.timeouts_max = Some(0);
        let max = rows_max(&arguments);
        assert_eq!(max.accounts, 1_000_000 + ROWS_AHEAD);
        assert_eq!(max.transfers, usual.transfers);
        assert_eq!(max.timeouts, ROWS_AHEAD);
    }

    #[test]
    fn the_command_line_is_compared_with_the_superblock() {
        let state = State::format(&Identity {
            cluster: 7,
            replica: 1,
            replica_count: 3,
            standby_count: 0,
            sessions_max: 64,
            segment_size: 1 << 26,
            segment_count: 16,
            recovering: false,
            journal_id: 99,
        });
        assert!(check(&arguments("1,2,3"), &state).is_ok());
        let refused = |arguments: &Arguments, what: &str| {
            let failure = check(arguments, &state).unwrap_err();
            assert_eq!(failure.code, 2);
            assert!(failure.message.contains(what), "{}", failure.message);
        };
        refused(&arguments("1,2"), "2 entries");
        refused(&arguments("1,2,1"), "127.0.0.1:1 twice");
        let other = Arguments {
            cluster: Some(8),
            ..arguments("1,2,3")
        };
        refused(&other, "of cluster 7, not 8");
        let other = Arguments {
            replica: Some(0),
            ..arguments("1,2,3")
        };
        refused(&other, "of replica 1, not 0");
    }
}
