//! `stampede recover`: makes the data directory of a replica whose former one was lost.
//!
//! The same directory as `format` makes, with a mark: this replica had promised things that it does
//! not know any more. Until the others have told it, it neither acknowledges nor takes part in view
//! changes. A replica made by `format` instead is found out by its peers, which remember it, and
//! treated alike; but where they have lost their memory too, only the mark can tell.

use super::Failure;
use super::format::{self, Arguments};

pub(super) fn check(arguments: &Arguments) -> Result<(), Failure> {
    let identity = format::check(arguments)?;
    if identity.replica_count == 1 {
        return Err(Failure::usage(
            "a single replica has nobody to recover from: restore a backup, or `stampede format` to begin \
             anew with nothing",
        ));
    }
    Ok(())
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    check(arguments)?;
    format::make(arguments, true)
}
