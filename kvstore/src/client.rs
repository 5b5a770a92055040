//! The native client: retries, fail-over, leases, watches.
