//! `stampede drill`: the drills, which are a crate of their own, played with this very program.

use std::process::ExitCode;

use stampede_drill::DrillArgs;

use super::Failure;

pub(super) fn run(arguments: &DrillArgs) -> Result<ExitCode, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(format!("cannot find this program's own file: {error}")))?;
    Ok(stampede_drill::run(arguments, &program))
}
