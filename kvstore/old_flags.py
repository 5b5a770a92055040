"""Names that flags of etcd 3.4 to 3.6 had, and which flag, or which feature gate, has taken the place of each."""

from __future__ import annotations

from collections.abc import Mapping

OLD_GATES: Mapping[str, str] = {
    "experimental-initial-corrupt-check": "InitialCorruptCheck",
    "experimental-compact-hash-check-enabled": "CompactHashCheck",
    "experimental-enable-lease-checkpoint": "LeaseCheckpoint",
    "experimental-enable-lease-checkpoint-persist": "LeaseCheckpointPersist",
    "experimental-stop-grpc-service-on-defrag": "StopGRPCServiceOnDefrag",
    "experimental-txn-mode-write-with-shared-buffer": "TxnModeWriteWithSharedBuffer",
}
_SINCE_RENAMED = (
    *("backend-bbolt-freelist-type", "bootstrap-defrag-threshold-megabytes", "compact-hash-check-time"),
    *("compaction-batch-limit", "compaction-sleep-interval", "corrupt-check-time", "distributed-tracing-address"),
    *("distributed-tracing-instance-id", "distributed-tracing-sampling-rate", "distributed-tracing-service-name"),
    *("downgrade-check-time", "enable-distributed-tracing", "memory-mlock", "peer-skip-client-san-verification"),
    *("snapshot-catchup-entries", "warning-apply-duration", "warning-unary-request-duration"),
    "watch-progress-notify-interval",
)
OLD_FLAGS: Mapping[str, str] = {f"experimental-{name}": name for name in _SINCE_RENAMED}
