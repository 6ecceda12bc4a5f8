//! How fast the load generator can be: a run against a server that acknowledges everything and does
//! nothing, in the same process.
//!
//! ```text
//! cargo run --release -p stampede-bench --example ceiling -- --transfers 10m
//! ```
//!
//! The server's thread receives and verifies as any server must, and shares the machine; the processor
//! time per batch in the table is the generator's alone. Results cannot be verified here.

#![allow(
    dead_code,
    reason = "the test server can do more than is asked of it here"
)]

#[path = "../tests/fake/mod.rs"]
mod fake;

use std::process::ExitCode;

use clap::Parser;
use fake::{Behaviour, Fake};
use stampede_bench::BenchArgs;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    bench: BenchArgs,
}

fn main() -> ExitCode {
    let mut bench = Command::parse().bench;
    let fake = Fake::start(Behaviour {
        blind: true,
        ..Behaviour::default()
    });
    bench.load.addresses = fake.addresses.iter().map(ToString::to_string).collect();
    bench.load.no_verify = true;
    bench.load.note = Some("none: acknowledges everything, does nothing".into());
    stampede_bench::run(&bench)
}
