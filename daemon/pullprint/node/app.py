"""pullprintd, wired: the one place where everything is built and started."""

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from aiohttp import web

from pullprint import __version__
from pullprint.base import systemd
from pullprint.base.clock import Clock
from pullprint.base.config import ConfigFile
from pullprint.base.errors import PullprintError
from pullprint.base.files import private_directory
from pullprint.base.platform import launchd_sockets
from pullprint.model.placement import Role
from pullprint.node.channel import Channel
from pullprint.node.client import CloudAway, CloudClient
from pullprint.node.convert import Converter
from pullprint.node.direct import DirectQueues
from pullprint.node.doctor import examine
from pullprint.node.facts import FactCounter
from pullprint.node.holder import Holder
from pullprint.node.inquiry import Inquiry
from pullprint.node.intake import Intake, IntakeSilent, check_intake
from pullprint.node.join import join
from pullprint.node.local import LocalApi
from pullprint.node.logins import Logins
from pullprint.node.mesh import Mesh
from pullprint.node.metrics import Counts
from pullprint.node.overview import Overview
from pullprint.node.placement import Placement
from pullprint.node.quorum import Quorum
from pullprint.node.release import Releaser
from pullprint.node.settings import Settings
from pullprint.node.site import Site
from pullprint.node.sleep import Sleeper
from pullprint.node.transfer import Transfers
from pullprint.node.uploads import Uploads
from pullprint.node.watch import Watch
from pullprint.vault.index import Index
from pullprint.vault.keyring import Keyring
from pullprint.wire.views import FindingView, JoinRequest, StatusView

log = logging.getLogger(__name__)

HOUSEKEEPING = 60.0
"""Seconds between looks for what has expired."""
LONGEST_HOLD = 30 * 86_400
MESH_PAUSE = 30.0
"""Seconds until the mesh is started again after a fault."""
SPOOL = "spool-"
PATIENCE, DELIVERY_PATIENCE = 300.0, 3_600.0
"""See `Node._patience`."""
GRACE = 60.0
"""Seconds that deliveries under way get when the daemon is told to stop, as it is by every upgrade: longer than most
documents need, shorter than systemd's unit waits before it kills (TimeoutStopSec)."""


class Node:
    """One running pullprintd."""

    def __init__(self, settings: Settings, clock: Clock, config: ConfigFile[Settings]) -> None:
        """Blocking. *config* is the file that *settings* are from."""
        self._settings = settings
        self._config = config
        self._clock = clock
        private_directory(settings.state_dir)
        self._keyring = Keyring(settings.state_dir / "keys")
        self._identity = self._keyring.identity()
        self._site = Site(settings.state_dir, clock)
        self._site.load()
        self._holder = Holder(settings.state_dir, self._keyring, clock)
        self._client: CloudClient | None = None
        self._counts = Counts()
        transfers = Transfers(settings.mesh_transfers, clock, self._counts)
        self._placement = Placement(settings, self._holder, self._site, self._identity, clock, transfers)
        self._mesh = Mesh(settings, self._holder, self._site, self._identity, self._placement, clock, self._counts)
        self._placement.cloud = self._mesh.cloud = self._cloud
        self.sleeper = Sleeper(self._holder, clock, self._cloud)
        self._channel: Channel | None = None
        self._logins: Logins | None = None
        self._joining = asyncio.Lock()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until *stop*; then let deliveries end, and go. Raises IntakeSilent."""
        settings = self._settings
        async with systemd.starting("taking stock of the held jobs"):
            await self._holder.start(self._site.config.hold if self._site.joined else LONGEST_HOLD)
        self._holder.vouched = not self._site.member
        settings.runtime_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        trust = private_directory(settings.state_dir / "printers")
        with _spool(settings.runtime_dir) as spool:
            releaser = Releaser(
                self._holder, self._site, self._identity, self._clock, backend_dir=settings.backend_dir, spool=spool,
                trust=trust, counts=self._counts,
            )  # fmt: skip
            counter = FactCounter(settings.facts_program, self._clock, service=settings.sandbox_socket)
            inquiry = Inquiry(self._holder, self._site, self._clock, trust)
            releaser.doubted = inquiry.doubt
            releaser.reclaim = self.sleeper.reclaim
            releaser.damaged = self._mesh.scrub.doubt
            placement = self._placement if self._mesh.wanted else None
            intake = Intake(settings, self._holder, self._site, self._identity, counter, self._clock, placement)
            inherited = systemd.inherited_sockets() or launchd_sockets("intake", "control")
            api = LocalApi(self, self._holder, self._site, settings.name, self._overview(), self._counts).app()
            runner = web.AppRunner(api, access_log=None, shutdown_timeout=1.0)
            await runner.setup()
            await web.SockSite(runner, inherited.get("control") or _listen(settings.control_socket)).start()
            listener = inherited.get("intake") or _listen(settings.intake_socket)
            intake_path = listener.getsockname() if "intake" in inherited else str(settings.intake_socket)
            if self._mesh.wanted and self._site.member:
                await self._mesh.open()
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [
                        group.create_task(intake.run(listener), name="intake"),
                        group.create_task(self._serve_cloud(releaser, intake), name="cloud"),
                        group.create_task(self._keep_house(), name="housekeeping"),
                        group.create_task(inquiry.run(), name="inquiry"),
                        group.create_task(self._serve_mesh(releaser), name="mesh"),
                        group.create_task(self.sleeper.run(), name="sleeper"),
                    ]
                    silent = await _silence(intake_path)
                    if silent is None:
                        tasks.append(group.create_task(systemd.beat(self._check, self._patience), name="watchdog"))
                        systemd.notify("READY=1")
                        await asyncio.to_thread(self._config.keep)
                        log.info("pullprintd %s is ready; node %s", __version__, self._identity.node)
                        await stop.wait()
                    systemd.notify("STOPPING=1")
                    releaser.closing = True
                    await self._finish_deliveries()
                    for task in tasks:
                        task.cancel()
            finally:
                await runner.cleanup()
                listener.close()
                self._holder.close()
        if silent is not None:
            raise silent

    async def status(self) -> StatusView:
        """How this node is."""
        counts = await self._holder.read(Index.counts)
        unreported = await self._holder.read(Index.unreported)
        channel, site = self._channel, self._site
        member = site.membership if site.member else None
        config_trouble = await asyncio.to_thread(self._config.trouble)
        if member is None:
            sentence = "Not joined. Ask an admin for a join code, then: pullprint join CLOUD CODE"
        elif channel and channel.connected:
            sentence = "" if config_trouble else self._mesh.trouble or "All is well."
        else:
            sentence = (channel.trouble if channel else "") or "Connecting to the cloud."
        return StatusView(
            version=__version__, joined=site.joined, node=self._identity.node, name=self._settings.name,
            organisation=member.organisation if member else "", site=member.site if member else "",
            cloud=member.cloud if member else "", connected=bool(channel and channel.connected),
            connected_since=channel.connected_since if channel else 0.0, sentence=sentence,
            held=counts.get("held", 0), unclaimed=counts["unclaimed"], uncertain=counts.get("uncertain", 0),
            stored_bytes=counts["bytes"], unreported=unreported,
            cloud_version=channel.cloud_version if channel else "",
            config_trouble=config_trouble,
        )  # fmt: skip

    async def doctor(self) -> list[FindingView]:
        """What is well here, and what is not."""
        trouble = await asyncio.to_thread(self._config.trouble)
        return await examine(self._settings, self._holder, self._site, self._channel, trouble)

    async def join(self, request: JoinRequest) -> None:
        """Join an organisation; the channel starts by itself."""
        async with self._joining:
            await join(request, self._settings, self._keyring, self._identity, self._site, self._clock)

    def channel(self) -> Channel:
        """The channel to the cloud. Raises NotJoined, CloudAway."""
        cloud = self._site.membership.cloud
        if self._channel is None:
            raise CloudAway(cloud=cloud, reason="this host is only just starting")
        return self._channel

    def logins(self) -> Logins:
        """The logins of this host's accounts. Raises NotJoined, CloudAway."""
        if self._logins is None:
            raise CloudAway(cloud=self._site.membership.cloud, reason="this host is only just starting")
        return self._logins

    async def _serve_cloud(self, releaser: Releaser, intake: Intake) -> None:
        while not self._site.member:
            ticket = self._site.changed.ticket
            await self._site.changed.wait(ticket)
        member = self._site.membership
        client = CloudClient(member.cloud, member.cloud_authority, member.node, self._identity.key, self._clock)
        converter = Converter(
            self._settings.convert_program, self._settings.upload_media, self._clock, self._settings.sandbox_socket
        )
        uploads = Uploads(client, intake, self._keyring, converter)
        async with client, asyncio.TaskGroup() as group:
            mesh = self._mesh if self._mesh.wanted else None
            self._client = client
            self._channel = Channel(client, self._site, self._holder, releaser, uploads, self._clock, mesh)
            self._logins = Logins(client, self._channel, self._site, self._clock)
            group.create_task(self._channel.run(), name="channel")
            group.create_task(self._logins.run(), name="logins")
            group.create_task(
                DirectQueues(self._holder, self._site, self._channel, self._clock).run(), name="direct queues"
            )
            group.create_task(Watch(self._site, releaser.printers, client, self._clock).run(), name="watch")

    async def _serve_mesh(self, releaser: Releaser) -> None:
        if not self._mesh.wanted:
            return
        opened = self._site.member
        while not self._site.member:
            ticket = self._site.changed.ticket
            await self._site.changed.wait(ticket)

        def found(quorum: Quorum | None) -> None:
            if quorum is not None:
                quorum.proxy = self.sleeper.vote_for
            releaser.quorum = quorum

        self._mesh.found_voters = found
        while True:
            try:
                if not opened:
                    await self._mesh.open()
                opened = False
                await self._mesh.run()
            except Exception:  # whatever it is, this host goes on printing
                log.exception("the mesh failed")
            await self._clock.sleep(MESH_PAUSE)

    def _cloud(self) -> CloudClient | None:
        return self._client if self._channel is not None and self._channel.connected else None

    def _overview(self) -> Overview:
        return Overview(
            self._holder, self._site, self._settings.name,
            peers=lambda: self._mesh.peers if self._mesh.wanted and self._site.member else None,
            role=Role(self._settings.role),
            room=lambda: self._mesh.copies.last_room,
        )  # fmt: skip

    async def _check(self) -> None:
        """Ask the index, without which the intake can store nothing, what costs the same however much is held; and tell
        systemd how things stand."""
        await self._holder.read(Index.by_uuid, "")
        member, channel = self._site.membership if self._site.member else None, self._channel
        said = [f"joined to {member.organisation}, {member.site}" if member else "not joined"]
        if member:
            said.append(f"cloud {'connected' if channel and channel.connected else 'away'}")
        if self._config.problem:
            said.append("with the last good configuration")
        systemd.tell_status("; ".join(said))

    def _patience(self) -> float:
        """For how many seconds the index may be silent before systemd is to kill this process.

        It is silent because its thread hangs, which a new process puts right, or because the disk does, which no new
        process puts right: a process that waits for a disk cannot even be killed. A disk that comes back at all does
        so within the kernel's time-outs and repetitions. And a document that is on its way to a printer would be
        uncertain for its owner; so while there is one, much more is waited for.
        """
        return DELIVERY_PATIENCE if self._holder.busy else PATIENCE

    async def _keep_house(self) -> None:
        while True:
            await self._clock.sleep(HOUSEKEEPING)
            try:
                connected = self._channel is not None and self._channel.connected
                await self._holder.keep_house(self._site.cloud_now() if connected else None)
            except (PullprintError, OSError) as error:
                log.error("housekeeping: %s", error)

    async def _finish_deliveries(self) -> None:
        """A delivery that is cut off leaves its job uncertain; a moment's patience spares its owner the question."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                while self._holder.busy:
                    ticket = self._holder.changes.ticket
                    await self._holder.changes.wait(ticket, 0.1)


async def _silence(intake: str) -> IntakeSilent | None:
    """Why the intake is not there for backends, if so."""
    try:
        async with systemd.starting("waiting for the intake"):
            await check_intake(intake)
    except IntakeSilent as error:
        return error
    return None


@contextlib.contextmanager
def _spool(runtime_dir: Path) -> Iterator[Path]:
    """A folder for what a backend has to spool; what a killed daemon left of such is removed first."""
    for old in runtime_dir.glob(f"{SPOOL}*"):
        shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=SPOOL, dir=runtime_dir) as spool:
        yield Path(spool)


def _listen(path: Path) -> socket.socket:
    """A listening Unix socket at *path* that any account may connect to; who it is, the kernel tells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Under a private name first, so that there is no moment with the wrong mode.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    listener.bind(str(temporary))
    temporary.chmod(0o666)
    listener.listen(256)
    temporary.rename(path)
    return listener
