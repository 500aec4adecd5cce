"""A node in this process, and the organisation that it belongs to; no cloud runs, its keys are the test's own."""

import asyncio
import json
import os
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.rig.office import FACTS

from pullprint.base.clock import SystemClock
from pullprint.node.facts import FactCounter
from pullprint.node.holder import Holder
from pullprint.node.intake import Intake
from pullprint.node.release import Releaser
from pullprint.node.settings import Settings
from pullprint.node.site import Membership, Site
from pullprint.vault import parts
from pullprint.vault.index import Index
from pullprint.vault.keyring import Keyring
from pullprint.vault.record import Record
from pullprint.wire.node import CLOUD, OrderItem, PartyKey, Printer, SiteConfig, sign_config
from pullprint.wire.order import Order, sign_order

ORGANISATION, SITE = "acme", "office"
USER = "alice@example.com"
BACKENDS = Path("/usr/lib/cups/backend")


class Organisation:
    """What the cloud would do: sign configurations and orders, and hand over its key part."""

    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate().private_bytes_raw()
        self.pin = Ed25519PrivateKey.from_private_bytes(self.key).public_key().public_bytes_raw()
        self.private, public = parts.new_key()
        self.party = PartyKey(key="cloud-1", public=public, expires=1 << 40)

    def config(self, node: str, printers: dict[str, str], **changes: Any) -> str:
        """A signed configuration with *printers* by name."""
        values: dict[str, Any] = {
            "revision": 1, "organisation": ORGANISATION, "site": SITE, "node": node, "networks": ("127.0.0.0/8",),
            "owner_rule": "{user}@example.com", "users": (USER,), "cloud_key": self.party, "hold": 3_600,
            "public_url": "https://print.example.com",
            "printers": tuple(Printer(id=name.lower(), name=name, uri=uri) for name, uri in printers.items()),
        }  # fmt: skip
        return sign_config(SiteConfig(**{**values, **changes}), self.key)


class Host:
    """One node's rooms, wired as `node.app` wires them."""

    def __init__(self, root: Path, organisation: Organisation, printers: dict[str, str], **settings: Any) -> None:
        clock = self.clock = SystemClock()
        self.root, self.organisation = root, organisation
        self.settings = Settings(
            name="host", state_dir=root / "state", runtime_dir=root, facts_program=FACTS, disk_reserve_mib=0, **settings
        )
        self.settings.state_dir.mkdir(exist_ok=True)
        self.keyring = Keyring(self.settings.state_dir / "keys")
        self.identity = self.keyring.identity()
        self.site = Site(self.settings.state_dir, clock)
        self.printers = printers
        self.holder = Holder(self.settings.state_dir, self.keyring, clock)
        self.releaser = Releaser(
            self.holder, self.site, self.identity, clock, backend_dir=BACKENDS, spool=root, trust=root
        )
        counter = FactCounter(FACTS, clock)
        self.intake = Intake(self.settings, self.holder, self.site, self.identity, counter, clock)
        self.socket = root / "intake.sock"

    async def join(self, **config: Any) -> None:
        """Belong to the organisation."""
        membership = Membership(
            cloud="https://cloud.example.com", cloud_authority="", node=self.identity.node, organisation=ORGANISATION,
            site=SITE, order_pin=self.organisation.pin.hex(), certificate="", authority="",
        )  # fmt: skip
        await self.site.join(membership)
        await self.site.accept(self.organisation.config(self.identity.node, self.printers, **config))

    async def submit(self, document: bytes, **changes: Any) -> str:
        """Hand *document* over as the backend does; the answer without its newline."""
        path = self.root / f"spool-{uuid.uuid4().hex}"
        path.write_bytes(document)
        fd = os.open(path, os.O_RDONLY)
        try:
            return await self.send(line(**changes), [fd])
        finally:
            os.close(fd)

    async def send(self, data: bytes, fds: list[int]) -> str:
        """Send any bytes and descriptors to the intake socket; the answer, or nothing."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.setblocking(False)
            await loop.sock_connect(connection, str(self.socket))
            if fds:
                sent = socket.send_fds(connection, [data[:1_000]], fds)
                data = data[sent:]
            async with asyncio.timeout(30):
                try:
                    await loop.sock_sendall(connection, data)
                except ConnectionError:
                    pass
                answer = b""
                try:
                    while piece := await loop.sock_recv(connection, 4_096):
                        answer += piece
                except ConnectionError:
                    pass  # closed with some of our bytes unread: the backend takes that for "later"
        return answer.decode().rstrip("\n")

    async def hold(self, document: bytes, **changes: Any) -> Record:
        """The record of a stored document."""
        answer = await self.submit(document, **changes)
        word, job, _ = answer.split(" ", 2)
        assert word == "stored", answer
        return await self.holder.read(Index.get, job)

    def order(self, record: Record, printer: str, ballot: int = 1, **changes: Any) -> OrderItem:
        """What the cloud would send for *record*; *changes* replace claims of the order."""
        now = int(self.clock.now())
        claims: dict[str, Any] = {
            "jti": uuid.uuid4().hex, "iss": ORGANISATION, "aud": self.identity.node, "iat": now, "exp": now + 60,
            "job": record.id, "printer": printer.lower(), "ticket": record.ticket, "ballot": ballot, "by": USER,
        }  # fmt: skip
        order = Order(**{**claims, **changes})
        slot = parts.open_part(
            record.cloud_slot, self.organisation.private, job=record.id, party=CLOUD, key="cloud-1", generation=1
        )
        ours = self.keyring.current(now)
        part = parts.seal_for_release(slot, ours.public, job=record.id, order=order.jti, key=ours.key)
        return OrderItem(order=sign_order(order, self.organisation.key), part=part, part_key=ours.key)

    async def record(self, job: str) -> Record:
        """A job as it is now."""
        return await self.holder.read(Index.get, job)

    async def events(self, job: str) -> list[str]:
        """The words of its trace."""
        return [traced.step.event for traced in await self.holder.read(Index.trace, job)]


def line(**changes: Any) -> bytes:
    """A good line of the backend, with *changes*; a value of None leaves the field out."""
    values: dict[str, Any] = {
        "v": 1, "cups_job_id": 7, "copies": 1, "job_uuid": str(uuid.uuid4()), "device_uri": "pullprint:/",
        "queue": "pullprint", "user": "alice", "title": "a.pdf", "options": "sides=one-sided",
        "content_type": "application/pdf", "host": "localhost", **changes,
    }  # fmt: skip
    return json.dumps({name: value for name, value in values.items() if value is not None}).encode() + b"\n"


@asynccontextmanager
async def running(host: Host) -> AsyncIterator[Host]:
    """*host* with its intake open."""
    await host.holder.start(3_600)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(host.socket))
    listener.listen(16)
    task = asyncio.create_task(host.intake.run(listener))
    try:
        yield host
    finally:
        task.cancel()
        await asyncio.wait([task])
        listener.close()
        host.holder.close()
