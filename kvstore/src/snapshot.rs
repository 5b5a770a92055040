//! Save, stream and restore of the whole state.
