//! `stampede version`: the release, and with `--verbose` all that matters of the machine.

use std::fmt::Write;

use clap::Args;
use stampede_client::wire::Release;

use super::{Failure, say};
use crate::runtime::{self, host};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Also say what the kernel and the processor offer
    #[arg(long, short)]
    verbose: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut text = format!("stampede {}\n", env!("CARGO_PKG_VERSION"));
    if arguments.verbose {
        text.push_str(&machine());
    }
    say(&text)
}

fn machine() -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        writeln!(text, "{name:<16} {value}").expect("a string takes what is written to it");
    };
    let clients = format!("{} to {}", Release::CLIENT_MIN, Release::CURRENT);
    line("client releases", &clients);
    line("message format", &crate::message::VERSION.to_string());
    let build = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    let build = format!("{build}, {}", std::env::consts::ARCH);
    line("build", &build);

    let (major, minor) = runtime::KERNEL_MIN;
    let kernel = runtime::kernel_release();
    let verdict = match runtime::parse_release(&kernel) {
        Some(version) if version < runtime::KERNEL_MIN => {
            format!("{kernel}: too old, {major}.{minor} or newer is needed")
        }
        _ => kernel,
    };
    line("kernel", &verdict);
    let ring = runtime::probe_ring();
    line("io_uring", &ring.unwrap_or_else(|error| error.to_string()));
    line("locked memory", &host::locked_memory());
    let pages = host::huge_pages_setting().unwrap_or_else(|| "unknown".to_owned());
    line("huge pages", &pages);
    line(
        "processor",
        &host::processor().unwrap_or_else(|| "unknown".to_owned()),
    );
    line("features", &features());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    line("cores", &cores.to_string());
    text
}

#[cfg(target_arch = "x86_64")]
fn features() -> String {
    // Those that the build assumes have been checked before anything else ran.
    let mut names = vec!["avx2", "aes", "pclmulqdq"];
    let more = [
        ("vaes", std::arch::is_x86_feature_detected!("vaes")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
    ];
    names.extend(
        more.into_iter()
            .filter(|(_, has)| *has)
            .map(|(name, _)| name),
    );
    names.join(" ")
}

#[cfg(not(target_arch = "x86_64"))]
fn features() -> String {
    "aes".to_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn everything_has_a_line() {
        let text = super::machine();
        for name in [
            "client releases",
            "kernel",
            "io_uring",
            "locked memory",
            "features",
        ] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{text}");
        }
    }
}
