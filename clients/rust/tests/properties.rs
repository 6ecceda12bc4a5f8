//! What must hold for every input: encodings come back, and no bytes make a decoder panic.

use proptest::prelude::*;
use stampede_client::wire::header::{self, Header, Reply, Request, Typed};
use stampede_client::wire::multibatch::{self, Encoder, trailer_size};
use stampede_client::wire::{BODY_SIZE_MAX, HEADER_SIZE, Refusal, Release};
use stampede_client::{Inbox, Session};
use zerocopy::IntoBytes;

/// Batches of arbitrary elements of 8, 16, 64 or 128 bytes.
fn batches() -> impl Strategy<Value = (usize, Vec<Vec<u8>>)> {
    prop::sample::select(vec![8usize, 16, 64, 128]).prop_flat_map(|element| {
        let batch = (0..6usize)
            .prop_flat_map(move |count| prop::collection::vec(any::<u8>(), count * element));
        (Just(element), prop::collection::vec(batch, 1..40))
    })
}

proptest! {
    #[test]
    fn multi_batch_roundtrip((element, batches) in batches(), spare in 0..500usize) {
        let payload: usize = batches.iter().map(Vec::len).sum();
        let size = payload + trailer_size(element, batches.len());
        let mut buffer = vec![0xaa; size + spare];
        let mut encoder = Encoder::new(&mut buffer, element);
        for batch in &batches {
            encoder.spare()[..batch.len()].copy_from_slice(batch);
            encoder.end_batch(batch.len());
        }
        prop_assert_eq!(encoder.finish(), size);
        let body = &buffer[..size];
        let decoded = multibatch::decode(body, element).expect("just encoded");
        let again: Vec<_> = decoded.iter().map(|batch| batch.elements.to_vec()).collect();
        prop_assert_eq!(&again, &batches);

        // The other encoder writes the same bytes.
        let mut other = body[..payload].to_vec();
        other.resize(size, 0);
        multibatch::encode_trailer(&mut other, payload, element, decoded.counts());
        prop_assert_eq!(&other[..], body);
    }

    #[test]
    fn multi_batch_decoder_takes_any_bytes(
        element in prop::sample::select(vec![8usize, 16, 64, 128]),
        mut body in prop::collection::vec(any::<u8>(), 0..2000),
        batches in 0..4u16,
    ) {
        // Plausible ends reach deeper than random ones.
        if let Some(end) = body.last_chunk_mut::<2>() {
            *end = batches.to_le_bytes();
        }
        if let Ok(decoded) = multibatch::decode(&body, element) {
            let total: usize = decoded.iter().map(|batch| batch.elements.len()).sum();
            prop_assert_eq!(total, decoded.payload().len());
        }
    }

    #[test]
    fn headers_take_any_bytes(bytes in any::<[u8; 32]>(), command in 0..30u8, size in any::<u32>(), body in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut header = Request::zeroed();
        header.as_mut_bytes()[100..132].copy_from_slice(&bytes);
        header.frame.command = command;
        header.seal(&body);
        header.frame.size = size;
        let checksum = header.checksum_compute();
        header.frame.checksum = checksum;
        let bytes: &[u8; HEADER_SIZE] = header.as_bytes().try_into().expect("a header's size");
        match header::frame_unaligned(bytes) {
            Ok(any) => {
                let within = (HEADER_SIZE..=HEADER_SIZE + BODY_SIZE_MAX).contains(&(size as usize));
                prop_assert!(within && command <= 24);
                let _ = any.verify_body(&body);
                match any.typed() {
                    Ok(Typed::PingClient(h)) => drop(h.validate()),
                    Ok(Typed::PongClient(h)) => drop(h.validate()),
                    Ok(Typed::Request(h)) => drop(h.validate()),
                    Ok(Typed::Reply(h)) => drop(h.validate()),
                    Ok(Typed::Eviction(h)) => drop(h.validate()),
                    Err(refusal) => prop_assert_eq!(refusal, Refusal::CommandUnexpected),
                }
            }
            Err(refusal) => prop_assert_ne!(refusal, Refusal::HeaderChecksum),
        }
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_found(bit in 0..HEADER_SIZE * 8, op in any::<u64>()) {
        let mut reply = Reply::zeroed();
        reply.op = op;
        reply.seal_with_context(b"");
        let mut bytes: [u8; HEADER_SIZE] = reply.as_bytes().try_into().expect("a header's size");
        prop_assert!(header::frame_unaligned(&bytes).is_ok());
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(header::frame_unaligned(&bytes), Err(Refusal::HeaderChecksum));
    }

    #[test]
    fn an_inbox_cuts_messages_at_any_split(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..8),
        chunk in 1..700usize,
    ) {
        let mut stream = Vec::new();
        for body in &bodies {
            let mut reply = Reply::zeroed();
            reply.frame.cluster = 5;
            reply.frame.release = Release::CURRENT;
            reply.seal_with_context(body);
            stream.extend_from_slice(reply.as_bytes());
            stream.extend_from_slice(body);
        }
        let mut inbox = Inbox::new(5);
        let mut got = Vec::new();
        for part in stream.chunks(chunk) {
            inbox.spare()[..part.len()].copy_from_slice(part);
            inbox.filled(part.len());
            while let Some((_, body)) = inbox.message().expect("valid") {
                got.push(body.to_vec());
            }
        }
        prop_assert_eq!(got, bodies);
    }

    #[test]
    fn an_inbox_refuses_any_other_bytes(bytes in prop::collection::vec(any::<u8>(), HEADER_SIZE..600)) {
        let mut inbox = Inbox::new(5);
        inbox.spare()[..bytes.len()].copy_from_slice(&bytes);
        inbox.filled(bytes.len());
        prop_assert!(inbox.message().is_err());
    }

    #[test]
    fn a_session_takes_any_sealed_message(fields in any::<[u8; 128]>(), command in 0..25u8, body in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut session = Session::new(0, 1);
        session.register(&mut [0; 512]).expect("new");
        let mut header = header::AnyHeader::zeroed();
        header.command = fields;
        header.frame.command = command;
        header.frame.release = Release::CURRENT;
        header.seal(&body);
        let _ = session.receive(&header, &body);
        prop_assert!(!session.is_registered());
    }
}
