//! The ledger client protocol: layouts, checksums, and a blocking client.
