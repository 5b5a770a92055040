"""fleetctl: the cluster's command line, with fleet's commands, columns and texts."""
