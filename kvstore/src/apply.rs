//! A committed entry to its effects on the state.
