//! The runtime against a driver that journals what it receives and sends it back: real sockets,
//! real files, real threads.

mod echo;
mod running;

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use socket2::SockRef;
use stampede_journal::WriteOp;

use super::*;
use crate::limits::{BODY_SIZE_MAX, HEADER_SIZE, HEADROOM_SIZE, MEMBERS_MAX, SECTOR_SIZE};
use crate::message::{Claim, PoolConfig, checksum};
use echo::*;
use running::*;

// ── receiving and sending ───────────────────────────────────────────────────────────────────────

#[test]
fn messages_of_all_sizes_come_back() {
    let running = Running::start(Setup::default());
    let mut clients: Vec<Client> = (0..4).map(|_| running.client()).collect();
    for size in [0, 1, 100, 7680, 7681, 70_000, 200_000, BODY_SIZE_MAX] {
        let bodies: Vec<Vec<u8>> = (0..4).map(|seed| body(size, seed)).collect();
        for (client, body) in clients.iter_mut().zip(&bodies) {
            client.send(ECHO, body);
        }
        for (client, body) in clients.iter_mut().zip(&bodies) {
            assert!(client.receive().1 == *body);
        }
    }
    drop(clients);
    eventually("clients closed", || {
        running.seen.closed.load(Ordering::Relaxed) == 4
    });
    let report = running.stop();
    assert_eq!((report.accepted, report.received), (4, 32));
}

#[test]
fn a_request_that_dribbles_in_is_received_whole() {
    let running = Running::start(Setup::default());
    let mut client = running.client();
    let body = body(3000, 9);
    let bytes = encode(ECHO, CLIENT, &body);
    let mut rest = &bytes[..];
    // The header in three pieces, the third of them with the first byte of the body.
    for piece in [1, 100, 156, 1, 2, 997, 1500] {
        client.0.write_all(&rest[..piece]).unwrap();
        rest = &rest[piece..];
        std::thread::sleep(Duration::from_millis(5));
    }
    client.0.write_all(rest).unwrap();
    assert!(client.receive().1 == body);
    running.stop();
}

#[test]
fn replies_to_a_slow_reader_arrive_whole_and_in_order() {
    let running = Running::start(Setup::default());
    let mut client = running.client();
    SockRef::from(&client.0)
        .set_recv_buffer_size(32 * 1024)
        .unwrap();
    let bodies: Vec<Vec<u8>> = (0..8).map(|seed| body(900_000, seed)).collect();
    for body in &bodies {
        client.send(EXECUTE, body);
    }
    std::thread::sleep(Duration::from_millis(50));
    for body in &bodies {
        assert!(client.receive().1 == *body);
    }
    running.stop();
}

#[test]
fn many_small_messages_are_pipelined() {
    let running = Running::start(Setup::default());
    let mut client = running.client();
    for round in 0..50u8 {
        let bodies: Vec<Vec<u8>> = (0..20).map(|k| body(k * 10, round)).collect();
        let bytes: Vec<u8> = bodies
            .iter()
            .flat_map(|body| encode(EXECUTE, CLIENT, body))
            .collect();
        client.0.write_all(&bytes).unwrap();
        for body in &bodies {
            assert!(client.receive().1 == *body);
        }
    }
    let report = running.stop();
    assert_eq!(report.received, 1000);
    assert_eq!(report.tasks_inline, 1000);
}

// ── connections that end ────────────────────────────────────────────────────────────────────────

#[test]
fn a_connection_reset_in_the_middle_of_a_message_leaves_nothing_behind() {
    let running = Running::start(Setup::default());
    for cut in [10, 256, 300, 50_000] {
        let mut client = running.client();
        let bytes = encode(ECHO, CLIENT, &body(100_000, 1));
        client.0.write_all(&bytes[..cut]).unwrap();
        std::thread::sleep(Duration::from_millis(10));
        // Closing with this option resets the connection.
        SockRef::from(&client.0)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
    eventually("all four closed", || {
        running.seen.closed.load(Ordering::Relaxed) == 4
    });
    let mut last = running.client();
    last.call(ECHO, b"still here");
    let report = running.stop();
    // A receive that was cut short swallows the error; the next one sees only the end.
    let count = |reason| report.closed.get(reason).copied().unwrap_or_default();
    assert_eq!(count("reset") + count("end"), 4, "{report:?}");
}

#[test]
fn a_client_that_vanishes_before_its_answer_does_no_harm() {
    let running = Running::start(Setup::default());
    for _ in 0..20 {
        running.client().send(ECHO, &body(500_000, 3));
    }
    eventually("all closed", || {
        running.seen.closed.load(Ordering::Relaxed) == 20
    });
    running.client().call(ECHO, b"still here");
    running.stop();
}

#[test]
fn nonsense_closes_the_connection_with_a_counted_reason() {
    let running = Running::start(Setup::default());
    let mut client = running.client();
    client.0.write_all(&[7; 300]).unwrap();
    assert_eq!(client.expect_end(), 0);
    let report = running.stop();
    assert_eq!(report.closed.get("refused"), Some(&1));
}

#[test]
fn what_was_queued_arrives_before_a_close() {
    let running = Running::start(Setup::default());
    let mut client = running.client();
    let body = body(BODY_SIZE_MAX, 8);
    client.send(CLOSE, &body);
    // Bytes that nobody will read: they must not turn the end into a reset.
    client.send(ECHO, &[1; 5000]);
    assert!(client.receive().1 == body);
    assert_eq!(client.expect_end(), 0);
    let report = running.stop();
    assert_eq!(report.closed.get("asked_to"), Some(&1));
}

#[test]
fn a_client_that_never_reads_is_disconnected() {
    let running = Running::start(Setup::default());
    let mut client = running.client();
    SockRef::from(&client.0).set_recv_buffer_size(4096).unwrap();
    client.send(FLOOD, &body(BODY_SIZE_MAX, 1));
    eventually("it is closed", || {
        running.seen.closed.load(Ordering::Relaxed) == 1
    });
    let report = running.stop();
    assert_eq!(report.closed.get("does_not_read"), Some(&1));
}

// ── bounds ──────────────────────────────────────────────────────────────────────────────────────

#[test]
fn clients_wait_in_their_sockets_while_buffers_are_short() {
    let running = Running::start(Setup {
        pool: PoolConfig {
            small: 2000,
            medium: 40,
            large: 4,
            huge_pages: false,
        },
        ..Setup::default()
    });
    let mut clients: Vec<Client> = (0..9).map(|_| running.client()).collect();
    let body = body(BODY_SIZE_MAX, 5);
    let threads: Vec<_> = clients
        .drain(..)
        .map(|mut client| {
            let body = body.clone();
            std::thread::spawn(move || client.call(HOLD, &body))
        })
        .collect();
    // A small message passes while large ones wait, and a replica may use the reserve.
    running.client().call(ECHO, b"small");
    let mut replica = running.client();
    replica.0.write_all(&encode(HOLD, 1, &body)).unwrap();
    assert_eq!(replica.receive().1, body);
    for thread in threads {
        thread.join().unwrap();
    }
    let report = running.stop();
    assert!(report.held_back > 0, "{report:?}");
}

#[test]
fn clients_that_do_not_read_keep_buffers_from_others_only_for_a_moment() {
    let running = Running::start(Setup::default());
    let request = encode(ECHO, CLIENT, &body(BODY_SIZE_MAX, 3));
    // Each asks for far more than sockets hold, until it is cut off.
    let silent: Vec<_> = (0..4)
        .map(|_| {
            let (mut client, request) = (running.client(), request.clone());
            std::thread::spawn(move || {
                let mut asked = 0;
                while client.0.write_all(&request).is_ok() {
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    eventually("buffers are short", || {
        !running.pool.has_room(BODY_SIZE_MAX, Claim::Client)
    });
    let body = body(BODY_SIZE_MAX, 4);
    running.client().call(ECHO, &body);
    for thread in silent {
        assert!(thread.join().unwrap() > 0);
    }
    running.client().call(ECHO, &body);
    let report = running.stop();
    assert_eq!(report.closed["does_not_read"], 4, "{report:?}");
}

#[test]
fn however_many_clients_there_are_a_replica_gets_a_place() {
    assert!(
        host::raise_open_files() > 4 * CONNECTIONS_MAX as u64,
        "this test opens many files"
    );
    let running = Running::start(Setup::default());
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..CONNECTIONS_MAX - 2 * MEMBERS_MAX {
        let mut client = running.client();
        client.call(ECHO, b"in");
        clients.push(client);
    }
    // The last places: a client may not have one, nor somebody who says nothing.
    let mut late = running.client();
    late.send(ECHO, b"and me");
    assert_eq!(late.expect_end(), 0);
    assert_eq!(running.client().expect_end(), 0);
    let mut replica = running.client();
    replica.0.write_all(&encode(HOLD, 1, b"hello")).unwrap();
    assert_eq!(replica.receive().1, b"hello");
    // A place that comes free can be had.
    clients.truncate(1000);
    eventually("a place comes free", || {
        let mut client = running.client();
        client.send(ECHO, b"again");
        client.try_receive().is_some()
    });
    let report = running.stop();
    assert!(report.closed["connections_max"] >= 2, "{report:?}");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let address = free_address();
    let _first = Listener::bind(address).unwrap();
    let error = Listener::bind(address).unwrap_err().to_string();
    assert!(
        error.contains(&address.to_string()) && error.contains("taken"),
        "{error}"
    );
    let elsewhere = SocketAddr::from(([203, 0, 113, 7], 3000));
    let error = Listener::bind(elsewhere).unwrap_err().to_string();
    assert!(error.contains("does not belong to this machine"), "{error}");
}

// ── disk ────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn what_was_journaled_is_in_the_file_and_can_be_read_back() {
    let running = Running::start(Setup::default());
    let mut client = running.client();
    let body = body(400_000, 2);
    client.call(READ_BACK, &body);
    let file = std::fs::read(running.directory.path().join("journal")).unwrap();
    let start = HEADROOM_SIZE + HEADER_SIZE;
    assert_eq!(checksum(&file[start..start + body.len()]), checksum(&body));
    client.call(SUPERBLOCK, b"x");
    let file = std::fs::read(running.directory.path().join("superblock")).unwrap();
    assert_eq!(file[SECTOR_SIZE - 1], 0);
    assert!(
        file[SECTOR_SIZE..2 * SECTOR_SIZE]
            .iter()
            .all(|b| *b == 0xab)
    );
    assert_eq!(file[2 * SECTOR_SIZE], 0);
    running.stop();
}

#[test]
fn more_writes_than_slots_all_complete() {
    let running = Running::start(Setup::default());
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let mut client = running.client();
            std::thread::spawn(move || {
                let request = encode(ECHO, CLIENT, &[4; 100]);
                client.0.write_all(&request.repeat(200)).unwrap();
                for _ in 0..200 {
                    assert_eq!(client.receive().1, [4; 100]);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(running.seen.written.load(Ordering::Relaxed), 1600);
    running.stop();
}

#[test]
fn a_failed_journal_write_reaches_the_driver_and_stops_the_process() {
    let running = Running::start(Setup {
        writable: false,
        ..Setup::default()
    });
    running.client().send(ECHO, b"lost");
    let error = running.thread.join().unwrap().unwrap_err();
    assert!(matches!(error, Error::Fatal(_)), "{error}");
    assert!(error.to_string().contains("Bad file descriptor"), "{error}");
    assert!(running.pool.is_whole());
}

#[test]
fn a_write_beyond_the_file_size_limit_is_reported() {
    // The kernel writes beyond the end of a file gladly, so this closes the door with a full disk:
    // /dev/full answers every write with ENOSPC.
    let pool = Pool::new(&Setup::default().pool).unwrap();
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    let files = Files::of(vec![full().into()], full().into());
    let mut ring = ring::Ring::new().unwrap();
    let mut disk = disk::Disk::new(files, &mut ring);
    let buffer = pool.acquire(0).unwrap().freeze();
    let write = WriteOp {
        token: 9,
        file: 0,
        offset: 0,
        len: SECTOR_SIZE,
        buffer,
    };
    disk.write(write, &mut ring);
    let mut completions = Vec::new();
    while completions.is_empty() {
        ring.enter(ring::Wait::Until(Duration::from_secs(5)))
            .unwrap();
        ring.completions(&mut completions);
    }
    let input = disk.on_completion(completions[0], &mut ring).unwrap();
    let Input::JournalWritten { token: 9, result } = input else {
        panic!("{input:?}");
    };
    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    assert_eq!(disk.writes_in_flight(), 0);
    assert!(pool.is_whole());
}

// ── threads ─────────────────────────────────────────────────────────────────────────────────────

#[test]
fn quick_and_slow_tasks_are_answered_in_order() {
    let running = Running::start(Setup {
        // No tick comes to the rescue of a wake-up that is lost.
        tick: 30_000_000_000,
        ..Setup::default()
    });
    let mut client = running.client();
    for _ in 0..100 {
        let operations = [
            EXECUTE,
            EXECUTE_SLOWLY,
            EXECUTE,
            EXECUTE,
            EXECUTE_SLOWLY,
            EXECUTE,
        ];
        for (index, operation) in (0u8..).zip(operations) {
            client.send(operation, &body(10, index));
        }
        for index in 0..6 {
            assert_eq!(client.receive().1, body(10, index));
        }
    }
    let report = running.stop();
    assert_eq!(report.tasks_inline + report.tasks_handed, 600);
    assert!(
        report.tasks_inline >= 1 && report.tasks_handed >= 200,
        "{report:?}"
    );
}

#[test]
fn the_builder_answers_and_wakes() {
    let running = Running::start(Setup {
        tick: 30_000_000_000,
        ..Setup::default()
    });
    let mut client = running.client();
    for _ in 0..5 {
        client.call(CHECKPOINT, b"now");
    }
    running.stop();
}

#[test]
fn a_stop_ends_a_sleeping_replica_at_once() {
    let running = Running::start(Setup {
        tick: 30_000_000_000,
        ..Setup::default()
    });
    let mut client = running.client();
    client.call(ECHO, b"hello");
    let start = Instant::now();
    running.stop();
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(client.expect_end(), 0);
}

#[test]
fn writes_in_flight_are_answered_before_a_stop() {
    let running = Running::start(Setup::default());
    let mut client = running.client();
    let body = body(BODY_SIZE_MAX, 6);
    for _ in 0..8 {
        client.send(ECHO, &body);
    }
    eventually("the first is written", || {
        running.seen.written.load(Ordering::Relaxed) > 0
    });
    let seen = Arc::clone(&running.seen);
    let reader = std::thread::spawn(move || {
        let mut count = 0u64;
        let mut bytes = vec![0; HEADER_SIZE + BODY_SIZE_MAX];
        while client.0.read_exact(&mut bytes).is_ok() {
            count += 1;
        }
        count
    });
    running.stop();
    assert_eq!(reader.join().unwrap(), seen.written.load(Ordering::Relaxed));
}

// ── other replicas ──────────────────────────────────────────────────────────────────────────────

#[test]
fn replicas_find_each_other_again() {
    let addresses = vec![free_address(), free_address()];
    let start = |replica: u8| {
        Running::start(Setup {
            addresses: addresses.clone(),
            replica,
            ..Setup::default()
        })
    };
    let first = start(0);
    // Nobody there: it goes on dialling.
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(first.seen.connected.load(Ordering::Relaxed), 0);
    for round in 1..=3 {
        let second = start(1);
        eventually("both hear from each other", || {
            first.seen.from_replicas.load(Ordering::Relaxed) == round
                && second.seen.from_replicas.load(Ordering::Relaxed) == 1
        });
        assert_eq!(first.seen.connected.load(Ordering::Relaxed), round);
        second.stop();
        eventually("the loss is noticed", || {
            first.seen.lost.load(Ordering::Relaxed) == round
        });
    }
    let report = first.stop();
    assert_eq!(report.dropped, 0);
}
