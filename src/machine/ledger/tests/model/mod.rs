//! The ledger again, slow and obvious: maps, copies of the whole state for chains, checks in a row.
//!
//! Written from the protocol's tables, not from the machine's code: each check is one line
//! `(condition, code)`, in the order of the table. Whatever happens is written down with both accounts
//! as they are right after it; `answers` looks through that from one end to the other.

mod answers;

use std::collections::{BTreeMap, BTreeSet};

use stampede_client::wire::record::change_event_type;
use stampede_client::wire::{Account, Transfer};

const MAX: u128 = u128::MAX;
const CREATED: u32 = 0xffff_ffff;
const TIMESTAMP_MAX: u64 = (1 << 63) - 1;
const SECOND: u64 = 1_000_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Pending,
    Posted,
    Voided,
    Expired,
}

/// What a broken chain takes back by taking up a copy.
#[derive(Clone, Default, Debug)]
struct State {
    accounts: BTreeMap<u128, Account>,
    phases: BTreeMap<u128, Phase>,
}

/// A transfer was created, or a pending one expired.
#[derive(Clone, Copy, Debug)]
struct Event {
    /// As it is stored; of an expiry, the pending one.
    transfer: Transfer,
    /// A constant of `change_event_type`.
    kind: u8,
    timestamp: u64,
    debit_after: Account,
    credit_after: Account,
}

impl Event {
    fn is_expiry(&self) -> bool {
        self.kind == change_event_type::TWO_PHASE_EXPIRED
    }
}

#[derive(Default, Debug)]
pub(super) struct Model {
    state: State,
    transfers: BTreeMap<u128, Transfer>,
    failed: BTreeSet<u128>,
    /// Everything that ever happened, in that order.
    events: Vec<Event>,
}

/// (timestamp, status)
type Outcome = (u64, u32);

/// The code of the first condition that holds.
fn first(checks: &[(bool, u32)]) -> Option<u32> {
    checks
        .iter()
        .find(|(condition, _)| *condition)
        .map(|(_, code)| *code)
}

trait Create: Copy {
    /// linked_event_failed, chain_open, timestamp_must_be_zero are 1, 2, 3 for both; then expected,
    /// not_expected, out_of_range, must_not_advance.
    const IMPORTED_CODES: [u32; 4];
    fn linked(&self) -> bool;
    fn imported(&self) -> bool;
    fn timestamp(&self) -> u64;
    fn apply(&self, model: &mut Model, timestamp: u64) -> Outcome;
    fn after_failure(&self, _model: &mut Model, _code: u32) {}
}

impl Create for Account {
    const IMPORTED_CODES: [u32; 4] = [22, 23, 24, 25];
    fn linked(&self) -> bool {
        self.flags & 1 != 0
    }
    fn imported(&self) -> bool {
        self.flags & 16 != 0
    }
    fn timestamp(&self) -> u64 {
        self.timestamp
    }
    fn apply(&self, model: &mut Model, timestamp: u64) -> Outcome {
        model.account(*self, timestamp)
    }
}

impl Create for Transfer {
    const IMPORTED_CODES: [u32; 4] = [56, 57, 58, 59];
    fn linked(&self) -> bool {
        self.flags & 1 != 0
    }
    fn imported(&self) -> bool {
        self.flags & 256 != 0
    }
    fn timestamp(&self) -> u64 {
        self.timestamp
    }
    fn apply(&self, model: &mut Model, timestamp: u64) -> Outcome {
        model.transfer(*self, timestamp)
    }
    fn after_failure(&self, model: &mut Model, code: u32) {
        if [21, 22, 25, 54, 55, 65, 66].contains(&code) {
            model.failed.insert(self.id);
        }
    }
}

impl Model {
    pub(super) fn create_accounts(&mut self, first: u64, events: &[Account]) -> Vec<Outcome> {
        self.batch(first, events)
    }

    pub(super) fn create_transfers(&mut self, first: u64, events: &[Transfer]) -> Vec<Outcome> {
        self.batch(first, events)
    }

    pub(super) fn lookup_accounts(&self, ids: &[u128]) -> Vec<Account> {
        ids.iter()
            .filter_map(|id| self.state.accounts.get(id))
            .copied()
            .collect()
    }

    pub(super) fn lookup_transfers(&self, ids: &[u128]) -> Vec<Transfer> {
        ids.iter()
            .filter_map(|id| self.transfers.get(id))
            .copied()
            .collect()
    }

    fn waiting(&self) -> Vec<(u64, u64, u128)> {
        let pending = self
            .state
            .phases
            .iter()
            .filter(|(_, phase)| **phase == Phase::Pending);
        let transfers = pending.map(|(id, _)| &self.transfers[id]);
        let with_timeout = transfers.filter(|t| t.timeout > 0);
        let mut waiting: Vec<_> = with_timeout
            .map(|t| {
                (
                    t.timestamp + u64::from(t.timeout) * SECOND,
                    t.timestamp,
                    t.id,
                )
            })
            .collect();
        waiting.sort_unstable();
        waiting
    }

    pub(super) fn due(&self) -> u64 {
        self.waiting().first().map_or(u64::MAX, |w| w.0)
    }

    pub(super) fn pulse(&mut self, timestamp: u64) {
        let mut due = self.waiting();
        due.retain(|(expires_at, ..)| *expires_at <= timestamp);
        due.truncate(8190);
        let first = timestamp + 1 - due.len() as u64;
        for (timestamp, (_, _, id)) in (first..).zip(due) {
            self.release(id, 0);
            self.state.phases.insert(id, Phase::Expired);
            self.reopen(id);
            let pending = self.transfers[&id];
            self.happened(&pending, change_event_type::TWO_PHASE_EXPIRED, timestamp);
        }
    }

    /// Writes down what has just been done.
    fn happened(&mut self, transfer: &Transfer, kind: u8, timestamp: u64) {
        self.events.push(Event {
            transfer: *transfer,
            kind,
            timestamp,
            debit_after: self.state.accounts[&transfer.debit_account_id],
            credit_after: self.state.accounts[&transfer.credit_account_id],
        });
    }

    fn created(&mut self, transfer: &Transfer) {
        let kind = match transfer.flags & (2 | 4 | 8) {
            2 => change_event_type::TWO_PHASE_PENDING,
            4 => change_event_type::TWO_PHASE_POSTED,
            8 => change_event_type::TWO_PHASE_VOIDED,
            _ => change_event_type::SINGLE_PHASE,
        };
        self.transfers.insert(transfer.id, *transfer);
        self.happened(transfer, kind, transfer.timestamp);
    }

    /// Takes back everything since there were `count` events.
    fn take_back(&mut self, before: State, count: usize) {
        self.state = before;
        for event in self.events.drain(count..) {
            assert!(!event.is_expiry(), "none can be within a chain");
            self.transfers.remove(&event.transfer.id);
        }
    }

    fn batch<E: Create>(&mut self, first: u64, events: &[E]) -> Vec<Outcome> {
        let mut outcomes: Vec<Outcome> = Vec::new();
        let last = first + events.len() as u64 - 1;
        // (first event of the chain, state and number of events before it, broken)
        let mut chain: Option<(usize, State, usize, bool)> = None;
        for (index, event) in events.iter().enumerate() {
            let timestamp = first + index as u64;
            if event.linked() && chain.is_none() {
                chain = Some((index, self.state.clone(), self.events.len(), false));
            }
            let [expected, not_expected, out_of_range, must_not_advance] = E::IMPORTED_CODES;
            let imported = event.imported();
            let mismatch = imported != events[0].imported();
            let refusal = self::first(&[
                (event.linked() && index + 1 == events.len(), 2),
                (chain.as_ref().is_some_and(|chain| chain.3), 1),
                (mismatch && imported, not_expected),
                (mismatch, expected),
                (
                    imported && !(1..=TIMESTAMP_MAX).contains(&event.timestamp()),
                    out_of_range,
                ),
                (imported && event.timestamp() >= last, must_not_advance),
                (!imported && event.timestamp() != 0, 3),
            ]);
            let outcome = match refusal {
                Some(code) => (timestamp, code),
                None => event.apply(self, timestamp),
            };
            if outcome.1 != CREATED {
                if let Some((start, before, count, broken)) = &mut chain
                    && !*broken
                {
                    *broken = true;
                    self.take_back(std::mem::take(before), *count);
                    outcomes[*start..]
                        .iter_mut()
                        .for_each(|outcome| outcome.1 = 1);
                }
                event.after_failure(self, outcome.1);
            }
            if !event.linked() || outcome.1 == 2 {
                chain = None;
            }
            outcomes.push(outcome);
        }
        outcomes
    }

    fn account(&mut self, a: Account, timestamp: u64) -> Outcome {
        let accounts = &self.state.accounts;
        if let Some(code) = first(&[
            (a.reserved != 0, 4),
            (a.flags >= 64, 5),
            (a.id == 0, 6),
            (a.id == MAX, 7),
        ]) {
            return (timestamp, code);
        }
        if let Some(e) = accounts.get(&a.id) {
            let code = first(&[
                (a.flags != e.flags, 15),
                (a.user_data_128 != e.user_data_128, 16),
                (a.user_data_64 != e.user_data_64, 17),
                (a.user_data_32 != e.user_data_32, 18),
                (a.ledger != e.ledger, 19),
                (a.code != e.code, 20),
            ]);
            return code.map_or((e.timestamp, 21), |code| (timestamp, code));
        }
        let regresses = a.imported()
            && (accounts.values().any(|e| a.timestamp <= e.timestamp)
                || self.transfers.values().any(|t| t.timestamp == a.timestamp));
        if let Some(code) = first(&[
            (a.flags & 6 == 6, 8),
            (a.debits_pending != 0, 9),
            (a.debits_posted != 0, 10),
            (a.credits_pending != 0, 11),
            (a.credits_posted != 0, 12),
            (a.ledger == 0, 13),
            (a.code == 0, 14),
            (regresses, 26),
        ]) {
            return (timestamp, code);
        }
        let timestamp = if a.imported() { a.timestamp } else { timestamp };
        self.state.accounts.insert(a.id, Account { timestamp, ..a });
        (timestamp, CREATED)
    }

    fn transfer(&mut self, t: Transfer, timestamp: u64) -> Outcome {
        let resolves = t.flags & 12 != 0;
        if let Some(code) = first(&[(t.flags >= 512, 4), (t.id == 0, 5), (t.id == MAX, 6)]) {
            return (timestamp, code);
        }
        if let Some(e) = self.transfers.get(&t.id) {
            let code = self.exists(&t, e);
            return code.map_or((e.timestamp, 46), |code| (timestamp, code));
        }
        if self.failed.contains(&t.id) {
            return (timestamp, 68);
        }
        if resolves {
            self.resolve(t, timestamp)
        } else {
            self.plain(t, timestamp)
        }
    }

    fn exists(&self, t: &Transfer, e: &Transfer) -> Option<u32> {
        if let Some(code) = first(&[
            (t.flags != e.flags, 36),
            (t.pending_id != e.pending_id, 40),
            (t.timeout != e.timeout, 44),
        ]) {
            return Some(code);
        }
        if t.flags & 12 == 0 {
            let balancing = t.flags & 48 != 0;
            return first(&[
                (t.debit_account_id != e.debit_account_id, 37),
                (t.credit_account_id != e.credit_account_id, 38),
                (balancing && t.amount < e.amount, 39),
                (!balancing && t.amount != e.amount, 39),
                (t.user_data_128 != e.user_data_128, 41),
                (t.user_data_64 != e.user_data_64, 42),
                (t.user_data_32 != e.user_data_32, 43),
                (t.ledger != e.ledger, 67),
                (t.code != e.code, 45),
            ]);
        }
        let p = &self.transfers[&t.pending_id];
        let void = t.flags & 8 != 0;
        let expected_amount = if void && t.amount == 0 || !void && t.amount == MAX {
            p.amount
        } else {
            t.amount
        };
        let data_128 = if t.user_data_128 == 0 {
            p.user_data_128
        } else {
            t.user_data_128
        };
        let data_64 = if t.user_data_64 == 0 {
            p.user_data_64
        } else {
            t.user_data_64
        };
        let data_32 = if t.user_data_32 == 0 {
            p.user_data_32
        } else {
            t.user_data_32
        };
        first(&[
            (
                t.debit_account_id != 0 && t.debit_account_id != e.debit_account_id,
                37,
            ),
            (
                t.credit_account_id != 0 && t.credit_account_id != e.credit_account_id,
                38,
            ),
            (expected_amount != e.amount, 39),
            (data_128 != e.user_data_128, 41),
            (data_64 != e.user_data_64, 42),
            (data_32 != e.user_data_32, 43),
            (t.ledger != 0 && t.ledger != e.ledger, 67),
            (t.code != 0 && t.code != e.code, 45),
        ])
    }

    /// An imported timestamp that is not new.
    fn regresses(&self, t: &Transfer) -> bool {
        let (mut transfers, mut accounts) = (self.transfers.values(), self.state.accounts.values());
        t.imported()
            && (transfers.any(|e| t.timestamp <= e.timestamp)
                || accounts.any(|a| a.timestamp == t.timestamp))
    }

    fn plain(&mut self, t: Transfer, timestamp: u64) -> Outcome {
        let is_pending = t.flags & 2 != 0;
        let dr = self.state.accounts.get(&t.debit_account_id).copied();
        let cr = self.state.accounts.get(&t.credit_account_id).copied();
        if let Some(code) = first(&[
            (t.debit_account_id == 0, 8),
            (t.debit_account_id == MAX, 9),
            (t.credit_account_id == 0, 10),
            (t.credit_account_id == MAX, 11),
            (t.debit_account_id == t.credit_account_id, 12),
            (t.pending_id != 0, 13),
            (t.timeout != 0 && !is_pending, 17),
            (t.flags & 192 != 0 && !is_pending, 64),
            (t.ledger == 0, 19),
            (t.code == 0, 20),
            (dr.is_none(), 21),
            (cr.is_none(), 22),
        ]) {
            return (timestamp, code);
        }
        let (dr, cr) = (dr.unwrap(), cr.unwrap());
        if let Some(code) = first(&[
            (dr.ledger != cr.ledger, 23),
            (t.ledger != dr.ledger, 24),
            (self.regresses(&t), 60),
            (t.imported() && t.timestamp <= dr.timestamp, 61),
            (t.imported() && t.timestamp <= cr.timestamp, 62),
            (t.imported() && t.timeout != 0, 63),
            (dr.flags & 32 != 0, 65),
            (cr.flags & 32 != 0, 66),
        ]) {
            return (timestamp, code);
        }
        let stamp = if t.imported() { t.timestamp } else { timestamp };
        let mut a = t.amount;
        if t.flags & 16 != 0 {
            let used = dr.debits_posted + dr.debits_pending;
            a = a.min(dr.credits_posted.saturating_sub(used));
        }
        if t.flags & 32 != 0 {
            let used = cr.credits_posted + cr.credits_pending;
            a = a.min(cr.debits_posted.saturating_sub(used));
        }
        let over = |balances: &[u128]| {
            balances
                .iter()
                .try_fold(a, |sum, balance| sum.checked_add(*balance))
                .is_none()
        };
        let expires = u128::from(stamp) + u128::from(t.timeout) * u128::from(SECOND);
        if let Some(code) = first(&[
            (is_pending && over(&[dr.debits_pending]), 47),
            (is_pending && over(&[cr.credits_pending]), 48),
            (over(&[dr.debits_posted]), 49),
            (over(&[cr.credits_posted]), 50),
            (over(&[dr.debits_pending, dr.debits_posted]), 51),
            (over(&[cr.credits_pending, cr.credits_posted]), 52),
            (expires > u128::from(TIMESTAMP_MAX), 53),
        ]) {
            return (timestamp, code);
        }
        if let Some(code) = first(&[
            (
                dr.flags & 2 != 0 && dr.debits_pending + dr.debits_posted + a > dr.credits_posted,
                54,
            ),
            (
                cr.flags & 4 != 0 && cr.credits_pending + cr.credits_posted + a > cr.debits_posted,
                55,
            ),
        ]) {
            return (timestamp, code);
        }
        let dr = self.state.accounts.get_mut(&t.debit_account_id).unwrap();
        if is_pending {
            dr.debits_pending += a;
        } else {
            dr.debits_posted += a;
        }
        if t.flags & 64 != 0 {
            dr.flags |= 32;
        }
        let cr = self.state.accounts.get_mut(&t.credit_account_id).unwrap();
        if is_pending {
            cr.credits_pending += a;
            self.state.phases.insert(t.id, Phase::Pending);
        } else {
            cr.credits_posted += a;
        }
        if t.flags & 128 != 0 {
            cr.flags |= 32;
        }
        self.created(&Transfer {
            amount: a,
            timestamp: stamp,
            ..t
        });
        (stamp, CREATED)
    }

    fn resolve(&mut self, t: Transfer, timestamp: u64) -> Outcome {
        let (is_post, is_void) = (t.flags & 4 != 0, t.flags & 8 != 0);
        let p = self.transfers.get(&t.pending_id).copied();
        if let Some(code) = first(&[
            (
                (is_post && is_void) || t.flags & (2 | 16 | 32 | 64 | 128) != 0,
                7,
            ),
            (t.pending_id == 0, 14),
            (t.pending_id == MAX, 15),
            (t.pending_id == t.id, 16),
            (t.timeout != 0, 17),
            (p.is_none(), 25),
        ]) {
            return (timestamp, code);
        }
        let p = p.unwrap();
        if p.flags & 2 == 0 {
            return (timestamp, 26);
        }
        let phase = self.state.phases[&p.id];
        let all = if is_void {
            t.amount == 0
        } else {
            t.amount == MAX
        };
        let a = if all { p.amount } else { t.amount };
        let late = p.timeout > 0 && p.timestamp + u64::from(p.timeout) * SECOND <= timestamp;
        let (dr, cr) = (
            self.state.accounts[&p.debit_account_id],
            self.state.accounts[&p.credit_account_id],
        );
        if let Some(code) = first(&[
            (
                t.debit_account_id != 0 && t.debit_account_id != p.debit_account_id,
                27,
            ),
            (
                t.credit_account_id != 0 && t.credit_account_id != p.credit_account_id,
                28,
            ),
            (t.ledger != 0 && t.ledger != p.ledger, 29),
            (t.code != 0 && t.code != p.code, 30),
            (a > p.amount, 31),
            (is_void && a < p.amount, 32),
            (phase == Phase::Posted, 33),
            (phase == Phase::Voided, 34),
            (phase == Phase::Expired || late, 35),
            (self.regresses(&t), 60),
            (is_post && dr.flags & 32 != 0, 65),
            (is_post && cr.flags & 32 != 0, 66),
        ]) {
            return (timestamp, code);
        }
        self.release(p.id, if is_post { a } else { 0 });
        self.state.phases.insert(
            p.id,
            if is_post {
                Phase::Posted
            } else {
                Phase::Voided
            },
        );
        if is_void {
            self.reopen(p.id);
        }
        let stamp = if t.imported() { t.timestamp } else { timestamp };
        let stored = Transfer {
            id: t.id,
            flags: t.flags,
            pending_id: t.pending_id,
            amount: a,
            timestamp: stamp,
            timeout: 0,
            user_data_128: if t.user_data_128 == 0 {
                p.user_data_128
            } else {
                t.user_data_128
            },
            user_data_64: if t.user_data_64 == 0 {
                p.user_data_64
            } else {
                t.user_data_64
            },
            user_data_32: if t.user_data_32 == 0 {
                p.user_data_32
            } else {
                t.user_data_32
            },
            ..p
        };
        self.created(&stored);
        (stamp, CREATED)
    }

    /// The pending amount leaves the pending balances, `posted` comes to the posted ones.
    fn release(&mut self, pending_id: u128, posted: u128) {
        let p = self.transfers[&pending_id];
        let dr = self.state.accounts.get_mut(&p.debit_account_id).unwrap();
        dr.debits_pending -= p.amount;
        dr.debits_posted += posted;
        let cr = self.state.accounts.get_mut(&p.credit_account_id).unwrap();
        cr.credits_pending -= p.amount;
        cr.credits_posted += posted;
    }

    fn reopen(&mut self, pending_id: u128) {
        let p = self.transfers[&pending_id];
        if p.flags & 64 != 0 {
            self.state
                .accounts
                .get_mut(&p.debit_account_id)
                .unwrap()
                .flags &= !32;
        }
        if p.flags & 128 != 0 {
            self.state
                .accounts
                .get_mut(&p.credit_account_id)
                .unwrap()
                .flags &= !32;
        }
    }

    /// Where something has a timestamp: accounts, transfers, expiries.
    pub(super) fn timestamps(&self) -> Vec<u64> {
        let accounts = self.state.accounts.values().map(|a| a.timestamp);
        let events = self.events.iter().map(|event| event.timestamp);
        accounts.chain(events).collect()
    }

    /// The last timestamps of an account and of a transfer.
    pub(super) fn last_timestamps(&self) -> (u64, u64) {
        let accounts = self.state.accounts.values().map(|a| a.timestamp);
        let transfers = self.transfers.values().map(|t| t.timestamp);
        (accounts.max().unwrap_or(0), transfers.max().unwrap_or(0))
    }

    /// Transfers created and expiries so far.
    pub(super) fn events_count(&self) -> usize {
        self.events.len()
    }

    /// Every account and transfer there is.
    pub(super) fn ids(&self) -> (Vec<u128>, Vec<u128>) {
        let accounts = self.state.accounts.keys().copied().collect();
        (accounts, self.transfers.keys().copied().collect())
    }
}
