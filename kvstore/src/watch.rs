//! Fan-out of events to watchers.
