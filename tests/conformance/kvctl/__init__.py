"""kvctl beside etcd's own client: the same command lines, each on a server of its own, and the same state on both.

Command lines are data (`lines/`, a file a group, which begins with an empty store); `tool` runs them and gives what
must differ (ids, times, sizes) the same names; `test_lines` compares standard output, the last line of standard error
and the exit code, byte by byte. What is under `lines/debian` etcdctl 3.4 has; what is under `lines/newest` it lacks, or
tells otherwise.
"""
