//! Filters as histories have them: values from the same pools as the events', ranges that begin and end
//! at events or right beside them, any direction, and now and then something invalid.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use stampede_client::wire::{AccountFilter, ChangeEventsFilter, QueryFilter};

use super::Stamp;
use super::creates::{account_id, user_data_32, user_data_64, user_data_128};

/// A filter whose range is known when it is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ranged<F> {
    pub(super) filter: F,
    pub(super) min: Stamp,
    pub(super) max: Stamp,
    /// Whether the two are put in order.
    pub(super) ordered: bool,
}

/// What is set when a filter is sent.
pub(super) trait Filter {
    fn range(&mut self) -> (&mut u64, &mut u64);
    fn limit(&mut self) -> &mut u32;
}

macro_rules! filters {
    ($($type:ident)*) => {$(
        impl Filter for $type {
            fn range(&mut self) -> (&mut u64, &mut u64) {
                (&mut self.timestamp_min, &mut self.timestamp_max)
            }
            fn limit(&mut self) -> &mut u32 {
                &mut self.limit
            }
        }
    )*};
}

filters! { AccountFilter QueryFilter ChangeEventsFilter }

fn stamp() -> impl Strategy<Value = Stamp> {
    prop_oneof![
        20 => Just(Stamp::Given(0)),
        30 => (any::<Index>(), 0u64..3).prop_map(|(of, by)| Stamp::Near(of, by)),
        1 => select(vec![1, (1 << 63) - 1]).prop_map(Stamp::Given),
        1 => select(vec![1 << 63, u64::MAX]).prop_map(Stamp::Given),
    ]
}

fn ranged<F: Copy + std::fmt::Debug>(
    filter: impl Strategy<Value = F>,
) -> impl Strategy<Value = Ranged<F>> {
    (filter, stamp(), stamp(), prop::bool::weighted(0.9)).prop_map(|(filter, min, max, ordered)| {
        Ranged {
            filter,
            min,
            max,
            ordered,
        }
    })
}

fn limit() -> impl Strategy<Value = u32> {
    prop_oneof![
        10 => 1u32..6, 10 => 1u32..80, 10 => 60u32..700, 1 => Just(0),
        1 => select(vec![2730, 2731, 8189, 8190, 8191, u32::MAX])
    ]
}

/// Bytes that must be zero.
fn reserved<const N: usize>() -> impl Strategy<Value = [u8; N]> {
    prop_oneof![40 => Just(None), 1 => (0..N).prop_map(Some)].prop_map(|at| {
        let mut bytes = [0; N];
        if let Some(at) = at {
            bytes[at] = 1;
        }
        bytes
    })
}

/// Often anything, otherwise one of a pool.
fn maybe<T: Copy + std::fmt::Debug + Default>(
    pool: impl Strategy<Value = T>,
) -> impl Strategy<Value = T> {
    (prop::bool::weighted(0.45), pool)
        .prop_map(|(wanted, value)| if wanted { value } else { T::default() })
}

fn code() -> impl Strategy<Value = u16> {
    select(vec![1, 1, 2, 2, 3, 4, u16::MAX])
}

prop_compose! {
    fn account_filter()(
        account_id in account_id(),
        user_data_128 in maybe(user_data_128()),
        user_data_64 in maybe(user_data_64()),
        user_data_32 in maybe(user_data_32()),
        code in maybe(code()),
        limit in limit(),
        flags in prop_oneof![40 => 1u32..8, 1 => select(vec![0, 4, 8 + 3, 1 << 31 | 1])],
        reserved in reserved(),
    ) -> AccountFilter {
        AccountFilter {
            account_id, user_data_128, user_data_64, user_data_32, code, limit, flags, reserved,
            ..AccountFilter::default()
        }
    }
}

prop_compose! {
    fn query_filter()(
        user_data_128 in maybe(user_data_128()),
        user_data_64 in maybe(user_data_64()),
        user_data_32 in maybe(user_data_32()),
        ledger in maybe(select(vec![1u32, 1, 1, 2, 3, 1 << 31])),
        code in maybe(code()),
        limit in limit(),
        flags in prop_oneof![40 => 0u32..2, 1 => select(vec![2, 1 << 31 | 1])],
        reserved in reserved(),
    ) -> QueryFilter {
        QueryFilter {
            user_data_128, user_data_64, user_data_32, ledger, code, limit, flags, reserved,
            ..QueryFilter::default()
        }
    }
}

pub(super) fn account_filters() -> impl Strategy<Value = Vec<Ranged<AccountFilter>>> {
    prop::collection::vec(ranged(account_filter()), 1..6)
}

pub(super) fn query_filters() -> impl Strategy<Value = Vec<Ranged<QueryFilter>>> {
    prop::collection::vec(ranged(query_filter()), 1..6)
}

pub(super) fn change_events_filter() -> impl Strategy<Value = Ranged<ChangeEventsFilter>> {
    let filter = (limit(), reserved()).prop_map(|(limit, reserved)| ChangeEventsFilter {
        limit,
        reserved,
        ..ChangeEventsFilter::default()
    });
    ranged(filter)
}
