//! Whether a request's body is valid for its operation, and how large the reply may get.
//!
//! Checked before the request is replicated: a body that passes can be executed without a failure, and its reply fits a
//! message whatever the ledger holds. Values inside the elements are not looked at, except a filter's `limit`.
//!
//! ```text
//!   multi-batch creates, lookups   each batch within the limit that a lone batch would have
//!   multi-batch queries            each batch exactly one filter
//!   unbatched creates, lookups     whole elements, within the limit
//!   unbatched queries              exactly one filter
//! ```

use super::multibatch::{self, MultibatchError, trailer_size};
use super::operation::{Form, Kind, Operation};
use super::record::{AccountFilter, ChangeEventsFilter, QueryFilter};
use super::{BODY_SIZE_MAX, REGISTER_BODY_SIZE, REGISTER_REPLY_BODY_SIZE};
use core::mem::offset_of;

/// What a valid body holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BodySummary {
    /// Events in all batches together.
    pub events: u32,
    /// Batches; 1 for operations without multi-batch bodies.
    pub batches: u16,
    /// Largest reply body that the operation can produce.
    pub reply_size_max: usize,
}

/// Why a body is not valid for its operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BodyError {
    #[error("not a multi-batch body: {0}")]
    Multibatch(#[from] MultibatchError),
    #[error("the body is not a whole number of events")]
    NotWholeEvents,
    #[error("more events than one batch may hold")]
    TooManyEvents,
    #[error("a query's batch does not hold exactly one filter")]
    NotOneFilter,
    #[error("the reply could be larger than a message")]
    ReplyTooLarge,
    #[error("the operation takes no body, or one of another size")]
    Size,
}

/// Checks `body` against `operation`; `batch_size_limit` is the largest request body the server takes.
pub fn validate(
    operation: Operation,
    body: &[u8],
    batch_size_limit: u32,
) -> Result<BodySummary, BodyError> {
    match operation.kind() {
        Kind::Noop | Kind::Pulse => fixed(body, 0, 0),
        Kind::Register => fixed(body, REGISTER_BODY_SIZE, REGISTER_REPLY_BODY_SIZE),
        Kind::GetChangeEvents
        | Kind::CreateAccounts
        | Kind::CreateTransfers
        | Kind::LookupAccounts
        | Kind::LookupTransfers
        | Kind::GetAccountTransfers
        | Kind::GetAccountBalances
        | Kind::QueryAccounts
        | Kind::QueryTransfers => match operation.form() {
            Form::Batched | Form::Sparse => multi_batch(operation, body, batch_size_limit),
            Form::Unbatched => unbatched(operation, body, batch_size_limit),
        },
    }
}

/// Most events that one batch of `operation` may hold.
pub const fn batch_events_max(operation: Operation, batch_size_limit: u32) -> u32 {
    let limit = batch_size_limit as usize;
    if operation.is_query() {
        return 1;
    }
    let (event, result) = (operation.event_size(), operation.result_size());
    if event == 0 || result == 0 {
        return 0;
    }
    let (events, results) = if operation.is_multi_batch() {
        (
            limit.saturating_sub(trailer_size(event, 1)) / event,
            batched_results_max(result),
        )
    } else {
        (limit / event, BODY_SIZE_MAX / result)
    };
    narrow(if events < results { events } else { results })
}

/// Most results that one batch of `operation` is answered with: what a filter's `limit` is capped to.
pub const fn batch_results_max(operation: Operation, batch_size_limit: u32) -> u32 {
    let result = operation.result_size();
    if result == 0 {
        return 0;
    }
    if operation.is_multi_batch() {
        return narrow(batched_results_max(result));
    }
    let fit = narrow(BODY_SIZE_MAX / result);
    if matches!(operation, Operation::GetChangeEvents) {
        // An event needs both of its accounts, which the server fetches like a lookup of twice as many ids.
        let lookups = batch_events_max(Operation::LookupAccountsUnbatched, batch_size_limit) / 2;
        return if lookups < fit { lookups } else { fit };
    }
    fit
}

/// The `limit` of a filter, at whatever address it lies; `None` if `event` is no filter of `operation`.
pub fn filter_limit(operation: Operation, event: &[u8]) -> Option<u32> {
    let offset = match operation.kind() {
        Kind::GetAccountTransfers | Kind::GetAccountBalances => offset_of!(AccountFilter, limit),
        Kind::QueryAccounts | Kind::QueryTransfers => offset_of!(QueryFilter, limit),
        Kind::GetChangeEvents => offset_of!(ChangeEventsFilter, limit),
        Kind::Register
        | Kind::Noop
        | Kind::Pulse
        | Kind::CreateAccounts
        | Kind::CreateTransfers
        | Kind::LookupAccounts
        | Kind::LookupTransfers => return None,
    };
    if event.len() != operation.event_size() {
        return None;
    }
    event[offset..]
        .first_chunk()
        .map(|limit| u32::from_le_bytes(*limit))
}

fn fixed(body: &[u8], size: usize, reply_size_max: usize) -> Result<BodySummary, BodyError> {
    if body.len() != size {
        return Err(BodyError::Size);
    }
    Ok(BodySummary {
        events: u32::from(size > 0),
        batches: 1,
        reply_size_max,
    })
}

fn multi_batch(
    operation: Operation,
    body: &[u8],
    batch_size_limit: u32,
) -> Result<BodySummary, BodyError> {
    let result_size = operation.result_size();
    let batches = multibatch::decode(body, operation.event_size())?;
    let events_max = batch_events_max(operation, batch_size_limit);
    let results_max = batch_results_max(operation, batch_size_limit);
    let mut results = 0usize;
    if operation.is_query() {
        for batch in batches.iter() {
            let limit = filter_limit(operation, batch.elements).ok_or(BodyError::NotOneFilter)?;
            results += limit.min(results_max) as usize;
            if results * result_size > BODY_SIZE_MAX {
                return Err(BodyError::ReplyTooLarge);
            }
        }
    } else {
        for count in batches.counts() {
            if u32::from(count) > events_max {
                return Err(BodyError::TooManyEvents);
            }
            results += (u32::from(count)).min(results_max) as usize;
        }
    }
    let trailer = trailer_size(result_size, usize::from(batches.batch_count()));
    let reply_size_max = results * result_size + trailer;
    if reply_size_max > BODY_SIZE_MAX {
        return Err(BodyError::ReplyTooLarge);
    }
    Ok(BodySummary {
        events: narrow(batches.element_count()),
        batches: batches.batch_count(),
        reply_size_max,
    })
}

fn unbatched(
    operation: Operation,
    body: &[u8],
    batch_size_limit: u32,
) -> Result<BodySummary, BodyError> {
    if operation.is_query() {
        let limit = filter_limit(operation, body).ok_or(BodyError::NotOneFilter)?;
        let results = limit.min(batch_results_max(operation, batch_size_limit)) as usize;
        let reply_size_max = results * operation.result_size();
        return Ok(BodySummary {
            events: 1,
            batches: 1,
            reply_size_max,
        });
    }
    if !body.len().is_multiple_of(operation.event_size()) {
        return Err(BodyError::NotWholeEvents);
    }
    let events = body.len() / operation.event_size();
    if events > batch_events_max(operation, batch_size_limit) as usize {
        return Err(BodyError::TooManyEvents);
    }
    let reply_size_max = events * operation.result_size();
    Ok(BodySummary {
        events: narrow(events),
        batches: 1,
        reply_size_max,
    })
}

const fn batched_results_max(result_size: usize) -> usize {
    (BODY_SIZE_MAX - trailer_size(result_size, 1)) / result_size
}

/// Counts of elements within one body are far below 2^32.
#[expect(clippy::cast_possible_truncation, reason = "asserted")]
const fn narrow(count: usize) -> u32 {
    assert!(count <= u32::MAX as usize);
    count as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::multibatch::encode_trailer;
    use proptest::prelude::*;

    const LIMIT: u32 = 1_048_320;
    const LIMIT_SMALL: u32 = 32_512;

    fn body(operation: Operation, counts: &[u16]) -> Vec<u8> {
        let element = operation.event_size();
        let payload: usize = counts
            .iter()
            .map(|&count| usize::from(count) * element)
            .sum();
        let mut body = vec![0; payload + trailer_size(element, counts.len())];
        let size = encode_trailer(&mut body, payload, element, counts.iter().copied());
        assert_eq!(size, body.len());
        body
    }

    #[test]
    fn table_of_maxima() {
        use Operation as O;
        for (operation, events, results) in [
            (O::LookupAccounts, 8189, 8189),
            (O::CreateTransfers, 8189, 65_519),
            (O::CreateTransfersSparse, 8189, 131_039),
            (O::CreateTransfersUnbatched, 8190, 131_040),
            (O::LookupAccountsUnbatched, 8190, 8190),
            (O::GetAccountTransfers, 1, 8189),
            (O::QueryAccountsUnbatched, 1, 8190),
            (O::GetChangeEvents, 1, 2730),
        ] {
            assert_eq!(batch_events_max(operation, LIMIT), events, "{operation}");
            assert_eq!(batch_results_max(operation, LIMIT), results, "{operation}");
        }
        assert_eq!(batch_events_max(O::CreateAccounts, LIMIT_SMALL), 253);
        assert_eq!(batch_events_max(O::LookupAccounts, LIMIT_SMALL), 2031);
        assert_eq!(batch_results_max(O::GetChangeEvents, LIMIT_SMALL), 1016);
        assert_eq!(batch_events_max(O::CreateAccounts, 0), 0);
    }

    #[test]
    fn full_batch_is_a_full_message() {
        let full = body(Operation::CreateTransfers, &[8189]);
        assert_eq!(full.len(), BODY_SIZE_MAX);
        let summary = validate(Operation::CreateTransfers, &full, LIMIT).unwrap();
        assert_eq!(summary.events, 8189);
        assert_eq!(summary.reply_size_max, 8189 * 16 + 16);
        let over = body(Operation::CreateTransfers, &[254]);
        assert_eq!(
            validate(Operation::CreateTransfers, &over, LIMIT_SMALL),
            Err(BodyError::TooManyEvents)
        );
    }

    #[test]
    fn query_limits_add_up() {
        let operation = Operation::QueryAccounts;
        let mut two = body(operation, &[1, 1]);
        let mut check = |limits: [u32; 2]| {
            for (index, limit) in limits.into_iter().enumerate() {
                let at = index * QueryFilter::SIZE + offset_of!(QueryFilter, limit);
                two[at..at + 4].copy_from_slice(&limit.to_le_bytes());
            }
            validate(operation, &two, LIMIT)
        };
        assert_eq!(check([4000, 4189]).unwrap().reply_size_max, BODY_SIZE_MAX);
        assert_eq!(check([4001, 4189]), Err(BodyError::ReplyTooLarge));
        assert_eq!(check([u32::MAX, 0]).unwrap().reply_size_max, BODY_SIZE_MAX);
        assert_eq!(check([u32::MAX, u32::MAX]), Err(BodyError::ReplyTooLarge));
        for counts in [&[0][..], &[2], &[1, 0], &[1, 2]] {
            let wrong = body(operation, counts);
            assert_eq!(
                validate(operation, &wrong, LIMIT),
                Err(BodyError::NotOneFilter)
            );
        }
    }

    #[test]
    fn unbatched_bodies() {
        let create = Operation::CreateAccountsUnbatched;
        assert_eq!(validate(create, &[], LIMIT).unwrap().events, 0);
        assert_eq!(
            validate(create, &[0; 127], LIMIT),
            Err(BodyError::NotWholeEvents)
        );
        assert_eq!(
            validate(create, &[0; 384], LIMIT).unwrap().reply_size_max,
            24
        );
        assert_eq!(
            validate(create, &[0; 384], 256),
            Err(BodyError::TooManyEvents)
        );
        let query = Operation::GetChangeEvents;
        assert_eq!(validate(query, &[], LIMIT), Err(BodyError::NotOneFilter));
        assert_eq!(
            validate(query, &[0; 128], LIMIT),
            Err(BodyError::NotOneFilter)
        );
        assert_eq!(
            validate(query, &[0xff; 64], LIMIT).unwrap().reply_size_max,
            2730 * 384
        );
        assert_eq!(validate(Operation::Noop, &[0], LIMIT), Err(BodyError::Size));
        assert_eq!(validate(Operation::Noop, &[], LIMIT).unwrap().events, 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(
            operation in prop::sample::select(Operation::ALL),
            body in prop::collection::vec(any::<u8>(), 0..600),
            limit in any::<u32>(),
        ) {
            if let Ok(summary) = validate(operation, &body, limit) {
                prop_assert!(summary.reply_size_max <= BODY_SIZE_MAX);
                prop_assert!(summary.batches >= 1);
            }
        }
    }
}
