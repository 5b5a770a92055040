//! The LMDB writer behind memory.
