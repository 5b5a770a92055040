//! The append and sync thread.
