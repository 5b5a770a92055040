//! Grant, renewal and expiry.
