//! The replicated store: a Raft member that speaks etcd's v3 API, and its native client.

pub mod apply;
mod authority;
pub mod backend;
pub mod client;
pub mod command;
pub mod config;
pub mod consensus;
pub mod disk;
pub mod errors;
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
mod python_values;
mod range;
pub mod reactor;
mod reads;
mod record;
pub mod report;
pub mod rpc_admin;
pub mod rpc_data;
pub mod rpc_watch;
pub mod snapshot;
pub mod txn;
pub mod wal;
pub mod watch;
