"""Programs that use a client's own API, as a user's would."""

from tests.conformance.etcd.steps import Program, Scenario

SCENARIOS = (Scenario("aetcd: a tour", (Program("aetcd_tour.py"),)),)
