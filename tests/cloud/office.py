"""One cloud with an organisation, seen from outside: a browser's requests, and a node that signs as nodes do."""

import asyncio
import base64
import io
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from argon2 import PasswordHasher
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pullprint.base.clock import SystemClock
from pullprint.cloud import app, enrolment, organisations, printers, sites, tls, users
from pullprint.cloud.config import Settings
from pullprint.cloud.migrations import upgrade
from pullprint.cloud.store import Store
from pullprint.cloud.users import Passwords
from pullprint.vault import parts
from pullprint.wire import signature
from pullprint.wire.mesh import KeySlot, KeyTable, KeyWrap, Roster, sign_table, verify_roster
from pullprint.wire.node import PartyKey, SiteConfig, verify_config
from pullprint.wire.order import Order, verify_order

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "correct horse battery staple"
KEY_EXPIRES = 4_000_000_000


class ShiftedClock(SystemClock):
    """The system's clock, put forward by `shift` seconds."""

    shift = 0.0

    def now(self) -> float:
        return super().now() + self.shift


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: Any
    headers: Any

    @property
    def code(self) -> str:
        return str(self.body["code"])


@dataclass
class Office:
    """A running cloud and a second hand on its database, as an administrator's command has."""

    url: str
    store: Store
    clock: ShiftedClock
    http: aiohttp.ClientSession
    settings: Settings
    authority: Path
    printer: str = ""
    nodes: list["NodeClient"] = field(default_factory=list)

    async def ask(self, method: str, path: str, body: object = None, token: str = "", **headers: str) -> Answer:
        """One request of a user's program."""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **headers}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        async with self.http.request(
            method, self.url + path, data=io.BytesIO(data) if data else None, headers=sent
        ) as response:
            raw = await response.read()
            return Answer(response.status, json.loads(raw) if raw else None, response.headers)

    async def sign_in(self, name: str = "ada@example.com", password: str = PASSWORD) -> str:
        """A user's token."""
        answer = await self.ask("POST", "/api/v1/session", {"name": name, "password": password})
        assert answer.status == 201, answer
        return str(answer.body["token"])

    def add_organisation(self, slug: str, user: str = "ada@example.com", network: str = "127.0.0.0/8") -> None:
        """An organisation with the site hq and one user."""
        self.store.transact(organisations.add, slug, slug.title())
        self.store.transact(sites.add, slug, "hq", [network], "{user}@example.com", 86_400)
        self.store.transact(users.add, slug, user, CHEAP.hash(PASSWORD))

    def add_printer(self, slug: str, name: str) -> str:
        """A printer's id."""
        return self.store.transact(printers.add, slug, "hq", name, "ipp://127.0.0.1:8631/ipp/print", "")

    def join_code(self, slug: str = "acme", *, managed: bool = True) -> str:
        """A join code for the site hq."""
        return self.store.transact(enrolment.new_join_code, slug, "hq", 30, managed=managed)

    async def join(self, slug: str = "acme", *, managed: bool = True, name: str = "desk-1") -> "NodeClient":
        """A node that has joined, and holds nothing."""
        node = NodeClient(self, name)
        assert (await node.enrol(self.join_code(slug, managed=managed))).status == 200
        await node.fetch_config()
        return node


class NodeClient:
    """What a node does on the wire, and no more."""

    def __init__(self, office: Office, name: str = "desk-1") -> None:
        self.office = office
        self.name = name
        self.key = Ed25519PrivateKey.generate()
        self.identity = self.key.public_key().public_bytes_raw()
        self.id = signature.node_id(self.identity)
        self.private, self.public = parts.new_key()
        self.epoch = secrets.token_hex(8)
        self.n = 0
        self.since = 0
        self.pin = b""
        self.organisation = ""
        self.config: SiteConfig | None = None
        self.parts: dict[str, bytes] = {}

    @property
    def party_key(self) -> PartyKey:
        return PartyKey(key="day-1", public=self.public, expires=KEY_EXPIRES)

    def enrolment(self, code: str) -> dict[str, Any]:
        """The body of an enrolment."""
        tls_key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somebody-else")])
        csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(tls_key, hashes.SHA256())
        return {
            "version": "1",
            "code": code,
            "name": self.name,
            "identity": _text(self.identity),
            "key": json.loads(self.party_key.model_dump_json()),
            "csr": csr.public_bytes(serialization.Encoding.PEM).decode(),
        }

    async def enrol(self, code: str) -> Answer:
        """Join; keeps the pins."""
        answer = await self.call("POST", "/node/v1/enrol", self.enrolment(code))
        if answer.status == 200:
            self.pin = parts_bytes(answer.body["order_pin"])
            self.organisation = answer.body["organisation"]
        return answer

    def signed(
        self, method: str, path: str, body: bytes = b"", query: str = "", now: float | None = None
    ) -> dict[str, str]:
        """The headers that prove a request."""
        at = self.office.clock.now() if now is None else now
        return signature.sign(self.key, self.id, method, path, query, body, at)

    async def call(self, method: str, path: str, body: object = None, query: str = "") -> Answer:
        """One signed request."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.send(method, path, data, query, self.signed(method, path, data, query))

    async def send(self, method: str, path: str, data: bytes, query: str, headers: dict[str, str]) -> Answer:
        """A request with headers that were made before."""
        url = self.office.url + path + (f"?{query}" if query else "")
        sent = {"Content-Type": "application/json", **headers}
        async with self.office.http.request(
            method, url, data=io.BytesIO(data) if data else None, headers=sent
        ) as response:
            raw = await response.read()
            return Answer(response.status, json.loads(raw) if raw else None, response.headers)

    async def fetch_config(self) -> SiteConfig:
        """The site's configuration, checked."""
        answer = await self.call("GET", "/node/v1/config")
        assert answer.status == 200, answer
        self.config = verify_config(answer.body["config"], self.pin, self.id)
        return self.config

    async def poll(self) -> list[dict[str, Any]]:
        """The next items of the inbox, acknowledged with the next poll; parks."""
        answer = await self.call("GET", "/node/v1/inbox", query=f"since={self.since}")
        if answer.status == 204:
            return []
        assert answer.status == 200, answer
        items: list[dict[str, Any]] = answer.body["items"]
        self.since = items[-1]["seq"]
        return items

    async def poll_for(self, kind: str) -> dict[str, Any]:
        """The next item of this *kind*."""
        async with asyncio.timeout(10):
            while True:
                for item in await self.poll():
                    if item["kind"] == kind:
                        return item

    def job_report(self, owner: str = "ada@example.com", **changes: Any) -> dict[str, Any]:
        """A new job, its cloud part really sealed."""
        assert self.config is not None
        job, key = secrets.token_hex(16), self.config.cloud_key
        self.parts[job] = secrets.token_bytes(parts.PART_SIZE)
        slot = parts.seal_part(self.parts[job], key.public, job=job, party="cloud", key=key.key, generation=1)
        now = int(self.office.clock.now())
        report = {
            "kind": "job", "job": job, "job_uuid": "3e0f3e2c-0000-4000-8000-000000000000", "cups_job_id": 1,
            "queue": "pullprint", "owner": owner, "submitter": "ada", "host": "desk", "title": "Payslip",
            "content_type": "application/pdf", "size": 1000,
            "ticket": {"copies": 1, "options": [["sides", "one-sided"]]},
            "facts": None, "state": "held", "sentence": "Held.", "created": now, "expires": now + 86_400,
            "cloud_key": key.key, "cloud_slot": _text(slot),
        }  # fmt: skip
        return {**report, **changes}

    def events(self, *reports: dict[str, Any]) -> dict[str, Any]:
        """A batch of reports with the next numbers."""
        first, self.n = self.n + 1, self.n + len(reports)
        return {"epoch": self.epoch, "events": [{"n": first + i, "report": r} for i, r in enumerate(reports)]}

    async def report(self, *reports: dict[str, Any]) -> None:
        """Send *reports*, which must be taken."""
        answer = await self.call("POST", "/node/v1/events", self.events(*reports))
        assert (answer.status, answer.body) == (200, {"n": self.n}), answer

    async def hold(self, **changes: Any) -> str:
        """The id of a new job that the cloud knows of."""
        report = self.job_report(**changes)
        await self.report(report)
        return str(report["job"])

    async def report_state(self, job: str, state: str, **changes: Any) -> None:
        """A job has moved on."""
        await self.report({"kind": "state", "job": job, "state": state, "sentence": state, **changes})

    async def reconcile(self, held: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
        """Say what it holds (jobs and their states; *generations* of them) and how it is; the differences."""
        generations = changes.pop("generations", {})
        listed = [{"job": j, "state": s, "generation": generations.get(j, 1)} for j, s in (held or {}).items()]
        key = json.loads(self.party_key.model_dump_json())
        holdings = {"epoch": self.epoch, "version": "1", "key": key, "last_event": self.n, "jobs": listed, **changes}
        answer = await self.call("POST", "/node/v1/reconcile", holdings)
        assert answer.status == 200, answer
        return dict(answer.body)

    async def fetch_roster(self) -> Roster:
        """The site's roster, checked."""
        answer = await self.call("GET", "/node/v1/config")
        assert self.config is not None
        return verify_roster(answer.body["roster"], self.pin, self.organisation, self.config.site)

    def table(self, job: str, holders: Sequence["NodeClient"], generation: int = 2, **changes: Any) -> str:
        """A key table of this node's making, the cloud's part in it really sealed."""
        assert self.config is not None
        key = self.config.cloud_key
        part = self.parts[f"{job}/{generation}"] = secrets.token_bytes(parts.PART_SIZE)
        slot = parts.seal_part(part, key.public, job=job, party="cloud", key=key.key, generation=generation)
        slots = [KeySlot(party=holder.id, key="day-1", sealed=bytes(parts.SLOT_SIZE)) for holder in holders]
        table = KeyTable(
            job=job,
            generation=generation,
            holders=tuple(holder.id for holder in holders),
            slots=(*slots, KeySlot(party="cloud", key=key.key, sealed=slot)),
            wraps=(KeyWrap(first=0, second=1, sealed=bytes(60)),),
            size=1_000,
            digest=bytes(32),
            author=self.identity,
        ).model_copy(update=changes)
        return sign_table(table, self.key.private_bytes_raw())

    async def place(self, *others: "NodeClient", **changes: Any) -> str:
        """A new job that this node and *others* hold."""
        report = self.job_report(**changes)
        table = self.table(report["job"], (self, *others))
        await self.report(report, {**report, "generation": 2, "table": table})
        return str(report["job"])

    def open(self, item: dict[str, Any]) -> tuple[Order, bytes]:
        """The order and the cloud's part in *item*, checked as a node does."""
        order = verify_order(item["order"], self.pin, self.id, self.organisation, self.office.clock.now())
        assert item["part_key"] == "day-1"
        sealed = parts_bytes(item["part"])
        return order, parts.open_for_release(sealed, self.private, job=order.job, order=order.jti, key="day-1")


@asynccontextmanager
async def open_office(folder: Path, database: str = "") -> AsyncIterator[Office]:
    """A cloud with the organisations acme and globex, for as long as the block lasts."""
    settings = make_settings(folder, database)
    clock = ShiftedClock()
    store = Store(settings.database_url, clock)
    upgrade(store.engine)
    passwords = Passwords(CHEAP)
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    try:
        async with app.serving(settings, clock, passwords) as port, aiohttp.ClientSession(connector=connector) as http:
            office = Office(f"https://127.0.0.1:{port}", store, clock, http, settings, folder / "ca.pem")
            office.add_organisation("acme")
            office.add_organisation("globex", "gus@example.com")
            office.printer = office.add_printer("acme", "Foyer")
            yield office
    finally:
        store.close_now()


def make_settings(folder: Path, database: str = "") -> Settings:
    """Settings with a certificate of their own."""
    clock = SystemClock()
    authority = tls.new_authority("test", clock.now())
    server = tls.new_server(authority, ["127.0.0.1", "localhost"], clock.now())
    for name, text in {
        "ca.pem": authority.certificate,
        "server.pem": server.certificate,
        "server.key": server.key,
    }.items():
        (folder / name).write_text(text)
    return Settings(
        host="127.0.0.1",
        port=0,
        certificate=folder / "server.pem",
        key=folder / "server.key",
        state_dir=folder / "state",
        database=database,
        port_file=folder / "port",
        public_url="https://print.example.com",
    )


def parts_bytes(text: str) -> bytes:
    """Bytes that came as base64."""
    return base64.b64decode(text, validate=True)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
