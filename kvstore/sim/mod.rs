//! A cluster in one thread from one seed: members with the real consensus, log and state machine, on a network and disks
//! that fail, used by clients whose every observation is held against a naive model.
//!
//! Not here: the reactor's task itself, gRPC and what it does with streams that are slow, requests that a member passes
//! on to the leader other than renewals, the peers' links. What of them decides is joined here by hand, as they join it.

mod admin;
mod checker;
mod clients;
mod disk;
mod faults;
pub mod hunt;
mod member;
mod model;
mod network;
mod rng;
mod running;
mod session;
mod state;
mod tenants;
mod truth;
mod users;
mod watching;
mod world;
