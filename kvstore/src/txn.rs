//! Compares and limits of transactions.
