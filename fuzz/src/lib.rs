//! Fuzz targets: one function for each kind of byte that comes from a socket, a disk or a peer.
//!
//! A target takes any input and must not panic; what it asserts besides is said at each. Everything
//! outside is under a checksum, which random bytes never satisfy, so inputs are recipes: a target makes
//! something valid, damages it as the input says, and (unless the input says not to) sets the
//! checksums right again, so that the code behind them is reached.
//!
//! | target | what is read |
//! | --- | --- |
//! | `foreign::header` `foreign::message` | a client's header; a client's message, up to its execution |
//! | `foreign::multibatch` `foreign::body` | multi-batch bodies, and bodies by operation |
//! | `ours::header` | a header between replicas |
//! | `disk::journal` `disk::superblock` | segment files, the superblock file |
//! | `disk::checkpoint` `disk::sessions` | files of a checkpoint, the encoded client table |
//!
//! `cargo test -p stampede-fuzz` runs each for a moment on the stable toolchain. With cargo-bolero
//! installed, `cargo bolero test -p stampede-fuzz foreign_message --engine libfuzzer` runs one for as
//! long as one likes.

pub mod disk;
pub mod foreign;
pub mod ours;
pub mod recipe;
