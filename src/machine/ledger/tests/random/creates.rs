//! Events to create, as histories have them: valid more often than not, and meeting each other.
//!
//! Ids, accounts and amounts come from small ranges. Values that queries look for come from pools in which
//! one is frequent, some are rare and zero is there, so that two of them together are found here and there.

use std::fmt::Debug;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use stampede_client::wire::{Account, Transfer};

use super::Stamp;

/// An event whose timestamp is known when it is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draft<E> {
    pub(super) event: E,
    pub(super) stamp: Stamp,
}

pub(super) fn user_data_128() -> impl Strategy<Value = u128> {
    select(vec![0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 1 << 100, u128::MAX])
}

pub(super) fn user_data_64() -> impl Strategy<Value = u64> {
    select(vec![0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 1 << 40, u64::MAX])
}

pub(super) fn user_data_32() -> impl Strategy<Value = u32> {
    select(vec![0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 1 << 30, u32::MAX])
}

fn code() -> impl Strategy<Value = u16> {
    prop_oneof![50 => select(vec![1, 1, 1, 1, 2, 2, 3, u16::MAX]), 1 => Just(0)]
}

fn flags(bits: &'static [(u32, u16)]) -> impl Strategy<Value = u16> {
    let bits: Vec<_> = bits
        .iter()
        .map(|&(percent, bit)| {
            prop::bool::weighted(f64::from(percent) / 100.0).prop_map(move |on| (on, bit))
        })
        .collect();
    bits.prop_map(|bits| {
        bits.into_iter()
            .filter(|(on, _)| *on)
            .fold(0, |flags, (_, bit)| flags | bit)
    })
}

/// A few accounts have most of the transfers, others some, and others none.
pub(super) fn account_id() -> impl Strategy<Value = u128> {
    prop_oneof![
        80 => 1u128..8, 10 => 8u128..13, 2 => 13u128..40,
        1 => prop_oneof![Just(0), Just(u128::MAX), 1000u128..3000]
    ]
}

/// Ids of pending transfers, which are few so that resolutions find them, count from the era in which
/// they are used: see [`in_era`].
fn pending_id() -> impl Strategy<Value = u128> {
    let back = prop_oneof![4 => Just(0u128), 8 => Just(1), 4 => 2u128..5, 2 => 5u128..60];
    (back, 1..ERA_IDS).prop_map(|(back, small)| back * ERA_IDS + small)
}

const ERA_IDS: u128 = 25;
const OTHER_IDS: u128 = 10_000;

pub(super) fn transfer_id() -> impl Strategy<Value = u128> {
    prop_oneof![
        5 => pending_id(), 40 => OTHER_IDS..OTHER_IDS * 10, 10 => OTHER_IDS..OTHER_IDS + 1000,
        1 => Just(0), 1 => Just(u128::MAX)
    ]
}

/// What an id is that was drawn for any era.
pub(super) fn in_era(id: u128, era: u128) -> u128 {
    if id == 0 || id >= OTHER_IDS {
        return id;
    }
    era.saturating_sub(id / ERA_IDS) * ERA_IDS + id % ERA_IDS
}

fn rarely<T: Clone + Debug + 'static>(
    usual: T,
    other: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = T> {
    prop_oneof![24 => Just(usual), 1 => other]
}

/// Timestamps of imported events: most are possible, if events of their kind ascend.
fn imported_stamp() -> impl Strategy<Value = Stamp> {
    prop_oneof![
        20 => (0u64..400).prop_map(|by| Stamp::Later(1 + by / 20)),
        1 => Just(Stamp::Later(0)),
        1 => (0u64..100_000_000).prop_map(Stamp::Later),
        2 => (any::<Index>(), 0u64..3).prop_map(|(of, by)| Stamp::Near(of, by)),
        1 => select(vec![0, 1, 1 << 62, u64::MAX]).prop_map(Stamp::Given),
    ]
}

prop_compose! {
    pub(super) fn account(imported: bool)(
        id in prop_oneof![3 => account_id(), 2 => 40u128..4000],
        bits in flags(&[(15, 1), (6, 2), (6, 4), (30, 8), (2, 16), (2, 32), (1, 64)]),
        data in (user_data_128(), user_data_64(), user_data_32()),
        (reserved, balance, ledger, code) in (
            rarely(0u32, 1u32..2),
            rarely(0u128, 1u128..3),
            prop_oneof![20 => Just(1u32), 3 => Just(2), 1 => Just(1 << 31), 1 => Just(0)],
            code(),
        ),
        which in 0u8..4,
        stamp in rarely(0u64, 1u64..100),
        imported_stamp in imported_stamp(),
    ) -> Draft<Account> {
        let flags = if imported { bits ^ 16 } else { bits };
        let mut event = Account {
            id, ledger, code, reserved, flags,
            user_data_128: data.0,
            user_data_64: data.1,
            user_data_32: data.2,
            ..Account::default()
        };
        match which {
            0 => event.debits_pending = balance,
            1 => event.debits_posted = balance,
            2 => event.credits_pending = balance,
            _ => event.credits_posted = balance,
        }
        let stamp = if flags & 16 != 0 { imported_stamp } else { Stamp::Given(stamp) };
        Draft { event, stamp }
    }
}

prop_compose! {
    pub(super) fn transfer(imported: bool)(
        (other_id, phase_id) in (transfer_id(), 1..ERA_IDS),
        (debit, credit) in (account_id(), account_id()),
        amount in prop_oneof![
            80 => 0u128..20, 8 => 0u128..1 << 70, 1 => Just(u128::MAX / 2), 1 => Just(u128::MAX - 3)
        ],
        (kind, all) in (
            prop_oneof![10 => Just(0u16), 8 => Just(2), 6 => Just(4), 5 => Just(8), 1 => 0u16..16],
            0u8..3,
        ),
        bits in flags(&[(8, 1), (4, 16), (4, 32), (1, 64), (1, 128), (2, 256), (1, 512)]),
        (pending_id, given, timeout) in (
            prop_oneof![60 => pending_id(), 1 => Just(0), 1 => Just(u128::MAX)], 0u8..6, prop_oneof![3 => Just(0u32), 3 => 1u32..6, 1 => Just(u32::MAX)],
        ),
        (data, which) in ((user_data_128(), user_data_64(), user_data_32()), 0u8..8),
        (ledger, code, stamp) in (rarely(1u32, 0u32..3), code(), rarely(0u64, 1u64..100)),
        imported_stamp in imported_stamp(),
    ) -> Draft<Transfer> {
        let (resolves, pending) = (kind & 12 != 0, kind & 2 != 0);
        // Resolutions rarely carry the flags of other phases, and usually leave most fields to the
        // pending transfer. What closes an account is usually pending, and not for ever.
        let bits = if resolves && which != 0 { bits & !(16 | 32 | 64 | 128) } else { bits };
        let bits = if !pending && which != 0 { bits & !(64 | 128) } else { bits };
        let sparse = resolves && given != 0;
        let timeout = match (resolves, pending) {
            (true, _) if which != 0 => 0,
            (_, false) if given != 0 => 0,
            (_, true) if bits & (64 | 128) != 0 && which != 0 => 1 + timeout % 4,
            _ => timeout,
        };
        let flags = kind | if imported { bits ^ 256 } else { bits };
        let amount = match all {
            0 if kind & 4 != 0 || bits & 48 != 0 => u128::MAX,
            0 | 1 if kind & 8 != 0 => 0,
            _ => amount,
        };
        let event = Transfer {
            id: if kind == 2 && which != 0 { phase_id } else { other_id },
            debit_account_id: if sparse && given != 1 { 0 } else { debit },
            credit_account_id: if sparse && given != 2 { 0 } else { credit },
            amount,
            pending_id: if resolves || given == 5 && which == 3 { pending_id } else { 0 },
            user_data_128: data.0,
            user_data_64: data.1,
            user_data_32: data.2,
            timeout: if flags & 256 != 0 && which != 0 { 0 } else { timeout },
            ledger: if sparse && given != 3 { 0 } else { ledger },
            code: if sparse && given != 4 { 0 } else { code },
            flags,
            timestamp: 0,
        };
        let stamp = if flags & 256 != 0 { imported_stamp } else { Stamp::Given(stamp) };
        Draft { event, stamp }
    }
}

/// Batches, in which some events are an earlier one again.
pub(super) fn batches<T: Copy + Debug + 'static, S: Strategy<Value = T> + 'static>(
    event: fn(bool) -> S,
    max: usize,
) -> impl Strategy<Value = Vec<Vec<T>>> {
    let batch = prop::bool::weighted(0.15)
        .prop_flat_map(move |imported| prop::collection::vec(event(imported), 0..max));
    let again = prop::collection::vec((any::<Index>(), any::<Index>()), 0..3);
    let batch = (batch, again).prop_map(|(mut batch, again)| {
        for (from, to) in again {
            if !batch.is_empty() {
                let (from, to) = (from.index(batch.len()), to.index(batch.len()));
                batch[to] = batch[from];
            }
        }
        batch
    });
    prop::collection::vec(batch, 1..4)
}
