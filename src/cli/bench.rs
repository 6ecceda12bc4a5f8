//! `stampede bench`: the load generator, which is a crate of its own and a client like any other.

use std::process::ExitCode;

use stampede_bench::BenchArgs;

pub(super) fn run(arguments: &BenchArgs) -> ExitCode {
    stampede_bench::run(arguments)
}
