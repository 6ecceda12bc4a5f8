//! Damage that shows itself in the middle of something.
//!
//! ```text
//!   catch ─► apply ─► query ─► row ─► a page of a mapped file ─► its checksum does not match: raise
//!     ▲                                                                                        │
//!     └────────────────────────── Err(Damage) ── unwound, nothing has seen the page ───────────┘
//! ```
//!
//! A row of a mapped file is looked at from everywhere, and nothing that looks can go on without it. So
//! there is one way out, from any depth: the stack is unwound to whoever began, who gives up what was being
//! worked on (half of an operation may have happened in memory), and has the file mended. It is not a panic:
//! no panic hook runs, and any other unwinding passes through.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::error::StoreError;
use super::sealed::FileEntry;

/// A file is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Damage {
    pub entry: FileEntry,
    pub what: String,
}

impl Damage {
    pub fn new(entry: FileEntry, error: &StoreError) -> Self {
        Self {
            entry,
            what: error.to_string(),
        }
    }

    /// Gives up everything up to the next [`Damage::catch`].
    pub(super) fn raise(self) -> ! {
        resume_unwind(Box::new(self))
    }

    /// Does the work, or says what damage it met. What it was changing then is not to be used any more.
    ///
    /// # Errors
    /// The first damage.
    pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Self> {
        catch_unwind(AssertUnwindSafe(work)).map_err(|payload| match payload.downcast::<Self>() {
            Ok(damage) => *damage,
            Err(other) => resume_unwind(other),
        })
    }
}
