//! Member streams.
