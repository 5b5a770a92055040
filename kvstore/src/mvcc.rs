//! Keys by revision, memory first and LMDB behind.
