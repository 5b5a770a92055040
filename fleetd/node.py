"""Plugs one machine together: forming, store, presence, registry, engine, agent, API. Decides nothing itself."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent import identity, nodeapi, vacuum
from agent.containers.container import Containers
from agent.discovery import Discovery
from agent.dockerapi.server import DockerApi, is_free
from agent.exec_context import make_libexec
from agent.identity import this_host
from agent.supervisor import Supervisor
from fleetd import store
from fleetd.accepting import Accepting
from fleetd.api.metrics import Metrics
from fleetd.api.server import ApiServer
from fleetd.bootstrap import Bootstrap
from fleetd.config import NODE_PORT, Config
from fleetd.engine.leader import Engine
from fleetd.journals import Journals
from fleetd.peers import PeerAnswers
from fleetd.presence import PAGE, MachineLease
from fleetd.processes import Program
from fleetd.registry import Registry, RegistryError, keys
from fleetd.registry.records import Machine
from fleetd.registry.reports import ClusterLink
from fleetd.trust import Trust
from fleetd.voters import Voters
from fleetd.whereabouts import Whereabouts
from kvstore.client import Client
from kvstore.errors import LeaseNotFound, StoreError

log = logging.getLogger("fleetd.node")

STORE_RETRY_S = 0.1
TWIN_TIMEOUT_S = 0.5
"""No machine comes up later than this for the sake of a copied disk."""
DIRECTORY_MODE = 0o700


class Node:
    """One machine of a cluster."""

    def __init__(self, config: Config) -> None:
        self._config = config
        for path in (config.data_dir, config.run_dir, config.data_dir / "log"):
            path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        self.machine_id = identity.machine_id(config.machine_id_file, config.data_dir)
        self.boot = identity.boot()
        trust = Trust(config)
        self._trust = trust
        self._node_clients = nodeapi.NodeClients(trust.channel)
        self._addresses: dict[str, str] = {}
        self._bootstrap = Bootstrap(config, self.machine_id, self.boot, self._node_clients, self._addresses.keys)
        self._client = Client(store.endpoints(config, self._bootstrap.record))
        self._engines_client = self._client.sibling()
        self._own_store = Client(config.client_urls[-1:])
        self._engine: Engine | None = None
        self._overrides = config.run_dir / "peer-urls.json"
        self._whereabouts = Whereabouts(
            config,
            self.machine_id,
            self._bootstrap,
            self._client,
            self._own_store,
            self._addresses,
            self._overrides,
            self._store_moved,
        )
        self._store: Program | None = None
        self._presence: MachineLease | None = None
        self._registry = Registry(self._client, self.machine_id)
        self._link = ClusterLink(self._client, self.machine_id)
        self._journals = Journals(
            config.data_dir / "journal", self.machine_id, self.boot, self._registry, self._node_clients, NODE_PORT
        )
        self._answers = PeerAnswers(config, self.machine_id, self.boot, self._bootstrap, self._journals.here)
        self._accepting = Accepting(self._client, self._waiting, self._bootstrap.addresses)
        self._containers = Containers(config.data_dir, config.run_dir, self.boot, self._link.report_containers)
        self._supervisor = Supervisor(
            self._link,
            self._containers,
            data_dir=config.data_dir,
            run_dir=config.run_dir,
            boot=self.boot,
            host=this_host(self.machine_id, self.boot),
            page=config.run_dir / PAGE,
        )

    async def run(self) -> None:
        """Come up and stay until cancelled. What was started outlives this."""
        server = await nodeapi.serve(self._answers, self._config.node_address, self._trust.listen)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._api().run(), name="fleet API")
                tasks.create_task(self._agent(), name="agent")
                tasks.create_task(self._discover(), name="discovery")
                await self._join(tasks)
        finally:
            await server.stop(grace=0)
            await self._node_clients.close()
            await self._own_store.close()
            await self._client.close()

    def _api(self) -> ApiServer:
        return ApiServer(
            self._config.api_socket,
            self._registry,
            journal=self._journals.anywhere,
            status=self.status,
            joined=self._waiting,
            accepts=self._accepting.why_not,
            metrics=Metrics(
                {"engine": self._engines_client.requests, "machine": self._client.requests},
                lambda: self._engine is not None and self._engine.leading,
            ),
        )

    def _waiting(self) -> str:
        """A sentence why this machine is of no use to a client yet, or ''."""
        if self._answers.voters is not None:
            return ""
        formed = self._bootstrap.record.phase == "member"
        return f"This machine {'does not reach its' if formed else 'is in no'} cluster yet: {self._bootstrap.why}."

    async def _agent(self) -> None:
        """Units and containers need no cluster to go on: they are taken over before anybody is asked."""
        sockets = [self._config.run_dir / "docker.sock"]
        if is_free(self._config.docker_socket):
            sockets.append(self._config.docker_socket)
        try:
            await asyncio.to_thread(make_libexec)
        except OSError as error:
            log.warning("lines of units that reach docker through a shell won't find it: %s", error)
        await self._containers.adopt()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._containers.run(), name="containers")
            tasks.create_task(DockerApi(self._containers, sockets).run(), name="docker API")
            tasks.create_task(self._supervisor.run(), name="units")
            tasks.create_task(self._link.run(), name="reports")
            tasks.create_task(
                vacuum.run(self._config.data_dir / "journal", self._written_journals, self._supervisor.units),
                name="journals",
            )

    async def _written_journals(self) -> set[str]:
        units = await self._supervisor.written_journals()
        return units | {one.log_dir for one in self._containers.list() if one.state == "running"}

    async def _discover(self) -> None:
        if not self._config.mdns or self._config.on_loopback:
            return
        discovery = Discovery(
            self.machine_id, self._config.listen_address, NODE_PORT, self._addresses, self._discovered
        )
        try:
            await discovery.start()
        except OSError as error:
            log.warning("no mDNS here (%s): name the other machines with --peers", error)
            return
        try:
            await asyncio.Event().wait()
        finally:
            await discovery.stop()

    async def _join(self, tasks: asyncio.TaskGroup) -> None:
        known = self._bootstrap.record.phase == "member"
        if known:
            await self._check_presence()
        record = await self._bootstrap.form()
        self._client.set_endpoints(store.endpoints(self._config, record))
        if not self._config.kv_endpoints:
            self._store = self._store_program()
            tasks.create_task(self._store.run(), name="store")
            tasks.create_task(self._whereabouts.run(), name="whereabouts")
        await self._store_answers()
        if record.phase == "founding":
            await self._expect_voters(founding=True)
            self._bootstrap.save(phase="member", initial_state="existing")
            record = self._bootstrap.record
            if self._store is not None:
                self._store.env.update(store.member_env(record))
        voters = Voters(self._client, self._config.voters, record.cluster_id, foreign=self._config.kv_endpoints)
        self._answers.voters = voters
        await self._registry.register_machine(self._machine())
        self._presence = self._make_presence()
        booted = known and not self._presence.adopts
        tasks.create_task(self._presence.run(self._has_lease), name="presence")
        if not self._config.kv_endpoints and record.role == "voter":
            tasks.create_task(voters.promote(self.machine_id), name="promotion")
        tasks.create_task(self._expect_voters(), name="expected voters")
        tasks.create_task(self._accepting.run(), name="accepting")
        self._engine = Engine(
            self._engines_client, self.machine_id, booted=booted, compacts=not self._config.kv_endpoints
        )
        tasks.create_task(self._engine.run(), name="engine")
        log.info("machine %s is up in cluster %s", self.machine_id, record.cluster_id)

    async def _check_presence(self) -> None:
        """Before the store starts here: two members with one id would spoil it. The other voters are asked, shortly."""
        others = [url for url in self._bootstrap.record.store_endpoints if url not in self._config.client_urls]
        if not others or self._config.kv_endpoints:
            return
        async with Client(others, timeout=TWIN_TIMEOUT_S) as client:
            try:
                presence = await Registry(client, self.machine_id).presence(self.machine_id)
            except StoreError:
                return
        await self._bootstrap.check_presence(presence)

    async def _expect_voters(self, *, founding: bool = False) -> None:
        """The founder says how many voters units wait for; started with a smaller --bootstrap-expect, it says less.
        Nobody waits for members of a store that is not ours."""
        if self._config.kv_endpoints:
            return
        while True:
            try:
                await self._accepting.expect(
                    min(self._config.bootstrap_expect, self._config.voters), self.machine_id, founding=founding
                )
                return
            except RegistryError as error:
                log.error("can't say how many voters are expected: %s", error)
                return
            except StoreError as error:
                log.debug("can't write how many voters are expected: %s", error)
                await asyncio.sleep(STORE_RETRY_S)

    def _store_program(self) -> Program:
        record = self._bootstrap.record
        if record.role == "voter":
            argv, name = store.member_argv(self._config, self.machine_id, record, self._overrides), "kvstore"
        else:
            argv, name = store.gateway_argv(self._config, record.store_endpoints), "kvgateway"
        env = store.member_env(record) if record.role == "voter" else {}
        program = Program(name, argv, self._config.run_dir, self._config.data_dir / "log", env)
        program.adopts = not self._bootstrap.rejoined
        return program

    async def _store_answers(self) -> None:
        while True:
            try:
                await self._client.get(keys.ROOT, count_only=True)
                return
            except StoreError as error:
                self._bootstrap.say(f"waiting for the store: {error}")
                await asyncio.sleep(STORE_RETRY_S)

    def _discovered(self) -> None:
        self._bootstrap.changed.set()
        self._whereabouts.discovered()

    def _store_moved(self) -> None:
        """The store's members have other addresses than before: everything here that asks them follows."""
        record = self._bootstrap.record
        urls = store.endpoints(self._config, record)
        log.info("the store is at %s", ", ".join(urls))
        self._client.set_endpoints(urls)
        if self._presence is not None:
            self._presence.set_endpoints(urls)
        if self._store is not None and record.role == "client":
            self._store.replace(store.gateway_argv(self._config, record.store_endpoints))

    def _make_presence(self) -> MachineLease:
        return MachineLease(
            self._config.run_dir,
            self._config.data_dir / "log",
            shutil.which("fleet-presence") or str(Path(__file__).with_name("fleet-presence")),
            store.endpoints(self._config, self._bootstrap.record),
        )

    async def _has_lease(self, lease: int, returning: bool | None) -> None:
        """Presence holds this lease now: announce the machine under it, then let reports go out."""
        while True:
            try:
                await self._registry.announce(self.boot, self._config.listen_address, lease)
                break
            except LeaseNotFound:
                log.warning("lease %x is gone; fleet-presence takes another", lease)
                await asyncio.Event().wait()  # until the next lease cancels this
            except StoreError as error:
                log.warning("can't announce this machine yet: %s", error)
                await asyncio.sleep(STORE_RETRY_S)
        if self._presence is not None:
            self._presence.announced(lease)
        self._link.set_lease(lease, returning=returning)

    def _machine(self) -> Machine:
        return Machine(
            self.machine_id,
            self._config.listen_address,
            dict(self._config.metadata),
            self.boot,
            self._bootstrap.record.role,
        )

    async def status(self) -> Mapping[str, Any]:
        """What this machine knows of itself and its cluster."""
        record = self._bootstrap.record
        known: dict[str, Any] = {
            "machine": self.machine_id,
            "boot": self.boot,
            "cluster_name": self._config.cluster_name,
            "cluster_id": record.cluster_id,
            "role": record.role if record.phase == "member" else "",
            "phase": record.phase,
            "why": self._waiting(),
            "joined": self._answers.voters is not None,
            "accepts_units": False,
        }
        if not known["why"]:
            try:
                known["why"] = await self._accepting.why_not()
                known["accepts_units"] = not known["why"]
            except RegistryError as error:
                known["why"] = str(error)
            except StoreError as error:
                known["why"] = f"The store does not answer: {error}"
        return known
