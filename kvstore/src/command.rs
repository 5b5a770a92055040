//! Versioned log entries, what Raft replicates.
