//! One run from beginning to end: connect, accounts, warm-up, probe, load, verify.

#![expect(
    clippy::disallowed_methods,
    reason = "a run is stamped with the wall clock"
)]

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use stampede_client::wire::{CreateTransferStatus, Operation};

use crate::args::{Extent, Settings};
use crate::books::Books;
use crate::disk::DiskProbe;
use crate::engine::{Clock, Counters, Engine, EngineOptions};
use crate::failure::Failure;
use crate::figures::{Figures, FiguresReport};
use crate::machine::Machine;
use crate::pace::Pace;
use crate::phase::accounts::CreateAccounts;
use crate::phase::load::Load;
use crate::phase::verify::{Verified, Verify};
use crate::progress::{Goal, Progress};
use crate::report::{
    FORMAT, GeneratorReport, LoadReport, ProbeReport, RunReport, Server, StatusCount,
};
use crate::workload::ids::Run;

/// Disk writes and single transfers that the probe compares: some of these, some of those, and again,
/// so that whatever else goes on with the machine and its disk goes on for both.
const PROBE_ROUNDS: u64 = 20;
const PROBE_PER_ROUND: u64 = 50;

/// Runs a load and says what was measured.
pub fn load(settings: &Settings, progress: bool) -> Result<RunReport, Failure> {
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let run = Run(u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX));
    let options = EngineOptions {
        addresses: settings.addresses.clone(),
        cluster: settings.cluster,
        clients: settings.clients,
        batch: settings.batch.max(settings.accounts.min(LOOKUP_EVENTS)),
        timeout: settings.timeout,
        seed: settings.seed ^ run.0,
    };
    let mut engine = Engine::new(&options, Clock::start())?;
    engine.register()?;
    let events_max = engine.events_max(Operation::CreateTransfers);
    if settings.batch > events_max {
        return Err(Failure::usage(format!(
            "--batch {} is more than the server takes in one request: use at most {events_max}",
            settings.batch
        )));
    }
    let mut books = Books::new(settings, run);
    let accounts_s = create_accounts(&mut engine, run, settings, options.batch, progress)?;
    warm_up(&mut engine, &mut books, settings, progress)?;
    let probe = match &settings.disk_probe {
        Some(directory) => Some(probe(&mut engine, &mut books, directory)?),
        None => None,
    };
    let measured = measure(&mut engine, &mut books, settings, progress)?;
    let verified = if settings.verify {
        Some(verify(&mut engine, &books, options.batch)?)
    } else {
        None
    };
    Ok(RunReport {
        format: FORMAT,
        generator_version: env!("CARGO_PKG_VERSION").into(),
        label: settings.label.clone(),
        started_unix_s: unix.as_secs(),
        server: Server {
            addresses: settings.addresses.iter().map(ToString::to_string).collect(),
            cluster: settings.cluster.to_string(),
            view: engine.counters().view,
            note: settings.note.clone(),
        },
        load: load_report(settings),
        machine: Machine::this(),
        created: measured.created,
        figures: measured.figures,
        unexpected: measured.unexpected,
        generator: measured.generator,
        accounts_s,
        probe,
        verified,
    })
}

/// Accounts are created and looked up in batches of up to this, whatever the size of the load's batches.
const LOOKUP_EVENTS: u32 = crate::args::BATCH_EVENTS_MAX;

fn load_report(settings: &Settings) -> LoadReport {
    LoadReport {
        transfers: settings.extent.transfers,
        duration_s: settings
            .extent
            .duration
            .map(|duration| duration.as_secs_f64()),
        rate: settings.extent.rate,
        warmup: settings.warmup,
        accounts: settings.accounts,
        clients: settings.clients,
        batch: settings.batch,
        workload: settings.workload,
        zipf_theta: settings.zipf_theta,
        hot_share: settings.hot_share,
        ids: settings.ids,
        seed: settings.seed,
    }
}

fn create_accounts(
    engine: &mut Engine,
    run: Run,
    settings: &Settings,
    batch: u32,
    visible: bool,
) -> Result<f64, Failure> {
    let before = engine.clock().now();
    let progress = Progress::new("accounts", Goal::Count(settings.accounts.into()), visible);
    let batch = batch.min(engine.events_max(Operation::CreateAccounts));
    engine.run(&mut CreateAccounts::new(
        run,
        settings.accounts,
        batch,
        &progress,
    ))?;
    progress.finish();
    Ok((engine.clock().now() - before) as f64 / 1e9)
}

fn warm_up(
    engine: &mut Engine,
    books: &mut Books,
    settings: &Settings,
    visible: bool,
) -> Result<(), Failure> {
    if settings.warmup == 0 {
        return Ok(());
    }
    let extent = Extent {
        transfers: Some(settings.warmup),
        duration: None,
        rate: settings.extent.rate,
    };
    let progress = Progress::new("warm-up", Goal::Count(settings.warmup), visible);
    let now = engine.clock().now();
    let mut load = Load {
        books,
        pace: Pace::new(now, settings.batch, extent),
        figures: Figures::new(now),
        progress: &progress,
        only: None,
    };
    engine.run(&mut load)?;
    progress.finish();
    Ok(())
}

fn probe(
    engine: &mut Engine,
    books: &mut Books,
    directory: &std::path::Path,
) -> Result<ProbeReport, Failure> {
    let mut disk = DiskProbe::create(directory)?;
    let extent = Extent {
        transfers: Some(PROBE_PER_ROUND),
        duration: None,
        rate: None,
    };
    let only = Some(books.single_stream());
    let progress = Progress::hidden();
    let mut figures = Figures::new(engine.clock().now());
    for _ in 0..PROBE_ROUNDS {
        disk.measure(PROBE_PER_ROUND)?;
        let pace = Pace::new(engine.clock().now(), 1, extent);
        let mut load = Load {
            books,
            pace,
            figures,
            progress: &progress,
            only,
        };
        engine.run(&mut load)?;
        figures = load.figures;
    }
    let figures = figures.finish(engine.clock().now());
    let disk = disk.latency();
    Ok(ProbeReport {
        disk,
        requests: figures.batches,
        request_p50_us: figures.latency.p50_us,
        request_p99_us: figures.latency.p99_us,
        ratio_p50: figures.latency.p50_us / disk.p50_us,
    })
}

struct Measured {
    figures: FiguresReport,
    created: u64,
    unexpected: Vec<StatusCount>,
    generator: GeneratorReport,
}

fn measure(
    engine: &mut Engine,
    books: &mut Books,
    settings: &Settings,
    visible: bool,
) -> Result<Measured, Failure> {
    let goal = match (settings.extent.transfers, settings.extent.duration) {
        (Some(transfers), _) => Goal::Count(transfers),
        (None, duration) => Goal::Time(duration.unwrap_or_default()),
    };
    let progress = Progress::new("transfers", goal, visible);
    let created_before = books.created();
    let counters_before = engine.counters();
    let cpu_before = cpu_us();
    let now = engine.clock().now();
    let mut load = Load {
        books,
        pace: Pace::new(now, settings.batch, settings.extent),
        figures: Figures::new(now),
        progress: &progress,
        only: None,
    };
    engine.run(&mut load)?;
    let end = engine.clock().now();
    let cpu = cpu_us() - cpu_before;
    progress.finish();
    let unexpected = load
        .figures
        .unexpected()
        .iter()
        .map(|(&code, &count)| StatusCount {
            code,
            name: status_name(code),
            count,
        })
        .collect();
    let figures = load.figures.finish(end);
    let generator = generator_report(cpu, &figures, counters_before, engine.counters());
    Ok(Measured {
        created: books.created() - created_before,
        figures,
        unexpected,
        generator,
    })
}

fn generator_report(
    cpu_us: f64,
    figures: &FiguresReport,
    before: Counters,
    after: Counters,
) -> GeneratorReport {
    GeneratorReport {
        cpu_us_per_batch: cpu_us / (figures.batches as f64).max(1.0),
        cpu_share: cpu_us / 1e6 / figures.elapsed_s,
        unprepared: after.unprepared - before.unprepared,
        repeated: after.repeated - before.repeated,
        reconnected: after.reconnected - before.reconnected,
    }
}

fn verify(engine: &mut Engine, books: &Books, events: u32) -> Result<Verified, Failure> {
    // The clients' buffers hold so many events, so eight times as many ids.
    let batch = engine.events_max(Operation::LookupAccounts).min(events * 8);
    let mut accounts = Verify::accounts(books, batch);
    engine.run(&mut accounts)?;
    accounts.verified.compare_sums();
    let mut transfers = accounts.transfers();
    engine.run(&mut transfers)?;
    Ok(transfers.verified)
}

fn status_name(code: u32) -> String {
    CreateTransferStatus::from_code(code).map_or_else(
        || format!("unknown_status_{code}"),
        |status| status.name().to_string(),
    )
}

/// Processor time of this thread.
fn cpu_us() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}
