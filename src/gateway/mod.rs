//! Foreign protocols: their bytes become our messages, our replies become their bytes.
//!
//! One folder per protocol, all pure: no socket, clock or table, only bytes in and values out, so that the runtime and
//! the simulator run the same code. A gateway refuses what its protocol forbids before anything is replicated; what
//! follows it may rely on valid bodies. It must not know how requests are ordered, executed or stored.

pub mod tigerbeetle;
