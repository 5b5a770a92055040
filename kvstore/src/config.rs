//! What a member is told at start.
