//! Generated protobuf and gRPC types.
#![allow(clippy::all, missing_docs)]

pub mod authpb {
    tonic::include_proto!("authpb");
}
pub mod etcd {
    tonic::include_proto!("etcdserverpb");
}
pub mod peer {
    tonic::include_proto!("fleet.kvstore.peer.v1");
}
