//! A direct-I/O, checksummed write-ahead journal.
