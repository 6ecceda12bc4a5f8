//! A load generator for servers of the ledger client protocol.
