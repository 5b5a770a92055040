//! The replicated store: a Raft member that speaks etcd's v3 API, and its native client.

pub mod address;
pub mod alarm;
pub mod apply;
pub mod auth;
mod authority;
pub mod backend;
pub mod bolt;
mod budget;
pub mod client;
pub mod command;
pub mod compactor;
pub mod config;
pub mod consensus;
pub mod corruption;
mod crc32c;
mod defragment;
mod dial;
pub mod disk;
pub mod downgrade;
mod encoded;
pub mod errors;
pub mod etcd_file;
mod execute;
pub mod gateway;
pub mod handle;
pub mod lease;
pub mod listen;
pub mod log;
pub mod member;
pub mod membership;
#[cfg(test)]
mod model;
pub mod mvcc;
pub mod pb;
pub mod peer;
#[cfg(feature = "python")]
mod python;
#[cfg(feature = "python")]
mod python_client;
#[cfg(feature = "python")]
mod python_snapshot;
#[cfg(feature = "python")]
mod python_tls;
#[cfg(feature = "python")]
mod python_values;
mod range;
pub mod reactor;
mod reads;
mod record;
pub mod report;
pub mod rpc_auth;
pub mod rpc_cluster;
pub mod rpc_data;
pub mod rpc_maintenance;
pub mod rpc_snapshot;
pub mod rpc_watch;
pub mod snapshot;
pub mod space;
mod stream;
pub mod tls;
pub mod txn;
pub mod wal;
pub mod watch;
