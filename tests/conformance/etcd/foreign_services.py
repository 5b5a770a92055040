"""Etcd's services that the foreign client's stubs lack, told to its protobuf: locks, elections, health."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

descriptor_pb2: Any = importlib.import_module("google.protobuf.descriptor_pb2")
descriptor_pool: Any = importlib.import_module("google.protobuf.descriptor_pool")
rpc_pb2: Any = importlib.import_module("aetcd.rpc.rpc_pb2")

HEADER = ".etcdserverpb.ResponseHeader"
KEY_VALUE = ".mvccpb.KeyValue"
Fields = tuple[tuple[str, str], ...]
"""Name and type, numbered from 1 on; a type with dots is a message; one with `*` repeats."""
LOCK: Mapping[str, Fields] = {
    "LockRequest": (("name", "bytes"), ("lease", "int64")),
    "LockResponse": (("header", HEADER), ("key", "bytes")),
    "UnlockRequest": (("key", "bytes"),),
    "UnlockResponse": (("header", HEADER),),
}
LEADER = ".v3electionpb.LeaderKey"
ELECTION: Mapping[str, Fields] = {
    "LeaderKey": (("name", "bytes"), ("key", "bytes"), ("rev", "int64"), ("lease", "int64")),
    "CampaignRequest": (("name", "bytes"), ("lease", "int64"), ("value", "bytes")),
    "CampaignResponse": (("header", HEADER), ("leader", LEADER)),
    "LeaderRequest": (("name", "bytes"),),
    "LeaderResponse": (("header", HEADER), ("kv", KEY_VALUE)),
    "ResignRequest": (("leader", LEADER),),
    "ResignResponse": (("header", HEADER),),
    "ProclaimRequest": (("leader", LEADER), ("value", "bytes")),
    "ProclaimResponse": (("header", HEADER),),
}
HEALTH: Mapping[str, Fields] = {
    "HealthCheckRequest": (("service", "string"),),
    # An enum and a map, by what they are on the wire.
    "HealthCheckResponse": (("status", "int64"),),
    "Named": (("name", "string"), ("status", ".grpc.health.v1.HealthCheckResponse")),
    "HealthListRequest": (),
    "HealthListResponse": (("statuses", "*.grpc.health.v1.Named"),),
}
MESSAGES = {
    ("Election", "Observe"): "Leader",
    ("Health", "Check"): "HealthCheck",
    ("Health", "List"): "HealthList",
    ("Health", "Watch"): "HealthCheck",
}
"""What their requests and answers are called where that is not the method's name."""
METHODS = {
    "Health": ("Check", "List", "Watch"),
    "Lock": ("Lock", "Unlock"),
    "Election": ("Campaign", "Proclaim", "Leader", "Observe", "Resign"),
}


def _service(name: str, package: str, messages: Mapping[str, Fields]) -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}.proto",
        package=package,
        syntax="proto3",
        dependency=[rpc_pb2.DESCRIPTOR.name, *(each.name for each in rpc_pb2.DESCRIPTOR.dependencies)],
    )
    for message, fields in messages.items():
        described = file.message_type.add(name=message)
        for number, (field, kind) in enumerate(fields, 1):
            label = "LABEL_REPEATED" if kind.startswith("*") else "LABEL_OPTIONAL"
            added = described.field.add(name=field, number=number, label=label)
            if "." in kind:
                added.type_name, added.type = kind.lstrip("*"), added.TYPE_MESSAGE
            else:
                kinds = {"bytes": added.TYPE_BYTES, "int64": added.TYPE_INT64, "string": added.TYPE_STRING}
                added.type = kinds[kind]
    service = file.service.add(name=name)
    for method in METHODS[name]:
        asked = MESSAGES.get((name, method), method)
        kinds = {"input_type": f".{package}.{asked}Request", "output_type": f".{package}.{asked}Response"}
        service.method.add(name=method, **kinds)
    pool = descriptor_pool.Default()
    pool.Add(file)
    return pool.FindFileByName(file.name).services_by_name[name]


SERVICES: dict[str, Any] = {
    **rpc_pb2.DESCRIPTOR.services_by_name,
    "Lock": _service("Lock", "v3lockpb", LOCK),
    "Election": _service("Election", "v3electionpb", ELECTION),
    "Health": _service("Health", "grpc.health.v1", HEALTH),
}
"""By name; those of the stubs, too."""
