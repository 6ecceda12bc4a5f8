//! Whether a reply's body is one that clients accept: the contract between the state machine and this protocol.
//!
//! A client's process ends over a wrong batch count, a malformed trailer or too many results, and its caller hangs over
//! a status code it does not know. The machine promises never to produce such a body; tests and the simulator check
//! every reply with this function.

use std::mem::offset_of;

use stampede_client::wire::body::{self, BodyError};
use stampede_client::wire::multibatch::{self, MultibatchError};
use stampede_client::wire::operation::Kind;
use stampede_client::wire::{
    BODY_SIZE_MAX, CreateAccountStatus, CreateResult, CreateTransferStatus, Operation,
    REGISTER_REPLY_BODY_SIZE, SparseResult,
};
use zerocopy::FromBytes;

/// What is wrong with a reply's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the request is not valid: {0}")]
    Request(#[from] BodyError),
    #[error("the body is larger than a message can carry")]
    Size,
    #[error("the register's limit is zero or larger than a message")]
    BatchSizeLimit,
    #[error("the body is not multi-batch: {0}")]
    Multibatch(#[from] MultibatchError),
    #[error("the body is not a whole number of results")]
    NotWholeResults,
    #[error("{reply} batches answer {request}")]
    BatchCount { request: u16, reply: u16 },
    #[error("batch {batch} has {results} results, {allowed} are allowed")]
    ResultCount {
        batch: usize,
        results: usize,
        allowed: usize,
    },
    #[error("status {0} does not exist")]
    Status(u32),
}

/// Checks the reply `body` of `operation` against the body of its request.
pub fn audit(
    operation: Operation,
    request: &[u8],
    reply: &[u8],
    batch_size_limit: u32,
) -> Result<(), Fault> {
    let summary = body::validate(operation, request, batch_size_limit)?;
    if reply.len() > BODY_SIZE_MAX {
        return Err(Fault::Size);
    }
    if operation == Operation::Register {
        return audit_register(reply);
    }
    let (event_size, result_size) = (operation.event_size(), operation.result_size());
    if result_size == 0 {
        return if reply.is_empty() {
            Ok(())
        } else {
            Err(Fault::Size)
        };
    }
    let payload = if operation.is_multi_batch() {
        let asked = multibatch::decode(request, event_size).map_err(BodyError::from)?;
        let answered = multibatch::decode(reply, result_size)?;
        if answered.batch_count() != asked.batch_count() {
            let (request, reply) = (asked.batch_count(), answered.batch_count());
            return Err(Fault::BatchCount { request, reply });
        }
        for (index, (asked, answered)) in asked.iter().zip(answered.iter()).enumerate() {
            let count = usize::from(answered.count);
            audit_count(operation, asked.elements, count, index, batch_size_limit)?;
        }
        answered.payload()
    } else {
        if !reply.len().is_multiple_of(result_size) {
            return Err(Fault::NotWholeResults);
        }
        audit_count(
            operation,
            request,
            reply.len() / result_size,
            0,
            batch_size_limit,
        )?;
        reply
    };
    assert!(reply.len() <= summary.reply_size_max);
    audit_statuses(operation, payload)
}

fn audit_register(reply: &[u8]) -> Result<(), Fault> {
    if reply.len() != REGISTER_REPLY_BODY_SIZE {
        return Err(Fault::Size);
    }
    let limit = reply
        .first_chunk()
        .map_or(0, |limit| u32::from_le_bytes(*limit));
    let rest_is_zero = reply.iter().skip(size_of::<u32>()).all(|&byte| byte == 0);
    if limit == 0 || limit as usize > BODY_SIZE_MAX || !rest_is_zero {
        return Err(Fault::BatchSizeLimit);
    }
    Ok(())
}

/// How many results one batch of events may have.
fn audit_count(
    operation: Operation,
    events: &[u8],
    results: usize,
    batch: usize,
    batch_size_limit: u32,
) -> Result<(), Fault> {
    let count = events.len() / operation.event_size();
    let one_for_each = matches!(
        operation,
        Operation::CreateAccounts | Operation::CreateTransfers
    );
    let allowed = match body::filter_limit(operation, events) {
        Some(limit) => limit.min(body::batch_results_max(operation, batch_size_limit)) as usize,
        None => count,
    };
    let is_right = if one_for_each {
        results == allowed
    } else {
        results <= allowed
    };
    if is_right {
        Ok(())
    } else {
        Err(Fault::ResultCount {
            batch,
            results,
            allowed,
        })
    }
}

/// Every status in a create's results exists; sparse ones are about failures only.
fn audit_statuses(operation: Operation, payload: &[u8]) -> Result<(), Fault> {
    let exists: fn(u32) -> bool = match operation.kind() {
        Kind::CreateAccounts => |status| CreateAccountStatus::from_code(status).is_some(),
        Kind::CreateTransfers => |status| CreateTransferStatus::from_code(status).is_some(),
        Kind::Register
        | Kind::Noop
        | Kind::Pulse
        | Kind::GetChangeEvents
        | Kind::LookupAccounts
        | Kind::LookupTransfers
        | Kind::GetAccountTransfers
        | Kind::GetAccountBalances
        | Kind::QueryAccounts
        | Kind::QueryTransfers => return Ok(()),
    };
    let is_sparse = operation.result_size() == SparseResult::SIZE;
    let offset = if is_sparse {
        offset_of!(SparseResult, status)
    } else {
        offset_of!(CreateResult, status)
    };
    let created = CreateAccountStatus::Created.code();
    for result in payload.chunks_exact(operation.result_size()) {
        let (status, _) = u32::read_from_prefix(&result[offset..]).expect("inside the result");
        if !exists(status) || (is_sparse && status == created) {
            return Err(Fault::Status(status));
        }
    }
    Ok(())
}
