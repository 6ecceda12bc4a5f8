//! Stampede: a replicated transaction engine.
