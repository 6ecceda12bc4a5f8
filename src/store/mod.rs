//! What state machines keep their state in: tables, indexes, files, checkpoints.
//!
//! ```text
//!   machine ──► table (rows)   index (id → row)   postings (value → rows)   memory
//!                  │ snapshot       └─► runs (old ids, in files) and their filter
//!                  ▼
//!   builder ──► sealed files ──► manifest ──► superblock   storage
//! ```
//!
//! Nothing is overwritten in place: a checkpoint is new immutable files, then a manifest that lists
//! them, then the caller's superblock that refers to the manifest. A crash at any instant leaves
//! the former checkpoint whole. Equal states give equal files on every replica.
//!
//! The store knows no operation and no ledger, and makes no system call but to map memory; files
//! are behind [`Storage`].

mod pages;
mod reserve;
mod table;
mod changing;
mod id_hash;
mod index;
mod filter;
mod run;
mod runs;
mod storage;
mod damage;
mod mapped;
mod span;
mod blob;
mod positions;
mod postings;
mod memory;
mod sealed;
mod copy;
mod checkpoint;
mod scrub;
mod packed;
mod error;

#[cfg(test)]
mod postings_test;

pub use blob::Blob;
pub use changing::{Capture, Changing, OrderedRows, TURNS, Turn};
pub use checkpoint::{Manifest, ManifestRef, Snapshot, sweep, write_checkpoint};
pub use copy::Copier;
pub use damage::Damage;
pub use error::StoreError;
pub use id_hash::IdHash;
pub use index::{INDEX_ENTRY_SIZE_MAX, Index, ROW_NONE};
pub use mapped::Mapped;
pub use memory::MemoryStorage;
pub use packed::{Field, PackedChunk, PackedRows, pack};
pub use pages::{Pages, prefetch};
pub use positions::{Matches, Positions, TERMS_MAX, Term};
pub use postings::{POSTINGS_ROWS_LOG2_MAX, Postings, PostingsBuilder};
pub use reserve::Reserve;
pub use run::{RUN_ROWS_LOG2_MAX, Run, RunIds, run_size, write_run};
pub use runs::{FILTER_BITS, FilterMaker, Runs};
pub use scrub::{ScrubStep, Scrubber};
pub use sealed::{BLOCK_SIZE, FileEntry, PAGE_SIZE, SealedFile, SealedWriter, Section};
pub use span::Span;
pub use storage::{FileKind, FileName, FileWriter, Map, STORAGE_SECTOR_SIZE, Storage, is_full};
pub use table::{CHUNK_ROWS_LOG2, Plain, Shared, Table};
