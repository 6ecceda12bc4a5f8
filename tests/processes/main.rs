//! Real processes on loopback: the program as it is run, nothing simulated.
//!
//! | file | what is tested |
//! | --- | --- |
//! | `commands` | the command line: refusals, locks, ports, signals |
//! | `drills` | `stampede drill`, the quick ones |
//! | `kills` | kill -9 under load, and an account of every acknowledged transfer |
//! | `disks` | disks that fail, and disks that are full |
//! | `crowd` | hundreds of sessions at once |
//! | `transfer` | a checkpoint fetched from another replica |
//! | `stalls` | the longest wait over hundreds of checkpoints |
//! | `official` | the official clients, unmodified |
//! | `cluster`, `load` | processes and directories; load that keeps accounts |

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "processes live in real time, and a failed test says where their logs are"
)]

mod backup;
mod cluster;
mod commands;
mod crowd;
mod disks;
mod drills;
mod kills;
mod load;
mod official;
mod stalls;
mod transfer;
