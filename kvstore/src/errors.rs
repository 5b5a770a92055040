//! Etcd's error codes and texts.
