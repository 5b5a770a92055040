//! Cluster and Maintenance services.
