"""One machine's part of a cluster, but for what runs units and containers (`agent`)."""

import os

# gRPC reads this when it is imported, and would write its own lines beside our log; what fails is an error of ours.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
