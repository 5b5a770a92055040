//! Raft-rs behind our own rules; pure.
