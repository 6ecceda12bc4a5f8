//! Conversations to learn the protocol from, kept as text: `tests/transcripts/`.
//!
//! Each is written by the simulator and compared with what is kept, so a review of a change sees what
//! it does to the conversation. To write them anew after a change that is meant:
//!
//! ```text
//! STAMPEDE_BLESS=1 cargo test --test simulator transcripts
//! ```

use std::path::PathBuf;

use super::vocabulary::*;

/// Compares a conversation with the one that is kept, or keeps it.
fn expect(name: &str, prose: &str, conversation: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/transcripts")
        .join(format!("{name}.txt"));
    let text = format!("{}\n\n{conversation}", prose.trim());
    if std::env::var_os("STAMPEDE_BLESS").is_some() {
        std::fs::write(&path, text).expect("the tree can be written to");
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    if let Some(line) = (1..)
        .zip(text.lines().zip(kept.lines().chain(std::iter::repeat(""))))
        .find(|(_, (now, before))| now != before)
        .map(|(line, _)| line)
        .or_else(|| (text.lines().count() != kept.lines().count()).then_some(0))
    {
        panic!(
            "{} differs from line {line} on. If that is meant: STAMPEDE_BLESS=1 cargo test --test simulator \
             transcripts. It is now:\n{text}",
            path.display()
        );
    }
}

/// A cluster that serves, with clients that are registered and wait.
fn at_rest(options: Options) -> Result<Simulation, Violation> {
    let options = Options {
        requests: 0,
        think_max: 0,
        ..options
    };
    let mut cluster = Simulation::new(options, 1)?;
    assert!(cluster.run_until(SECOND, |c| c.primary().is_some())?);
    cluster.submit(1);
    assert!(cluster.run_until(5 * SECOND, Simulation::clients_done)?);
    cluster.run_for(200 * MILLISECOND)?;
    Ok(cluster)
}

const ONE_CLIENT: Options = Options {
    client_count: 1,
    ..Options::CALM
};

#[test]
fn normal() -> Scenario {
    let mut cluster = at_rest(ONE_CLIENT)?;
    cluster.transcribe();
    cluster.submit(2);
    assert!(cluster.run_until(SECOND, Simulation::clients_done)?);
    cluster.run_for(30 * MILLISECOND)?;
    let prose = "
Normal operation: two requests of one client, three replicas, r0 is the primary of view 0.

A client sends a request to the primary it knows and to one other replica, which leaves it to the primary. The
prepare goes to both backups while it is on its way to the own disk; the client is told as soon as two of three
disks hold it, whichever two. Backups learn of the commit from the next prepare, or from a commit message when
nothing follows.";
    expect("normal", prose, &cluster.transcript());
    ends_well(&mut cluster)
}

#[test]
fn view_change_the_primary_dies() -> Scenario {
    let mut cluster = at_rest(ONE_CLIENT)?;
    cluster.transcribe();
    cluster.submit(2);
    let before = cluster.replies();
    while cluster.replies() == before {
        cluster.run_for(MILLISECOND / 10)?;
    }
    cluster.crash(0);
    assert!(cluster.run_until(5 * SECOND, Simulation::clients_done)?);
    cluster.run_for(30 * MILLISECOND)?;
    let prose = "
View change: the primary loses power with a request on its way.

The broken connections are a hint: both backups would like to leave at once, and two of three are a view-change
quorum. Each makes the new view durable before it joins, the next primary merges the logs (they are equal here),
makes the beginning of the view durable, and announces it. The client has no answer, and sends the same bytes again:
to the primary it knows, and to one other, which is the new one by chance, or would pass them on to it.";
    expect("view-change-primary-dies", prose, &cluster.transcript());
    ends_well(&mut cluster)
}

#[test]
fn view_change_a_primary_that_hears_nobody() -> Scenario {
    let mut cluster = at_rest(ONE_CLIENT)?;
    cluster.transcribe();
    cluster.cut(1, 0);
    cluster.cut(2, 0);
    assert!(cluster.run_until(2 * SECOND, |c| c.primary() == Some(1))?);
    cluster.run_for(30 * MILLISECOND)?;
    let prose = "
View change: nothing reaches the primary any more, while the backups hear it well.

They would follow it for ever, and nothing would commit. A primary that has not heard a replication quorum for
300 ms says itself that it would like to be replaced, and that is enough for the others to agree.";
    expect("view-change-deaf-primary", prose, &cluster.transcript());
    ends_well(&mut cluster)
}

#[test]
fn repair_a_gap() -> Scenario {
    let mut cluster = at_rest(ONE_CLIENT)?;
    cluster.transcribe();
    cluster.cut(0, 2);
    cluster.submit(3);
    assert!(cluster.run_until(SECOND, Simulation::clients_done)?);
    cluster.heal();
    cluster.run_for(100 * MILLISECOND)?;
    let prose = "
Repair: three prepares to r2 vanish on the way; the cluster goes on without it.

When the link is back, a heartbeat shows r2 that the log is longer than its own. It asks the primary for what it
lacks; the answer is the checksums of what belongs to the log of this view, then the prepares.";
    expect("repair-gap", prose, &cluster.transcript());
    ends_well(&mut cluster)
}

#[test]
fn repair_damaged_entries() -> Scenario {
    let mut cluster = at_rest(ONE_CLIENT)?;
    assert!(answers(&mut cluster, 6)?);
    cluster.run_for(200 * MILLISECOND)?;
    cluster.transcribe();
    assert!(cluster.damage_entry(1, 3, Damage::Rot));
    assert!(cluster.damage_entry(1, 6, Damage::Latent));
    cluster.crash(1);
    cluster.start(1)?;
    cluster.run_for(300 * MILLISECOND)?;
    let prose = "
Repair: a disk has damaged two entries in the middle of the log; a restart finds it.

They are not lost: the entry behind each names its checksum, so r1 knows what it lacks and takes nothing else for it.
Until it has them, it acknowledges nothing above the first, and would not say that it never had them.";
    expect("repair-damaged-entries", prose, &cluster.transcript());
    ends_well(&mut cluster)
}

#[test]
fn recovery_a_disk_is_lost() -> Scenario {
    let mut cluster = at_rest(ONE_CLIENT)?;
    assert!(answers(&mut cluster, 2)?);
    cluster.run_for(200 * MILLISECOND)?;
    cluster.transcribe();
    assert!(cluster.lose_disk(2));
    cluster.start(2)?;
    cluster.run_for(300 * MILLISECOND)?;
    let prose = "
Recovery: the disk of r2 is lost, and `stampede recover` has made a new one.

It says in its hello that it has forgotten what it promised, and follows without a vote. When all others have welcomed
it, and so dropped what it had said before, and it holds the whole log of the view on its disk, it votes again.";
    expect("recovery-lost-disk", prose, &cluster.transcript());
    ends_well(&mut cluster)
}

#[test]
fn recovery_a_disk_is_set_back() -> Scenario {
    let mut cluster = at_rest(ONE_CLIENT)?;
    cluster.copy_disk(1);
    cluster.start(1)?;
    cluster.run_for(200 * MILLISECOND)?;
    assert!(answers(&mut cluster, 2)?);
    cluster.run_for(200 * MILLISECOND)?;
    cluster.transcribe();
    assert!(cluster.set_back(1));
    cluster.start(1)?;
    cluster.run_for(400 * MILLISECOND)?;
    let prose = "
Recovery: somebody has put an older copy of r1's disk back. Nothing on that disk says so.

But the others have heard r1 since: the start that it names is over, and they say so. It does not vote from then on,
begins a later life in which it says that it has forgotten, and catches up like one whose disk was lost.";
    expect("recovery-set-back", prose, &cluster.transcript());
    ends_well(&mut cluster)
}

#[test]
fn arrival_one_replica_restarts() -> Scenario {
    let mut cluster = at_rest(ONE_CLIENT)?;
    cluster.transcribe();
    cluster.crash(2);
    cluster.submit(2);
    assert!(cluster.run_until(SECOND, Simulation::clients_done)?);
    cluster.start(2)?;
    cluster.run_for(300 * MILLISECOND)?;
    let prose = "
Arrival: a backup loses power, misses two requests, and comes back.

It says hello only when this start of it is durable, and answers nothing before the others have welcomed it: one of
them might know that its files were set back. Then it fetches what it has missed.";
    expect("arrival-one-restarts", prose, &cluster.transcript());
    ends_well(&mut cluster)
}

#[test]
fn arrival_all_lose_power() -> Scenario {
    let mut cluster = at_rest(ONE_CLIENT)?;
    cluster.transcribe();
    for replica in 0..3 {
        cluster.crash(replica);
    }
    for replica in 0..3 {
        cluster.start(replica)?;
    }
    cluster.submit(1);
    assert!(cluster.run_until(3 * SECOND, Simulation::clients_done)?);
    let prose = "
Arrival: all replicas lose power at once and come back.

The former primary does not resume its view, because prepares of its former life may still be on the way: it asks the
others to leave. One view change later everything that was acknowledged is served again.";
    expect("arrival-all-lose-power", prose, &cluster.transcript());
    ends_well(&mut cluster)
}

#[test]
fn sessions_eviction() -> Scenario {
    let options = Options {
        client_count: 3,
        sessions_max: 2,
        requests: 0,
        think_max: 0,
        ..Options::CALM
    };
    let mut cluster = Simulation::new(options, 4)?;
    assert!(cluster.run_until(SECOND, |c| c.primary().is_some())?);
    for client in 0..2 {
        cluster.submit_by(client, 1);
        assert!(cluster.run_until(SECOND, Simulation::clients_done)?);
        cluster.run_for(100 * MILLISECOND)?;
    }
    cluster.transcribe();
    for (client, requests) in [(2, 1), (0, 2)] {
        cluster.submit_by(client, requests);
        assert!(cluster.run_until(SECOND, Simulation::clients_done)?);
        cluster.run_for(50 * MILLISECOND)?;
    }
    let prose = "
Sessions: three clients, and a table for two. c0 and c1 have sessions already.

The register of c2 pushes out the session whose latest operation is the oldest, that of c0: on every replica at the
same operation, because the log decides. c0 is told when it asks next, and registers anew, which pushes out c1.";
    expect("sessions-eviction", prose, &cluster.transcript());
    ends_well(&mut cluster)
}

#[test]
fn transfer_a_checkpoint() -> Scenario {
    let mut cluster = cluster_with_small_journals(MILLISECOND / 3)?;
    leave_behind(&mut cluster, 2)?;
    cluster.transcribe();
    cluster.start(2)?;
    let goes_on = |c: &Simulation| c.progress(2).is_some_and(|p| p.head > p.checkpoint);
    for _ in 0..1_000 {
        cluster.run_for(MILLISECOND)?;
        let installed = cluster.progress(2).is_some_and(|p| p.checkpoint > 0);
        if installed && goes_on(&cluster) {
            break;
        }
    }
    let conversation = cluster.transcript();
    assert!(cluster.run_until(10 * SECOND, |c| has_caught_up(c, 2))?);
    let prose = "
State transfer: r2 was away until the others had let go of the log that it would need next.

The answers to its question say where the logs of the others begin now: nobody has what it lacks. It asks for a
checkpoint, fetches the manifest and the files that it does not have, in blocks that are verified one by one, refers to
them in its superblock, and opens its directory again as after a restart. What the checkpoint does not cover comes
through the log.";
    expect("state-transfer", prose, &conversation);
    ends_well(&mut cluster)
}

#[test]
fn mend_a_segment() -> Scenario {
    let mut cluster = cluster_with_small_journals(MILLISECOND / 3)?;
    while cluster.segments(2) == 0 {
        assert!(answers(&mut cluster, 50)?);
    }
    cluster.run_for(10 * SECOND)?;
    assert!(cluster.damage_segment(2, 0, 0));
    cluster.transcribe();
    assert!(cluster.run_until(10 * SECOND, |c| c.has_whole_files(2))?);
    let conversation = loop {
        cluster.run_for(MILLISECOND / 4)?;
        if !has_caught_up(&cluster, 2) {
            break cluster.transcript();
        }
    };
    assert!(cluster.run_until(SOON, |c| is_whole(c, 2))?);
    let prose = "
Mending: a bit of a checkpoint file of r2 has flipped, and nobody has asked for what is in there.

The scrub comes by. The file's checksum says what it must be, so r2 asks the others for it, piece by piece, and goes on
meanwhile. When it is whole and durable again, r2 opens its directory anew, so that nothing reads from the old one.";
    expect("mending", prose, &conversation);
    ends_well(&mut cluster)
}

#[test]
fn every_conversation_that_is_kept_is_told_of_in_the_documents() {
    let tree = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(tree.join("docs/vsr.md")).expect("it is there");
    let kept = std::fs::read_dir(tree.join("tests/transcripts")).expect("it is there");
    for file in kept {
        let name = file.expect("it can be read").file_name();
        let link = format!("(../tests/transcripts/{})", name.to_string_lossy());
        assert!(text.contains(&link), "docs/vsr.md has no {link}");
    }
}
