"""kvctl: the store from a shell, with the verbs, flags and outputs of etcd's own client."""
