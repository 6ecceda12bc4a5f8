//! Bodies as the model reads and writes them: batches of records, nothing shared with what is tested.

use stampede_client::wire::{Operation, multibatch};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::limits::BODY_SIZE_MAX;

/// The batches of a body that was checked before it was replicated, copied to where they can be read.
pub(super) fn batches_of<E: FromBytes + Immutable + KnownLayout>(
    operation: Operation,
    body: &[u8],
) -> Vec<Vec<E>> {
    let read = |bytes: &[u8]| {
        let events = bytes.chunks_exact(size_of::<E>());
        events
            .map(|event| E::read_from_bytes(event).expect("of that size"))
            .collect()
    };
    if !operation.is_multi_batch() {
        return vec![read(body)];
    }
    let batches = multibatch::decode(body, operation.event_size());
    let batches = batches.expect("a body in the log was checked before");
    batches.iter().map(|batch| read(batch.elements)).collect()
}

/// A reply's body with these results of each batch.
pub(super) fn encode<R: IntoBytes + Immutable>(
    operation: Operation,
    replies: &[Vec<R>],
) -> Vec<u8> {
    assert_eq!(size_of::<R>(), operation.result_size());
    let mut body: Vec<u8> = replies
        .iter()
        .flat_map(|batch| batch.as_bytes().to_vec())
        .collect();
    if operation.is_multi_batch() {
        let payload = body.len();
        body.resize(
            payload + multibatch::trailer_size(size_of::<R>(), replies.len()),
            0,
        );
        let counts: Vec<u16> = replies
            .iter()
            .map(|batch| u16::try_from(batch.len()).expect("a reply fits a message"))
            .collect();
        multibatch::encode_trailer(&mut body, payload, size_of::<R>(), counts.into_iter());
    }
    assert!(body.len() <= BODY_SIZE_MAX);
    body
}
