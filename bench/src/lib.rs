//! Load generator.
pub mod args;
pub mod failure;
pub mod figures;
pub mod pace;
pub mod random;
pub mod workload;
