//! Whole runs against a server in this process: the same code path as the command, over real sockets.
//!
//! The server can lose connections, be slow, refuse, forget and fail over; each test says what the load
//! generator must make of that.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    clippy::field_reassign_with_default,
    clippy::map_entry,
    reason = "a test server: real threads and clocks, and whatever goes wrong fails the test"
)]

mod fake;

use std::time::{Duration, Instant};

use fake::{Behaviour, Fake};
use stampede_bench::args::{Extent, IdOrder, Settings, WorkloadKind};
use stampede_bench::failure::{Exit, Failure};
use stampede_bench::load;
use stampede_bench::report::RunReport;

fn settings(fake: &Fake) -> Settings {
    Settings {
        addresses: fake.addresses.clone(),
        cluster: 0,
        extent: Extent {
            transfers: Some(10_000),
            duration: None,
            rate: None,
        },
        warmup: 0,
        accounts: 500,
        clients: 3,
        batch: 300,
        workload: WorkloadKind::Uniform,
        zipf_theta: 0.99,
        hot_share: 0.5,
        ids: IdOrder::Time,
        seed: 42,
        timeout: Duration::from_secs(5),
        verify: true,
        disk_probe: None,
        label: "test".into(),
        note: None,
    }
}

fn good(settings: &Settings) -> RunReport {
    let report = load(settings, false).unwrap();
    assert!(
        report.is_good(),
        "{}",
        stampede_bench::report::text::run(&report)
    );
    report
}

fn failure(settings: &Settings) -> Failure {
    load(settings, false).unwrap_err()
}

#[test]
fn a_run_creates_what_was_asked_for() {
    let fake = Fake::start(Behaviour::default());
    let report = good(&settings(&fake));
    assert_eq!(report.created, 10_000);
    assert_eq!(report.figures.events, 10_000);
    assert_eq!(report.figures.batches, 34);
    assert_eq!(fake.transfers(), 10_000);
    let verified = report.verified.unwrap();
    assert_eq!(verified.accounts, 500);
    assert!(verified.each_account && verified.samples > 400);
    assert!(report.figures.latency.p50_us > 0.0);
    assert_eq!(
        (report.generator.repeated, report.generator.reconnected),
        (0, 0)
    );
}

#[test]
fn every_workload_and_id_order_is_accepted() {
    let fake = Fake::start(Behaviour::default());
    for workload in [
        WorkloadKind::Uniform,
        WorkloadKind::Zipfian,
        WorkloadKind::Hot,
        WorkloadKind::TwoPhase,
        WorkloadKind::Linked,
    ] {
        for ids in [IdOrder::Time, IdOrder::Random, IdOrder::Reversed] {
            good(&Settings {
                workload,
                ids,
                ..settings(&fake)
            });
        }
    }
    assert_eq!(fake.transfers(), 150_000);
    assert!(fake.pendings() > 0);
}

#[test]
fn single_transfers_and_full_batches_work() {
    let fake = Fake::start(Behaviour::default());
    let extent = Extent {
        transfers: Some(200),
        duration: None,
        rate: None,
    };
    good(&Settings {
        batch: 1,
        clients: 5,
        accounts: 2,
        extent,
        ..settings(&fake)
    });
    let extent = Extent {
        transfers: Some(40_000),
        duration: None,
        rate: None,
    };
    let full = Settings {
        batch: 8189,
        accounts: 20_000,
        extent,
        ..settings(&fake)
    };
    assert_eq!(good(&full).figures.batches, 5);
}

#[test]
fn lost_connections_lose_nothing() {
    let behaviour = Behaviour {
        close_before: Some(7),
        close_after: Some(11),
        ..Behaviour::default()
    };
    let fake = Fake::start(behaviour);
    let report = good(&settings(&fake));
    assert_eq!(fake.transfers(), 10_000);
    assert!(report.generator.reconnected >= 5, "{:?}", report.generator);
    assert!(report.generator.repeated >= 5, "{:?}", report.generator);
}

#[test]
fn replies_may_arrive_in_pieces() {
    let fake = Fake::start(Behaviour {
        fragment: Some(97),
        ..Behaviour::default()
    });
    good(&settings(&fake));
}

#[test]
fn a_new_primary_is_found() {
    let behaviour = Behaviour {
        fail_over_after: Some(30),
        ..Behaviour::default()
    };
    let fake = Fake::cluster(3, behaviour);
    let report = good(&settings(&fake));
    assert_eq!(report.server.view, 1);
    assert_eq!(fake.transfers(), 10_000);
    assert!(report.generator.repeated > 0);
    // Pings find it: long before the request would be repeated for want of an answer.
    assert!(
        report.figures.stall.longest_ms < 500.0,
        "{:?}",
        report.figures.stall
    );
}

#[test]
fn an_open_loop_charges_the_server_for_the_queue() {
    let delay = Duration::from_millis(10);
    let fake = Fake::start(Behaviour {
        delay,
        ..Behaviour::default()
    });
    // 100 batches a second is what it can do; 200 are asked for during half a second.
    let slow = |rate| Settings {
        extent: Extent {
            transfers: Some(10_000),
            duration: None,
            rate,
        },
        batch: 100,
        clients: 2,
        verify: false,
        ..settings(&fake)
    };
    let closed = good(&slow(None));
    let open = good(&slow(Some(20_000)));
    // A closed loop of two clients sees each batch wait for one other.
    let closed_max = closed.figures.latency.max_us;
    assert!(
        closed.figures.latency.p50_us > 15_000.0 && closed_max < 250_000.0,
        "{closed_max}"
    );
    // The last batch was due after 0.5 s and answered after 1 s.
    let open_max = open.figures.latency.max_us;
    assert!(open_max > 450_000.0, "{open_max}");
    assert!((150_000.0..450_000.0).contains(&open.figures.latency.p50_us));
}

#[test]
fn an_open_loop_that_is_kept_up_with_has_its_rate() {
    let fake = Fake::start(Behaviour::default());
    // Five batches, one every 250 ms; the first is due at once.
    let extent = Extent {
        transfers: Some(2_500),
        duration: None,
        rate: Some(2_000),
    };
    let report = good(&Settings {
        extent,
        batch: 500,
        ..settings(&fake)
    });
    let elapsed = report.figures.elapsed_s;
    assert!((1.0..1.4).contains(&elapsed), "{elapsed}");
    // Idle times between due batches are no stalls, and are in nobody's latency.
    assert!(report.figures.stall.longest_ms < 200.0);
    assert!(report.figures.latency.max_us < 200_000.0);
}

#[test]
fn a_duration_ends_a_run() {
    let fake = Fake::start(Behaviour::default());
    let extent = Extent {
        transfers: None,
        duration: Some(Duration::from_millis(1200)),
        rate: None,
    };
    let report = good(&Settings {
        extent,
        warmup: 1000,
        ..settings(&fake)
    });
    assert!(
        (1.2..1.95).contains(&report.figures.elapsed_s),
        "{}",
        report.figures.elapsed_s
    );
    assert_eq!(report.figures.seconds.whole, 1);
    assert_eq!(fake.transfers() as u64, report.created + 1000);
}

#[test]
fn a_batch_acknowledged_and_lost_is_found() {
    let fake = Fake::start(Behaviour {
        forget: Some(20),
        ..Behaviour::default()
    });
    let report = load(&settings(&fake), false).unwrap();
    assert_eq!(report.rejected(), 0);
    assert!(!report.is_good());
    let verified = report.verified.as_ref().unwrap();
    let text = verified.differences.join("\n");
    assert!(
        text.contains("account") && verified.differences_count > 100,
        "{text}"
    );
}

#[test]
fn refused_events_are_named_and_left_out_of_the_balances() {
    let fake = Fake::start(Behaviour {
        refuse: Some(1000),
        ..Behaviour::default()
    });
    let report = load(&settings(&fake), false).unwrap();
    assert_eq!(report.created, 9_990);
    assert_eq!(report.unexpected.len(), 1);
    assert_eq!(report.unexpected[0].name, "exceeds_credits");
    assert_eq!(report.unexpected[0].count, 10);
    assert!(report.verified.as_ref().unwrap().is_good());
    assert!(!report.is_good());
}

#[test]
fn an_eviction_ends_the_run_with_its_reason() {
    let fake = Fake::start(Behaviour {
        evict_after: Some(20),
        ..Behaviour::default()
    });
    let failure = failure(&settings(&fake));
    assert_eq!(failure.exit, Exit::Protocol);
    assert!(failure.message.contains("no_session"), "{failure}");
}

#[test]
fn a_server_with_small_requests_says_how_small() {
    let fake = Fake::start(Behaviour {
        batch_size_limit: Some(32_512),
        ..Behaviour::default()
    });
    let failure = failure(&settings(&fake));
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.message.contains("at most 253"), "{failure}");
    good(&Settings {
        batch: 253,
        ..settings(&fake)
    });
}

#[test]
fn without_a_server_the_run_says_so_soon() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let fake = Fake::start(Behaviour::default());
    let start = Instant::now();
    let failure = failure(&Settings {
        addresses: vec![port],
        ..settings(&fake)
    });
    assert_eq!(failure.exit, Exit::Unreachable);
    assert!(failure.message.contains("no server answers"), "{failure}");
    assert!(failure.message.contains(&port.to_string()), "{failure}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn another_cluster_is_suspected_when_connections_close() {
    let fake = Fake::start(Behaviour {
        cluster: 7,
        ..Behaviour::default()
    });
    let failure = failure(&Settings {
        timeout: Duration::from_secs(20),
        ..settings(&fake)
    });
    assert_eq!(failure.exit, Exit::Unreachable);
    assert!(failure.message.contains("--cluster"), "{failure}");
    good(&Settings {
        cluster: 7,
        ..settings(&fake)
    });
}

#[test]
fn a_server_that_stops_answering_is_given_up() {
    let fake = Fake::cluster(
        2,
        Behaviour {
            fail_over_after: Some(10),
            ..Behaviour::default()
        },
    );
    // Only the first replica is known, and it is not the primary any more.
    let addresses = fake.addresses[..1].to_vec();
    let timeout = Duration::from_millis(1500);
    let failure = failure(&Settings {
        addresses,
        timeout,
        ..settings(&fake)
    });
    assert_eq!(failure.exit, Exit::Unreachable);
    assert!(
        failure.message.contains("nothing was acknowledged for 1."),
        "{failure}"
    );
}

#[test]
fn the_probe_compares_with_the_disk() {
    let fake = Fake::start(Behaviour::default());
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let report = good(&Settings {
        disk_probe: Some(directory.path().into()),
        ..settings(&fake)
    });
    let probe = report.probe.unwrap();
    assert_eq!(probe.requests, 1000);
    assert!((probe.ratio_p50 - probe.request_p50_us / probe.disk.p50_us).abs() < 1e-9);
    // The probe's transfers are checked with the others but are not part of the load's figures.
    assert_eq!(report.created, 10_000);
    assert_eq!(fake.transfers(), 11_000);
}
