"""What this fleetd did since it started, as Prometheus text. Nothing is asked of the store for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from aiohttp import web

CONTENT_TYPE = "text/plain; version=0.0.4"


class Metrics:
    """The route /metrics. `requests` are counts by kind of who sends them to the store; `leads` says whether this
    machine's engine leads."""

    def __init__(self, requests: Mapping[str, Mapping[str, int]], leads: Callable[[], bool]) -> None:
        self._requests = requests
        self._leads = leads

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/metrics", self.metrics)]

    async def metrics(self, request: web.Request) -> web.Response:
        """Counters and gauges, one a line."""
        response = web.Response(text="".join(f"{line}\n" for line in self._lines()))
        response.headers["Content-Type"] = CONTENT_TYPE
        return response

    def _lines(self) -> Iterator[str]:
        yield "# HELP fleetd_engine_leads Whether this machine's engine leads."
        yield "# TYPE fleetd_engine_leads gauge"
        yield f"fleetd_engine_leads {int(self._leads())}"
        yield (
            "# HELP fleetd_store_requests_total Requests to the store, by who of this fleetd sent them; those inside"
            " transactions too."
        )
        yield "# TYPE fleetd_store_requests_total counter"
        for sender, counts in self._requests.items():
            for kind, count in sorted(counts.items()):
                yield f'fleetd_store_requests_total{{sender="{sender}",request="{kind}"}} {count}'
