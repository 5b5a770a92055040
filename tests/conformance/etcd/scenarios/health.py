"""gRPC's health service: which names it knows, and what a watch tells."""

from tests.conformance.etcd.steps import Call, Cancel, Close, Open, Scenario, Send, Step, Take

LIST_SINCE = (3, 7)
"""The gRPC that etcd is built with has it since then."""


def watched(name: str, service: str, at: str) -> tuple[Step, ...]:
    """Watch one service's health until its first answer, and go away."""
    return (
        Open(name, "Health/Watch", at=at),
        Send(name, {"service": service}),
        Close(name),
        Take(name, responses=1),
        Cancel(name),
        Take(name, end=True),
    )


SCENARIOS = (
    Scenario(
        "health: checked, listed and watched",
        (
            *(Call("Health/Check", at=at) for at in ("leader", "follower")),
            *(
                Call("Health/Check", {"service": service})
                for service in ("etcdserverpb.KV", "etcdserverpb.Watch", "grpc.health.v1.Health", "nothing", " ")
            ),
            Call("Health/List", since=LIST_SINCE),
            *watched("whole", "", "leader"),
            *watched("one", "etcdserverpb.KV", "follower"),
            Call("Health/Check", metadata={"hasleader": "true"}),
            Call("Health/Check", metadata={"token": "nonsense"}),
        ),
        members=3,
    ),
)
