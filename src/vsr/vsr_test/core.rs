//! One protocol core, told by hand what others have said: its answer to each message.
//!
//! Nobody is behind it: a test makes a replica with a log of its choice and looks at what it sends, promises
//! and believes. Whole clusters are in `vsr_test`.

use super::super::*;
use super::cluster::{CLUSTER, Disk, config, control, recovered};
use crate::limits::SUFFIX_MAX;
use crate::message::PoolConfig;

fn at(now: u64) -> Time {
    Time {
        monotonic: now,
        wall: now,
    }
}

/// A replica that comes back with these entries after `base`, in view 1, whose primary is replica 1.
fn comes_back(replica: u8, log_view: u32, base: Op, entries: &[u128], commit: Op) -> Vsr {
    let promise = Promise {
        view: 1,
        log_view,
        ..Promise::default()
    };
    let mut recovered = recovered(&Disk {
        promise,
        ..Disk::default()
    });
    recovered.log = Log::new(base, 1000 + u128::from(base), 0);
    for checksum in entries {
        recovered.log.push(Entry {
            checksum: *checksum,
            client: 0,
            timestamp: 0,
            size: 256,
        });
    }
    (recovered.checkpoint_op, recovered.commit) = (base, commit);
    let pool = Pool::new(&PoolConfig {
        small: 256,
        medium: 0,
        large: 0,
        huge_pages: false,
    });
    Vsr::new(config(replica, 3), pool.unwrap(), recovered)
}

/// What a replica says to an event, as replica 1 would say it.
fn answers(vsr: &mut Vsr, event: Event) -> Vec<Message> {
    let mut effects = Vec::new();
    vsr.on_event(event, at(1_000_000_000), &mut effects);
    let sent = effects.into_iter().filter_map(|effect| {
        let Effect::Send { message, .. } = effect else {
            return None;
        };
        Some(message)
    });
    let as_primary = sent.map(|message| {
        let mut copy = vsr.pool.acquire(message.body().len()).unwrap();
        let mut header = *message.header();
        header.replica = 1;
        copy.fill(header, message.body());
        copy.freeze()
    });
    as_primary.collect()
}

#[test]
fn logs_are_compared_where_the_other_begins_if_it_begins_above_what_is_verified() {
    let checksums: Vec<u128> = (1..=20).map(|op| 1000 + op).collect();
    for (mine, agrees) in [(1000, true), (2000, false)] {
        // Committed up to 5 for all it knows, the rest of 12 may have died; the other's log begins
        // after 8.
        let entries: Vec<u128> = (1..=12)
            .map(|op| op + if op <= 6 { 1000 } else { mine })
            .collect();
        let mut lacking = comes_back(2, 0, 0, &entries, 5);
        let mut other = comes_back(0, 1, 8, &checksums[8..], 20);
        let mut view = lacking.pool.acquire(3 * 16).unwrap();
        let mut header = Header::new(Command::View, CLUSTER, 1, 1);
        (header.op, header.commit, header.context) = (20, 20, checksums[19]);
        view.fill(header, &body_of(&checksums[17..]));
        let asked = answers(&mut lacking, Event::Message(view.freeze()));
        let asked = asked
            .iter()
            .find(|m| m.header().command() == Some(Command::GetPrepares));
        let told = answers(&mut other, Event::Message(asked.unwrap().clone()));
        assert_eq!(told[0].header().command(), Some(Command::Headers));
        answers(&mut lacking, Event::Message(told[0].clone()));
        assert_eq!(lacking.is_beyond_reach(), !agrees);
        assert_eq!(lacking.commit(), if agrees { 12 } else { 5 });
    }
}

#[test]
fn who_is_beyond_the_reach_of_its_donor_is_not_helped_by_what_others_have() {
    let checksums: Vec<u128> = (1..=20).map(|op| 1000 + op).collect();
    let mut lacking = comes_back(2, 0, 0, &checksums[..5], 5);
    let mut view = lacking.pool.acquire(3 * 16).unwrap();
    let mut header = Header::new(Command::View, CLUSTER, 1, 1);
    (header.op, header.commit, header.context) = (20, 20, checksums[19]);
    view.fill(header, &body_of(&checksums[17..]));
    answers(&mut lacking, Event::Message(view.freeze()));
    // The view's primary has lost what comes next with an earlier checkpoint; replica 0 has it still.
    for (from, base, known) in [(1, 8, &[][..]), (0, 0, &checksums[5..17])] {
        let mut headers = lacking.pool.acquire(known.len() * 16).unwrap();
        let mut header = Header::new(Command::Headers, CLUSTER, from, 1);
        (header.op, header.commit) = (6, base);
        headers.fill(header, &body_of(known));
        answers(&mut lacking, Event::Message(headers.freeze()));
        assert!(lacking.is_beyond_reach(), "told by {from}");
    }
}

/// The commands that a replica sends when it hears nothing for so long, a tick after the other.
fn says_within(vsr: &mut Vsr, now: &mut u64, milliseconds: u64) -> Vec<Command> {
    let mut effects = Vec::new();
    for _ in 0..milliseconds.div_ceil(TICK_NS / 1_000_000) {
        *now += TICK_NS;
        vsr.on_event(Event::Tick, at(*now), &mut effects);
    }
    let sent = effects.iter().filter_map(|effect| {
        let Effect::Send { message, .. } = effect else {
            return None;
        };
        message.header().command()
    });
    sent.collect()
}

#[test]
fn a_view_that_is_not_durable_is_not_spoken_of() {
    let mut vsr = comes_back(0, 1, 0, &[], 0);
    let mut now = 1_000_000_000;
    vsr.start(at(now), &mut Vec::new());
    says_within(&mut vsr, &mut now, 180);
    let later = Event::Message(control(Command::ExitView, 2, 4));
    vsr.on_event(later, at(now), &mut Vec::new());
    assert_eq!(vsr.view(), 4);
    assert_eq!(says_within(&mut vsr, &mut now, 2_000), []);
    vsr.on_event(Event::Persisted, at(now), &mut Vec::new());
    assert!(says_within(&mut vsr, &mut now, 100).contains(&Command::ExitView));
}

/// A prepare of this view for each operation up to `last`, in a chain after the entry with the checksum 1000.
fn chain(vsr: &Vsr, view: View, last: Op) -> Vec<Message> {
    let mut parent = 1000;
    let prepares = (1..=last).map(|op| {
        let mut prepare = vsr.pool.acquire(0).unwrap();
        let mut header = Header::new(Command::Prepare, CLUSTER, 1, view);
        (header.op, header.parent, header.timestamp) = (op, parent, op);
        prepare.fill(header, &[]);
        parent = prepare.header().checksum;
        prepare.freeze()
    });
    prepares.collect()
}

#[test]
fn views_that_pass_while_a_promise_is_written_go_with_the_next_one() {
    let mut vsr = comes_back(0, 1, 0, &[], 0);
    let persists = |vsr: &mut Vsr, event| {
        let mut effects = Vec::new();
        vsr.on_event(event, at(1_000_000_000), &mut effects);
        let views = effects.iter().filter_map(|effect| {
            let Effect::Persist(promise) = effect else {
                return None;
            };
            Some(promise.view)
        });
        views.collect::<Vec<View>>()
    };
    for (view, asked) in [(4, &[4][..]), (5, &[5]), (6, &[]), (7, &[])] {
        let wish = Event::Message(control(Command::ExitView, 2, view));
        assert_eq!(persists(&mut vsr, wish), asked);
        assert_eq!(vsr.view(), view);
    }
    for (asked, promised) in [(&[7][..], 4), (&[], 5), (&[], 7)] {
        assert_eq!(persists(&mut vsr, Event::Persisted), asked);
        assert_eq!(vsr.promised.view, promised);
    }
}

#[test]
fn a_restart_is_not_told_that_what_has_died_on_its_disk_was_committed() {
    // The disk has three entries that died; the view's log has others there, which are not on it yet.
    let mut vsr = comes_back(2, 0, 0, &[2001, 2002, 2003], 0);
    vsr.set_journal_free(1 << 20);
    let prepares = chain(&vsr, 1, 3);
    let checksums: Vec<u128> = prepares.iter().map(|p| p.header().checksum).collect();
    let mut view = vsr.pool.acquire(3 * 16).unwrap();
    let mut header = Header::new(Command::View, CLUSTER, 1, 1);
    (header.op, header.commit, header.context) = (3, 3, checksums[2]);
    view.fill(header, &body_of(&checksums));
    answers(&mut vsr, Event::Message(view.freeze()));
    for prepare in prepares {
        answers(&mut vsr, Event::Message(prepare));
    }
    assert_eq!((vsr.commit(), vsr.durable), (3, 0));
    let durable = |op: Op| Event::Durable {
        op,
        checksum: checksums[usize::try_from(op).unwrap() - 1],
    };
    for (then, view, commit) in [(None, 2, 0), (Some(durable(2)), 3, 2)] {
        if let Some(event) = then {
            answers(&mut vsr, event);
        }
        answers(
            &mut vsr,
            Event::Message(control(Command::ExitView, 0, view)),
        );
        let promise = vsr.promising.back().unwrap();
        assert_eq!((promise.view, promise.commit), (view, commit));
    }
}

#[test]
fn a_primary_that_leaves_its_view_does_not_speak_for_the_next_one() {
    let mut vsr = comes_back(1, 1, 0, &[], 0);
    vsr.status = Status::Normal;
    assert!(vsr.may_speak_for_view() && vsr.is_primary());
    // It hears nobody, and another one was of the same mind before.
    let wish = Event::Message(control(Command::ExitView, 0, 1));
    answers(&mut vsr, wish);
    vsr.heard = Default::default();
    vsr.last_tick = 1_000_000_000;
    let said = answers(&mut vsr, Event::Tick);
    let said: Vec<(Option<Command>, u32)> = said
        .iter()
        .map(|message| (message.header().command(), message.header().view))
        .collect();
    assert_eq!(vsr.view(), 2);
    assert_eq!(said, [(Some(Command::ExitView), 1); 2]);
}

#[test]
fn an_entry_that_nobody_has_any_more_is_not_needed_once_its_checkpoint_is_there() {
    let checksums = [1001, 1002, 1003];
    let mut vsr = comes_back(2, 0, 0, &checksums, 3);
    (vsr.executing, vsr.executed) = (3, 3);
    vsr.log.lose(2);
    vsr.update_durable();
    let mut view = vsr.pool.acquire(3 * 16).unwrap();
    let mut header = Header::new(Command::View, CLUSTER, 1, 1);
    (header.op, header.commit, header.context) = (3, 3, 1003);
    view.fill(header, &body_of(&checksums));
    answers(&mut vsr, Event::Message(view.freeze()));
    assert_eq!((vsr.status(), vsr.durable()), (Status::CatchUp, 1));
    let (op, trimmed) = (3, 0);
    answers(&mut vsr, Event::Checkpointed { op, trimmed });
    assert_eq!((vsr.status(), vsr.durable()), (Status::Normal, 3));
}

#[test]
fn a_committed_end_of_the_log_that_is_lost_is_fetched_once_the_view_has_named_it() {
    // The view's log ends there, or shortly after; or so far after that its last checksums do not reach
    // back, and are asked for.
    for last in [4, 9, SUFFIX_MAX as u64 + 9] {
        let mut vsr = comes_back(2, 0, 0, &[], 0);
        let prepares = chain(&vsr, 0, last);
        let checksums: Vec<u128> = prepares.iter().map(|p| p.header().checksum).collect();
        for prepare in &prepares[..3] {
            vsr.log.push(Entry::of(prepare.header()));
        }
        vsr.log.push_missing(UNKNOWN);
        (vsr.commit, vsr.written, vsr.unsure_from) = (4, 4, Some(4));
        vsr.update_durable();
        vsr.set_journal_free(1 << 20);

        let suffix = checksums.len().saturating_sub(SUFFIX_MAX);
        let mut view = vsr.pool.acquire(SUFFIX_MAX * 16).unwrap();
        let mut header = Header::new(Command::View, CLUSTER, 1, 1);
        (header.op, header.commit) = (last, last);
        header.context = *checksums.last().unwrap();
        view.fill(header, &body_of(&checksums[suffix..]));
        let asked = answers(&mut vsr, Event::Message(view.freeze()));
        if suffix > 3 {
            let mut headers = vsr.pool.acquire(16).unwrap();
            let mut header = Header::new(Command::Headers, CLUSTER, 1, 1);
            assert_eq!((asked[0].header().op, asked[0].header().commit), (4, 4));
            header.op = 4;
            headers.fill(header, &body_of(&checksums[3..4]));
            answers(&mut vsr, Event::Message(headers.freeze()));
        }
        assert!(!vsr.is_beyond_reach());
        let asked = answers(&mut vsr, Event::Tick);
        let mut asked = asked.iter().map(Message::header);
        let asks = asked.any(|h| h.command() == Some(Command::GetPrepares) && h.op == 4);
        assert!(asks, "of {last}");
        for prepare in &prepares[3..] {
            answers(&mut vsr, Event::Message(prepare.clone()));
        }
        answers(&mut vsr, Event::Restored { op: 4 });
        assert_eq!(vsr.log.missing().count(), 0);
        // What comes next belongs to the view's log as far as its last checksums reach back.
        assert_eq!(vsr.head(), if suffix > 3 { 4 } else { last });
    }
}

#[test]
fn a_lost_end_of_the_log_that_the_others_have_trimmed_is_beyond_reach() {
    for (first, beyond) in [(1, false), (2, true)] {
        let mut vsr = comes_back(2, 0, 0, &[], 0);
        let prepares = chain(&vsr, 0, 9);
        let checksum = |op: Op| prepares[usize::try_from(op).unwrap() - 1].header().checksum;
        vsr.log.push_missing(UNKNOWN);
        (vsr.commit, vsr.written, vsr.unsure_from) = (1, 1, Some(1));
        vsr.update_durable();
        let mut view = vsr.pool.acquire(16).unwrap();
        let mut header = Header::new(Command::View, CLUSTER, 1, 1);
        (header.op, header.commit, header.context) = (9, 9, checksum(9));
        view.fill(header, &body_of(&[checksum(9)]));
        answers(&mut vsr, Event::Message(view.freeze()));
        let mut headers = vsr.pool.acquire(16).unwrap();
        let mut header = Header::new(Command::Headers, CLUSTER, 1, 1);
        (header.op, header.commit) = (first, first - 1);
        headers.fill(header, &body_of(&[checksum(first)]));
        answers(&mut vsr, Event::Message(headers.freeze()));
        assert_eq!(vsr.is_beyond_reach(), beyond);
    }
}

#[test]
fn waiting_for_its_own_view_keeps_nobody_from_a_later_one() {
    let mut vsr = comes_back(0, 1, 0, &[], 0);
    vsr.status = Status::CatchUp;
    let asked = answers(&mut vsr, Event::Tick);
    let views = |sent: &[Message]| {
        let sent = sent.iter().map(Message::header);
        let asks = sent.filter(|h| h.command() == Some(Command::GetView));
        asks.map(|h| h.view).collect::<Vec<_>>()
    };
    assert_eq!(views(&asked), [1]);
    let begun = || Event::Message(control(Command::Commit, 2, 8));
    assert_eq!(views(&answers(&mut vsr, begun())), [8]);
    assert!(views(&answers(&mut vsr, begun())).is_empty());
}

/// Whom a replica asks for prepares at an event, and from which operation on.
fn asks(vsr: &mut Vsr, event: Event, now: u64) -> Vec<(u8, Op)> {
    let mut effects = Vec::new();
    vsr.on_event(event, at(now), &mut effects);
    let asked = effects.iter().filter_map(|effect| {
        let Effect::Send { to, message } = effect else {
            return None;
        };
        let asks = message.header().command() == Some(Command::GetPrepares);
        asks.then_some((*to, message.header().op))
    });
    asked.collect()
}

/// The log of `from` begins after `base`; it was asked for what begins at `op`.
fn trimmed(from: u8, op: Op, base: Op) -> Event {
    let mut header = Header::new(Command::Headers, CLUSTER, from, 1);
    (header.op, header.commit) = (op, base);
    said(header)
}

fn said(header: Header) -> Event {
    let message = control(Command::Headers, header.replica, header.view);
    let mut message = message.try_unique().unwrap();
    message.fill(header, &[]);
    Event::Message(message.freeze())
}

/// Replica 2, which holds five operations and has heard of twenty in a view that goes on; it has just asked
/// the primary, which is replica 1, for the sixth.
fn lags() -> Vsr {
    let mut vsr = comes_back(2, 1, 0, &[1001, 1002, 1003, 1004, 1005], 5);
    let mut header = Header::new(Command::Commit, CLUSTER, 1, 1);
    (header.op, header.commit) = (20, 20);
    assert_eq!(asks(&mut vsr, said(header), 1_000_000_000), [(1, 6)]);
    vsr
}

#[test]
fn what_one_has_trimmed_is_asked_of_the_next_and_gone_when_all_have() {
    let mut vsr = lags();
    let asked = asks(&mut vsr, trimmed(1, 6, 8), 1_000_000_000);
    assert_eq!((asked, vsr.is_beyond_reach()), (vec![(0, 6)], false));
    let asked = asks(&mut vsr, trimmed(0, 6, 7), 1_000_000_000);
    assert_eq!((asked, vsr.is_beyond_reach()), (vec![], true));
    // Checksums are no prepares, whoever sends them.
    for from in [0, 1] {
        let mut message = vsr.pool.acquire(16).unwrap();
        let mut header = Header::new(Command::Headers, CLUSTER, from, 1);
        header.op = 6;
        message.fill(header, &body_of(&[1006]));
        answers(&mut vsr, Event::Message(message.freeze()));
        assert!(vsr.is_beyond_reach(), "told by {from}");
    }
}

#[test]
fn who_is_behind_or_was_not_asked_says_nothing_about_reach() {
    // Replica 0 was not asked; the primary was, but not for that; or it is behind itself.
    for (from, op, base) in [(0, 6, 8), (1, 5, 8), (1, 7, 8), (1, 6, 5)] {
        let mut vsr = lags();
        for _ in 0..2 {
            let asked = asks(&mut vsr, trimmed(from, op, base), 1_000_000_000);
            assert_eq!(asked, [], "told by {from} of {op} and {base}");
        }
        assert!(!vsr.is_beyond_reach());
        // What counts, does, after that as well; an answer that came twice counts once.
        vsr.inquiry.ask(1, 6);
        asks(&mut vsr, trimmed(1, 6, 8), 1_000_000_000);
        asks(&mut vsr, trimmed(1, 6, 8), 1_000_000_000);
        assert!(!vsr.is_beyond_reach());
        asks(&mut vsr, trimmed(0, 6, 8), 1_000_000_000);
        assert!(vsr.is_beyond_reach());
    }
}

#[test]
fn who_cannot_be_heard_is_asked_again_and_then_not_waited_for() {
    let mut vsr = lags();
    let mut now = 1_000_000_000;
    let mut asked = Vec::new();
    let mut told = 0;
    while told < 2 {
        assert!(!vsr.is_beyond_reach(), "told {told} times");
        now += TICK_NS;
        let mut asks_now = asks(&mut vsr, Event::Tick, now);
        while let Some((to, op)) = asks_now.pop() {
            asked.push(to);
            if to == 0 {
                told += 1;
                asks_now = asks(&mut vsr, trimmed(0, op, 8), now);
            }
        }
    }
    assert!(vsr.is_beyond_reach());
    assert_eq!(asked, [1, 0, 1, 0]);
}

#[test]
fn a_hole_that_all_have_trimmed_is_beyond_reach_until_it_is_filled() {
    let mut vsr = comes_back(2, 1, 0, &[], 0);
    let prepares = chain(&vsr, 1, 4);
    for prepare in &prepares[..3] {
        vsr.log.push(Entry::of(prepare.header()));
    }
    (vsr.written, vsr.commit) = (3, 3);
    vsr.set_journal_free(1 << 20);
    let asked = asks(&mut vsr, Event::Damaged { op: 2 }, 1_000_000_000);
    let [(first, 2)] = asked[..] else {
        panic!("asked {asked:?}");
    };
    let second = 1 - first;
    // Not asked yet.
    asks(&mut vsr, trimmed(second, 2, 2), 1_000_000_000);
    let asked = asks(&mut vsr, trimmed(first, 2, 2), 1_000_000_000);
    assert_eq!(
        (&asked[..], vsr.is_beyond_reach()),
        (&[(second, 2)][..], false)
    );
    asks(&mut vsr, trimmed(second, 2, 2), 1_000_000_000);
    assert!(vsr.is_beyond_reach());
    // What comes at the end of the log is not what is lacking.
    asks(&mut vsr, Event::Message(prepares[3].clone()), 1_000_000_000);
    assert_eq!((vsr.head(), vsr.is_beyond_reach()), (4, true));
    asks(&mut vsr, Event::Message(prepares[1].clone()), 1_000_000_000);
    asks(&mut vsr, Event::Restored { op: 2 }, 1_000_000_000);
    assert!(!vsr.is_beyond_reach());
}
