//! The command line as people use it: wrong directories, wrong names, two processes, signals.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use stampede::limits::SESSIONS_DEFAULT;
use stampede::message::{Command as Sent, Header};
use zerocopy::IntoBytes;

use super::cluster::{Cluster, PROGRAM, format_arguments, free_address, test_directory};

fn run(arguments: &[String]) -> Output {
    Command::new(PROGRAM)
        .args(arguments)
        .output()
        .expect("the program can be run")
}

fn start(arguments: &[&str]) -> Output {
    let mut all = vec!["start".to_owned()];
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    run(&all)
}

/// The program refuses, says why in words that name the thing, and does not panic.
fn refuses(output: &Output, words: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it should refuse: {error}");
    assert!(!error.contains("panicked"), "{error}");
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
}

#[test]
fn format_a_directory_that_is_formatted_is_refused_and_left_alone() {
    let directory = test_directory("format_twice");
    let path = directory.join("replica");
    let arguments = format_arguments(1, 0, 1, &path);
    assert!(run(&arguments).status.success());
    let superblock = std::fs::read(path.join("superblock")).expect("format makes a superblock");
    refuses(&run(&arguments), &["replica"]);
    assert_eq!(
        std::fs::read(path.join("superblock")).expect("still there"),
        superblock
    );
    std::fs::remove_dir_all(directory).expect("our own directory");
}

#[test]
fn format_impossible_replicas_are_refused() {
    let directory = test_directory("format_impossible");
    refuses(
        &run(&format_arguments(1, 3, 3, &directory.join("a"))),
        &["3"],
    );
    refuses(
        &run(&format_arguments(1, 0, 7, &directory.join("b"))),
        &["7"],
    );
    assert!(!directory.join("a").exists() && !directory.join("b").exists());
    std::fs::remove_dir_all(directory).expect("our own directory");
}

#[test]
fn start_what_was_never_formatted_is_refused() {
    let directory = test_directory("start_unformatted");
    let address = format!("--addresses={}", free_address());
    let missing = directory.join("missing").display().to_string();
    refuses(&start(&[&address, &missing]), &["missing"]);
    let empty = directory.display().to_string();
    refuses(&start(&[&address, &empty]), &["start_unformatted"]);
    std::fs::remove_dir_all(directory).expect("our own directory");
}

#[test]
fn start_another_cluster_replica_or_number_of_addresses_is_refused() {
    let directory = test_directory("start_mismatch");
    let path = directory.join("replica");
    assert!(run(&format_arguments(42, 1, 3, &path)).status.success());
    let path = path.display().to_string();
    let three: Vec<String> = (0..3).map(|_| free_address().to_string()).collect();
    let three = format!("--addresses={}", three.join(","));
    refuses(&start(&[&three, "--cluster=43", &path]), &["42", "43"]);
    refuses(&start(&[&three, "--replica=2", &path]), &["1", "2"]);
    let one = format!("--addresses={}", free_address());
    refuses(&start(&[&one, &path]), &["3"]);
    std::fs::remove_dir_all(directory).expect("our own directory");
}

#[test]
fn start_a_directory_in_use_is_refused_and_the_first_goes_on() {
    let mut cluster = Cluster::start("start_locked", 1);
    let path = cluster.replicas[0].directory.display().to_string();
    let other = format!("--addresses={}", free_address());
    refuses(&start(&[&other, &path]), &["replica-0"]);
    assert!(cluster.exited(0).is_none());
    cluster.client(Duration::from_secs(10));
}

#[test]
fn start_a_port_in_use_is_refused_and_named() {
    let directory = test_directory("start_port");
    let path = directory.join("replica");
    assert!(run(&format_arguments(1, 0, 1, &path)).status.success());
    let address = free_address();
    let taken = TcpListener::bind(address).expect("it was free just before");
    let addresses = format!("--addresses={address}");
    let port = address.port().to_string();
    refuses(&start(&[&addresses, &path.display().to_string()]), &[&port]);
    drop(taken);
    std::fs::remove_dir_all(directory).expect("our own directory");
}

#[test]
fn signals_end_a_replica_in_order() {
    let mut cluster = Cluster::start("signals", 1);
    for signal in [libc::SIGTERM, libc::SIGINT] {
        cluster.client(Duration::from_secs(10));
        let status = cluster.stop(0, signal);
        assert_eq!(
            status.code(),
            Some(0),
            "signal {signal}:\n{}",
            cluster.log(0)
        );
        cluster.launch(0);
        cluster.wait_until_listening(0);
    }
}

#[test]
fn replicas_that_are_not_formatted_alike_say_what_differs_and_the_others_serve() {
    let cluster = Cluster::start_with_misfit("misfit", 3, "--clients-max=7");
    let said = |index: usize, peer: usize, values: [usize; 2]| {
        let [theirs, ours] = values;
        let differs = format!("its --clients-max is {theirs}, here it is {ours}.");
        let log = cluster.log(index);
        let lines = log.lines().filter(|line| line.contains("WARN"));
        let lines = lines.filter(|line| line.contains(&format!("refusing replica {peer}, ")));
        lines.filter(|line| line.contains(&differs)).count()
    };
    let (here, there) = (SESSIONS_DEFAULT, 7);
    let all_said = || {
        [0, 1].map(|index| said(index, 2, [there, here])) == [1, 1]
            && [0, 1].map(|peer| said(2, peer, [here, there])) == [1, 1]
    };
    let end = Instant::now() + Duration::from_secs(30);
    while !all_said() {
        assert!(Instant::now() < end, "{}", cluster.log(0));
        std::thread::sleep(Duration::from_millis(20));
    }
    // It dials again and again, and is spoken of once.
    let mut client = cluster.client(Duration::from_secs(30));
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(200));
        let found = client.lookup_accounts(&[1]);
        assert_eq!(found.expect("two are a quorum"), []);
    }
    assert!(all_said(), "{}", cluster.log(0));
}

#[test]
fn another_release_and_what_nobody_understands_are_refused_and_spoken_of_once() {
    let cluster = Cluster::start("not_understood", 1);
    let mut other_release = Header::new(Sent::Commit, 42, 0, 0);
    other_release.version += 1;
    other_release.seal(&[]);
    for _ in 0..3 {
        for header in [other_release.as_bytes(), &[7; 256]] {
            let mut stream = TcpStream::connect(cluster.replicas[0].address).expect("it listens");
            stream.write_all(header).expect("the kernel takes it");
            let end = stream.read(&mut [0; 1]);
            assert!(matches!(end, Ok(0) | Err(_)), "it is closed, not answered");
        }
    }
    let log = cluster.log(0);
    let warnings = log.lines().filter(|line| line.contains("WARN"));
    let refusals: Vec<&str> = warnings.filter(|line| line.contains("refusing")).collect();
    assert_eq!(refusals.len(), 2, "{log}");
    assert!(refusals[0].contains("run the same one on every machine (peer_version)"));
    assert!(refusals[1].contains("(header_checksum)"), "{log}");
    cluster.client(Duration::from_secs(10));
}
