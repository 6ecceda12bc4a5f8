//! A journal in forty lines: format or open, replay, append, wait until durable.
//!
//! ```text
//! cargo run -p stampede-journal --example append -- DIR "a line to remember"
//! ```
//!
//! Every run prints what earlier runs appended, then appends its own line. Kill it whenever you
//! like: a line that it called durable is printed by the next run.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "an example lives in the real world"
)]

use std::error::Error;
use std::path::PathBuf;

use stampede_journal::device::Device;
use stampede_journal::device::files::Files;
use stampede_journal::device::uring::UringDevice;
use stampede_journal::{AlignedBuffer, Config, Journal, Xxh3, checksum_payload};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(dir), Some(line)) = (arguments.next(), arguments.next()) else {
        return Err("usage: append DIR LINE".into());
    };
    let dir = PathBuf::from(dir);
    let config = Config {
        // A real program draws this once, at format, and keeps it.
        id: 0x6170_7065_6e64,
        segment_size: 4 << 20,
        segment_count: 4,
        inflight_bytes_max: 1 << 20,
    };
    let files = if dir.join("journal-0000.seg").exists() {
        Files::open(&dir, &config)?
    } else {
        Files::create(&dir, &config, |_, _| {})?
    };
    let mut device = UringDevice::new(files, 8)?;

    let mut tag = 0;
    let (mut journal, recovery) = Journal::open(config, &mut device, &Xxh3, None, |entry| {
        println!(
            "{:>4} {}",
            entry.tag,
            String::from_utf8_lossy(entry.payload)
        );
        tag = entry.tag;
    })?;
    if let Some(corruption) = recovery.corruptions.first() {
        return Err(format!("the journal is damaged: {corruption}").into());
    }

    let payload = line.as_bytes();
    let buffer = AlignedBuffer::with_payload(payload);
    let checksum = checksum_payload(payload);
    let (location, op) = journal.append(tag + 1, payload.len(), checksum, buffer)?;
    device.submit(op).map_err(|_| "the ring is full")?;
    let mut done = Vec::new();
    while journal.durable() <= location.position {
        device.wait(&mut done)?;
        for completion in done.drain(..) {
            journal.on_written(completion.token, completion.result)?;
        }
    }
    println!(
        "{:>4} {line} (durable at position {})",
        tag + 1,
        location.position
    );
    Ok(())
}
