//! The model itself, on cases that are easy to work out by hand.

use stampede_client::wire::{ChangeEvent, ChangeEventsFilter, multibatch};

use super::*;

fn body<E: IntoBytes + Immutable>(events: &[E]) -> Vec<u8> {
    let size = size_of::<E>();
    let mut body = events.as_bytes().to_vec();
    let payload = body.len();
    body.resize(payload + multibatch::trailer_size(size, 1), 0);
    let count = u16::try_from(events.len()).unwrap();
    multibatch::encode_trailer(&mut body, payload, size, [count].into_iter());
    body
}

fn statuses(reply: &[u8]) -> Vec<u32> {
    let results = multibatch::decode(reply, 16).unwrap().payload().to_vec();
    let results = results.chunks_exact(16);
    results
        .map(|r| CreateResult::read_from_bytes(r).unwrap().status)
        .collect()
}

fn account(id: u128, flags: u16) -> Account {
    Account {
        id,
        ledger: 1,
        code: 1,
        flags,
        ..Account::default()
    }
}

fn transfer(id: u128, debit: u128, credit: u128, amount: u128, flags: u16) -> Transfer {
    Transfer {
        id,
        debit_account_id: debit,
        credit_account_id: credit,
        amount,
        ledger: 1,
        code: 1,
        flags,
        ..Transfer::default()
    }
}

struct Ledger {
    model: Model,
    timestamp: u64,
}

impl Ledger {
    fn new() -> Self {
        let mut ledger = Self {
            model: Model::default(),
            timestamp: 1_000,
        };
        let limit = account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS;
        let accounts = [account(1, 0), account(2, 0), account(3, limit)];
        assert_eq!(ledger.accounts(&accounts), [u32::MAX; 3]);
        ledger
    }

    fn accounts(&mut self, events: &[Account]) -> Vec<u32> {
        self.timestamp += 1_000;
        statuses(&self.model.apply(146, self.timestamp, &body(events)))
    }

    fn transfers(&mut self, events: &[Transfer]) -> Vec<u32> {
        self.timestamp += 1_000;
        statuses(&self.model.apply(147, self.timestamp, &body(events)))
    }

    fn balances(&self, id: u128) -> [u128; 4] {
        let a = self.model.accounts[&id];
        [
            a.debits_pending,
            a.debits_posted,
            a.credits_pending,
            a.credits_posted,
        ]
    }
}

#[test]
fn a_chain_fails_as_one_and_the_next_event_runs() {
    let mut ledger = Ledger::new();
    let linked = transfer_flags::LINKED;
    let events = [
        transfer(10, 1, 2, 5, linked),
        transfer(11, 1, 9, 5, linked),
        transfer(12, 1, 2, 5, 0),
        transfer(13, 1, 2, 7, 0),
        transfer(14, 1, 2, 1, linked),
    ];
    assert_eq!(ledger.transfers(&events), [1, 22, 1, u32::MAX, 2]);
    assert_eq!(ledger.balances(1), [0, 7, 0, 0]);
    // The missing account's transfer may not come again, the others may.
    assert_eq!(ledger.transfers(&[transfer(11, 1, 2, 5, 0)]), [68]);
    assert_eq!(ledger.transfers(&[transfer(10, 1, 2, 5, 0)]), [u32::MAX]);
    assert_eq!(ledger.transfers(&[transfer(10, 1, 2, 5, 0)]), [46]);
    assert_eq!(ledger.transfers(&[transfer(10, 1, 2, 6, 0)]), [39]);
}

#[test]
fn pending_transfers_are_posted_voided_or_expire_once() {
    let mut ledger = Ledger::new();
    let pending = transfer_flags::PENDING;
    let events = [
        transfer(20, 1, 2, 10, pending),
        transfer(21, 1, 2, 20, pending),
    ];
    assert_eq!(ledger.transfers(&events), [u32::MAX; 2]);
    assert_eq!(ledger.balances(2), [0, 0, 30, 0]);
    let second = |id, pending_id, amount, flags| Transfer {
        pending_id,
        ..transfer(id, 0, 0, amount, flags)
    };
    let post = transfer_flags::POST_PENDING_TRANSFER;
    let void = transfer_flags::VOID_PENDING_TRANSFER;
    let events = [
        second(22, 20, 4, post),
        second(23, 20, 4, post),
        second(24, 21, 0, void),
        second(25, 21, 0, void),
    ];
    assert_eq!(ledger.transfers(&events), [u32::MAX, 33, u32::MAX, 34]);
    assert_eq!(ledger.balances(1), [0, 4, 0, 0]);
    let timed = Transfer {
        timeout: 1,
        ..transfer(26, 1, 2, 3, pending)
    };
    assert_eq!(ledger.transfers(&[timed]), [u32::MAX]);
    ledger.timestamp += 2 * SECOND_NS;
    ledger.model.apply(128, ledger.timestamp, &[]);
    assert_eq!(ledger.balances(1), [0, 4, 0, 0]);
    assert_eq!(ledger.transfers(&[second(27, 26, u128::MAX, post)]), [35]);
}

#[test]
fn limits_hold() {
    let mut ledger = Ledger::new();
    assert_eq!(ledger.transfers(&[transfer(30, 3, 1, 1, 0)]), [54]);
    let balancing = transfer_flags::BALANCING_DEBIT;
    let events = [transfer(31, 1, 3, 5, 0), transfer(32, 3, 1, 9, balancing)];
    assert_eq!(ledger.transfers(&events), [u32::MAX; 2]);
    assert_eq!(ledger.model.transfers[&32].amount, 5);
    assert_eq!(ledger.transfers(&[transfer(32, 3, 1, 4, balancing)]), [39]);
}

#[test]
fn what_happened_is_written_down_and_taken_back_with_its_chain() {
    let mut ledger = Ledger::new();
    let events = [
        transfer(40, 1, 2, 3, transfer_flags::LINKED),
        transfer(41, 1, 9, 3, 0),
        Transfer {
            timeout: 1,
            ..transfer(42, 1, 2, 5, transfer_flags::PENDING)
        },
        transfer(43, 2, 1, 7, 0),
    ];
    assert_eq!(ledger.transfers(&events), [1, 22, u32::MAX, u32::MAX]);
    ledger.timestamp += 2 * SECOND_NS;
    ledger.model.apply(128, ledger.timestamp, &[]);
    let filter = ChangeEventsFilter {
        limit: 10,
        ..ChangeEventsFilter::default()
    };
    let reply = ledger
        .model
        .apply(137, ledger.timestamp + 1, filter.as_bytes());
    let events = reply.chunks_exact(ChangeEvent::SIZE);
    let seen: Vec<_> = events
        .map(|event| ChangeEvent::read_from_bytes(event).unwrap())
        .map(|e| (e.kind, e.transfer_id, e.debit_account_debits_pending))
        .collect();
    assert_eq!(seen, [(1, 42, 5), (0, 43, 0), (4, 42, 0)]);
}
