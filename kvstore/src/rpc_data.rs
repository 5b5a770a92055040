//! KV, Watch and Lease services.
