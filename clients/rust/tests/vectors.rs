//! The captured conversations of the official clients with the reference server, byte by byte.
//!
//! Every message is parsed strictly, both checksums are recomputed, its typed header and body are written again and must
//! give the same bytes. `tests/vectors/README.md` says where the files come from.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use serde_json::Value;
use stampede_client::wire::header::{self, Header, Reply, Typed};
use stampede_client::wire::multibatch::{self, Encoder};
use stampede_client::wire::{HEADER_SIZE, Operation, body, checksum};
use std::fs;
use std::path::PathBuf;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

fn vectors() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&fs::read(vectors().join(name)).unwrap()).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("{key} in {value}"))
}

/// A 128-bit value in the index: `0x` and 32 digits.
fn number(value: &Value, key: &str) -> u128 {
    u128::from_str_radix(text(value, key).strip_prefix("0x").unwrap(), 16).unwrap()
}

#[test]
fn checksums() {
    let file = json("checksums.json");
    let mut checked = 0;
    for vector in file["vectors"].as_array().unwrap() {
        let length = usize::try_from(vector["length"].as_u64().unwrap()).unwrap();
        let input = match vector["input_hex"].as_str() {
            Some(input) => hex(input),
            None => (0..length)
                .map(|i| u8::try_from(i % 251).unwrap())
                .collect(),
        };
        assert_eq!(input.len(), length);
        let expected = hex(text(vector, "checksum_hex"));
        assert_eq!(
            checksum(&input).as_bytes(),
            &expected[..],
            "{}",
            vector["name"]
        );
        checked += 1;
    }
    assert_eq!(checked, 120);
}

#[test]
fn multi_batch_encodings() {
    let file = json("multibatch.json");
    for vector in file["valid"].as_array().unwrap() {
        let element = usize::try_from(vector["element_size"].as_u64().unwrap()).unwrap();
        let counts: Vec<u16> = vector["batch_counts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| u16::try_from(c.as_u64().unwrap()).unwrap())
            .collect();
        assert_eq!(
            Some(multibatch::trailer_size(element, counts.len()) as u64),
            vector["trailer_size"].as_u64()
        );
        // Only the sizes are given where the bytes would be many.
        let Some(payload) = vector["payload_hex"].as_str().map(hex) else {
            continue;
        };
        let mut body = payload.clone();
        body.extend(hex(text(vector, "trailer_hex")));
        assert_eq!(body.len() as u64, vector["total_size"].as_u64().unwrap());

        let batches = multibatch::decode(&body, element).unwrap();
        assert_eq!(batches.payload(), payload);
        assert_eq!(batches.counts().collect::<Vec<_>>(), counts);
        assert_eq!(encode(&body, element), body, "{}", vector["name"]);

        let mut again = payload.clone();
        again.resize(body.len(), 0);
        let size =
            multibatch::encode_trailer(&mut again, payload.len(), element, counts.iter().copied());
        assert_eq!(&again[..size], body);
    }
    for vector in file["invalid"].as_array().unwrap() {
        let element = usize::try_from(vector["element_size"].as_u64().unwrap()).unwrap();
        let body = hex(text(vector, "hex"));
        assert!(
            multibatch::decode(&body, element).is_err(),
            "{}",
            vector["name"]
        );
    }
}

/// Decodes a multi-batch body and encodes it again, batch by batch.
fn encode(body: &[u8], element: usize) -> Vec<u8> {
    let mut buffer = vec![0x55; body.len() + 64];
    let mut encoder = Encoder::new(&mut buffer, element);
    for batch in multibatch::decode(body, element).unwrap().iter() {
        encoder.spare()[..batch.elements.len()].copy_from_slice(batch.elements);
        encoder.end_batch(batch.elements.len());
    }
    let size = encoder.finish();
    buffer.truncate(size);
    buffer
}

/// A header rebuilt from its fields: sealed again over the body, with nothing copied that `seal` computes.
fn resealed<H: Header>(header: &H, body: &[u8]) -> Vec<u8> {
    let mut again = *header;
    again.frame_mut().checksum = 0;
    again.frame_mut().checksum_body = 0;
    again.frame_mut().size = 0;
    again.seal(body);
    again.as_bytes().to_vec()
}

#[test]
fn messages() {
    let index = json("index.json");
    let mut checked = 0;
    for entry in index["messages"].as_array().unwrap() {
        let Some(file) = entry["file"].as_str() else {
            continue;
        };
        let message = fs::read(vectors().join(file)).unwrap();
        let (bytes, body) = message.split_first_chunk::<HEADER_SIZE>().unwrap();
        let any = header::frame_unaligned(bytes).unwrap();
        assert_eq!(any.frame.body_size(), Some(body.len()), "{file}");
        any.verify_body(body).unwrap();
        let fields = &entry["header"];
        any.verify_cluster(number(fields, "cluster")).unwrap();
        assert_eq!(any.frame.checksum, number(fields, "checksum"));
        assert_eq!(
            any.frame.release.to_string(),
            text(fields, "release_triple")
        );
        assert_eq!(u64::from(any.frame.view), fields["view"].as_u64().unwrap());
        let dropped = text(entry, "note").contains("reserved operation 7");
        let again = match any.typed().unwrap() {
            Typed::PingClient(ping) => {
                ping.validate().unwrap();
                assert_eq!(ping.client, number(fields, "client"));
                resealed(ping, body)
            }
            Typed::PongClient(pong) => {
                pong.validate().unwrap();
                resealed(pong, body)
            }
            Typed::Request(request) => {
                let refused = dropped && request.operation == 7;
                assert_eq!(request.validate().is_err(), refused, "{file}");
                assert_eq!(request.client, number(fields, "client"));
                assert_eq!(request.session.to_string(), text(fields, "session"));
                request_body(entry, request.operation, body);
                resealed(request, body)
            }
            Typed::Reply(reply) => {
                reply.validate().unwrap();
                assert_eq!(reply.context, number(fields, "context"));
                assert_eq!(reply.context_compute(), reply.context, "{file}");
                assert_eq!(reply.op.to_string(), text(fields, "op"));
                let operation = Operation::try_from(reply.operation).unwrap();
                if operation.is_multi_batch() {
                    assert_eq!(encode(body, operation.result_size()), body, "{file}");
                }
                let mut again = Reply {
                    context: 0,
                    ..*reply
                };
                again.frame.checksum = 0;
                again.frame.checksum_body = 0;
                again.seal_with_context(body);
                assert_eq!(again, *reply);
                resealed(reply, body)
            }
            Typed::Eviction(eviction) => {
                eviction.validate().unwrap();
                let reason = header::EvictionReason::from_code(eviction.reason).unwrap();
                if let Some(note) = text(entry, "note").strip_prefix("eviction reason ") {
                    assert!(note.contains(reason.name()), "{file}");
                }
                resealed(eviction, body)
            }
        };
        assert_eq!(again, bytes, "{file}");
        checked += 1;
    }
    assert_eq!(checked, 231);
}

/// Bodies of the accepted requests are valid, those of evicted ones are not; batches encode to the same bytes.
fn request_body(entry: &Value, operation: u8, bytes: &[u8]) {
    let file = text(entry, "file");
    let Ok(operation) = Operation::try_from(operation) else {
        return;
    };
    let limit = if entry["set"] == "G_provoked" {
        32_512
    } else {
        1_048_320
    };
    let evicted_body = text(entry, "note").starts_with("eviction reason 5");
    let evicted_size = text(entry, "note").contains("register without body");
    let valid = body::validate(operation, bytes, limit);
    let expected = !(evicted_size || evicted_body && operation != Operation::Register);
    assert_eq!(valid.is_ok(), expected, "{file}: {valid:?}");
    if valid.is_ok() && operation.is_multi_batch() {
        assert_eq!(encode(bytes, operation.event_size()), bytes, "{file}");
    }
}

#[test]
fn unaligned_headers_are_no_reference() {
    let mut bytes = [0u128; 17];
    let bytes = bytes.as_mut_bytes();
    assert!(Reply::ref_from_bytes(&bytes[1..257]).is_err());
    assert_eq!(
        Reply::read_from_bytes(&bytes[1..257]).unwrap(),
        Reply::new_zeroed()
    );
}
