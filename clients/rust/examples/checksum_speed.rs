//! How fast the checksum is on this machine: best of many runs, for a header and for a full body.
#![expect(clippy::print_stdout, reason = "an example reports to the terminal")]
#![expect(clippy::disallowed_methods, reason = "measuring needs the clock")]

use stampede_client::wire::checksum;
use std::hint::black_box;
use std::time::{Duration, Instant};

fn main() {
    let input: Vec<u8> = (0..=u8::MAX).cycle().take(1 << 20).collect();
    for (size, repeats) in [(240, 10_000), (4096, 1000), (1 << 20, 1)] {
        let best = (0..500)
            .map(|_| time(&input[..size], repeats))
            .min()
            .unwrap_or_default();
        let gigabytes = size as f64 / best.as_secs_f64() / 1e9;
        println!("{size:>8} bytes: {best:>10.1?}  {gigabytes:.1} GB/s");
    }
}

/// Mean time of one checksum within a burst.
fn time(input: &[u8], repeats: u32) -> Duration {
    let start = Instant::now();
    for _ in 0..repeats {
        black_box(checksum(black_box(input)));
    }
    start.elapsed() / repeats
}
