"""`make bench`: the store, the containers and the cluster, measured beside their peers on this machine."""
