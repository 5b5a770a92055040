"""The scenarios, a file a topic. A new topic (auth, alarms, locks) is a file more and a line here."""

from tests.conformance.etcd.scenarios import (
    auth,
    auth_keys,
    auth_rest,
    cluster,
    contests,
    etcdctl_kv,
    etcdctl_rest,
    etcdctl_watch,
    gateway,
    health,
    leases,
    limits,
    maintenance,
    programs,
    ranges,
    transactions,
    watches,
)
from tests.conformance.etcd.steps import Scenario

TOPICS = (
    auth,
    auth_keys,
    auth_rest,
    etcdctl_kv,
    etcdctl_watch,
    etcdctl_rest,
    ranges,
    transactions,
    watches,
    leases,
    contests,
    gateway,
    health,
    limits,
    cluster,
    maintenance,
    programs,
)
SCENARIOS: tuple[Scenario, ...] = tuple(scenario for topic in TOPICS for scenario in topic.SCENARIOS)
