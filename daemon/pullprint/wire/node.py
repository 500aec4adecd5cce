"""Between a node and its cloud. The node calls out, always; every request is signed (`wire.signature`).

=======================================  ======================  ===============================================
request                                  answer                  meaning
=======================================  ======================  ===============================================
``POST /node/v1/enrol`` `Enrolment`      `Welcome`               a join code becomes a node; signed by the new key
``GET /node/v1/config``                  `SignedConfig`          everything that the organisation decides for a site
``GET /node/v1/inbox?since=N``           `InboxAnswer` or 204    parks up to 50 s; read-only; N acknowledges
``POST /node/v1/reconcile`` `Holdings`   `Differences`           on every (re)connect: all that the node holds
``POST /node/v1/events`` `Events`        `Acknowledged`          what happened, in order, repeated until acknowledged
``POST /node/v1/releases`` `Ask`         `OrderItem`             for a terminal or a direct queue: an order, please
=======================================  ======================  ===============================================
"""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from pullprint.wire import PROTOCOL, jws
from pullprint.wire.order import Ballot
from pullprint.wire.types import (
    Blob,
    Count,
    Id,
    JobId,
    Key,
    Message,
    Name,
    NodeId,
    Seconds,
    Text,
    WireFacts,
    WireTicket,
)

CONFIG_KIND = "pullprint-config+jwt"
CONFIG_LIMIT = 16 << 20
BODY_LIMIT = 16 << 20
"""Bytes of any request or answer on this channel."""
EVENTS_LIMIT = 500
"""Events in one request."""
PARK = 50.0
"""Seconds that an inbox request waits, plus or minus a tenth."""
CLOUD = "cloud"
"""The cloud's name as a party to a job."""


class PartyKey(Message):
    """A party's HPKE public key (X25519), to which its key part of a job is sealed."""

    key: Id
    """Which day key this is; the slot in the header names it."""
    public: Key
    """Raw."""
    expires: Seconds
    """When new jobs stop being sealed to it; it is destroyed after the last of those has expired."""


class Enrolment(Message):
    """A node's first words."""

    protocol: int = PROTOCOL
    version: Name
    """Of the software, for the admin's list."""
    code: Name
    name: Name
    """The host's name, for people."""
    identity: Key
    """Raw Ed25519 public key; the request is signed with it, which proves its possession."""
    key: PartyKey
    csr: Annotated[str, Field(max_length=8_192)]
    """PEM, for the certificate that its peers will ask for (mutual TLS in the mesh)."""


class Welcome(Message):
    """What the node pins."""

    node: NodeId
    organisation: Id
    site: Id
    order_pin: Key
    """Raw Ed25519 public key that signs orders and configurations."""
    certificate: str
    authority: str
    """The certificates of this node and of the organisation's CA, PEM."""


class Printer(Message):
    """One printer of the site's signed inventory."""

    id: Id
    name: Name
    place: Text = ""
    uri: Annotated[str, Field(max_length=1_023)]


class SiteConfig(Message):
    """What the organisation decides for a site; signed, so that a node obeys its organisation and not the wire."""

    revision: Count
    organisation: Id
    site: Id
    node: NodeId
    networks: tuple[Name, ...]
    """CIDR; printers' addresses outside of them are refused."""
    owner_rule: Text
    """Such as ``{user}@example.com``; empty on hosts that are not managed, whose jobs wait to be claimed."""
    users: tuple[Name, ...]
    printers: tuple[Printer, ...]
    cloud_key: PartyKey
    hold: Annotated[int, Field(ge=60, le=30 * 86_400)]
    """Seconds after which a held job expires."""
    public_url: Text
    """Where people open the cloud's page."""


class SignedConfig(Message):
    """A `SiteConfig` as JWS of `CONFIG_KIND` by the order key."""

    config: Annotated[str, Field(max_length=CONFIG_LIMIT)]
    now: float
    """The cloud's clock, seconds since the epoch."""


class JobReport(Message):
    """All that the cloud may know of a job."""

    kind: Literal["job"] = "job"
    job: JobId
    job_uuid: Name
    cups_job_id: Count
    queue: Name
    owner: Annotated[str, Field(max_length=255)]
    submitter: Annotated[str, Field(max_length=255)]
    host: Annotated[str, Field(max_length=255)]
    title: Name
    content_type: Name
    size: Count
    """Bytes of the document."""
    ticket: WireTicket
    facts: WireFacts | None
    """None until counted."""
    state: Name
    sentence: Text
    created: Seconds
    expires: Seconds
    direct_printer: Annotated[str, Field(max_length=255)] = ""
    claim_code: Annotated[str, Field(max_length=16)] = ""
    generation: Annotated[int, Field(ge=1, le=1 << 31)] = 1
    """Of the key parts."""
    ballot: Annotated[int, Field(ge=0, le=1 << 31)] = 0
    """The highest that was promised: a cloud restored from a backup goes on from there."""
    cloud_key: Id
    cloud_slot: Blob
    """The cloud's key part, HPKE-sealed to *cloud_key*, as it stands in the header."""


class StateReport(Message):
    """A job has moved on."""

    kind: Literal["state"] = "state"
    job: JobId
    state: Name
    sentence: Text
    """What its owner reads."""
    order: Annotated[str, Field(max_length=64)] = ""
    """The order under which it happened, if any."""
    ballot: Annotated[int, Field(ge=0, le=1 << 31)] = 0
    nothing_sent: bool = False
    """Proof for *ballot*: not one byte left the releaser."""
    pages: Count | None = None


class TraceReport(Message):
    """One step of a job's way."""

    kind: Literal["trace"] = "trace"
    job: JobId
    seq: Count
    """Counts up per job and node."""
    at: float
    event: Name
    """A stable word."""
    text: Text
    """A sentence."""
    detail: dict[str, str] = Field(default_factory=dict, max_length=32)


Report = Annotated[
    Annotated[JobReport, Tag("job")] | Annotated[StateReport, Tag("state")] | Annotated[TraceReport, Tag("trace")],
    Discriminator("kind"),
]


class Event(Message):
    """A report with its place in the node's outbox."""

    n: Count
    report: Report


class Events(Message):
    """Reports in order; the cloud takes each *n* of an *epoch* once."""

    epoch: Id
    """Names the node's index; a rebuilt index has a new one and counts from 1."""
    events: Annotated[tuple[Event, ...], Field(max_length=EVENTS_LIMIT)]


class Acknowledged(Message):
    """Everything up to *n* is stored."""

    n: Count


class Holding(Message):
    """One held job, in brief."""

    job: JobId
    state: Name


class Holdings(Message):
    """All that a node holds, with what the cloud needs to order releases."""

    epoch: Id
    protocol: int = PROTOCOL
    version: Name
    key: PartyKey
    """To which key parts for this node as releaser are sealed."""
    last_event: Count
    """The highest number that this epoch has given to an event."""
    jobs: Annotated[tuple[Holding, ...], Field(max_length=100_000)]


class Differences(Message):
    """What the node should do about its list."""

    report: tuple[JobId, ...]
    """Send a `JobReport`: the cloud does not know these."""
    cancelled: tuple[JobId, ...]
    """Were cancelled meanwhile, or have ended: shred them."""
    restored: bool = False
    """The cloud has heard later events of this epoch than the node knows of: its disk is an old copy, and what it
    remembers of its votes is worth nothing. Take a new epoch, then reconcile again."""
    now: float


class Ask(Message):
    """A release wanted by someone at this node: the owner in a terminal, or a direct queue."""

    job: JobId
    printer: Id
    changes: dict[str, str] = Field(default_factory=dict, max_length=64)
    forces: tuple[Ballot, ...] = ()
    by: Name


class OrderItem(Message):
    """An order and the cloud's key part for it."""

    kind: Literal["order"] = "order"
    seq: Count = 0
    order: Annotated[str, Field(max_length=1 << 18)]
    part: Blob
    """The cloud's key part, HPKE-sealed to the releaser's key, bound to job and order (`vault.parts`)."""
    part_key: Id
    """The releaser's key that it is sealed to."""


class CancelItem(Message):
    """The owner deleted the job."""

    kind: Literal["cancel"] = "cancel"
    seq: Count
    job: JobId
    by: Name


class OwnerItem(Message):
    """Someone claimed the job."""

    kind: Literal["owner"] = "owner"
    seq: Count
    job: JobId
    owner: Name


class SettleItem(Message):
    """The owner says what became of an uncertain job."""

    kind: Literal["settle"] = "settle"
    seq: Count
    job: JobId
    by: Name
    """It came out. (That it did not is said by a release that names the doubtful ballot.)"""


class ConfigItem(Message):
    """The configuration changed: fetch it."""

    kind: Literal["config"] = "config"
    seq: Count


Item = Annotated[
    Annotated[OrderItem, Tag("order")]
    | Annotated[CancelItem, Tag("cancel")]
    | Annotated[OwnerItem, Tag("owner")]
    | Annotated[SettleItem, Tag("settle")]
    | Annotated[ConfigItem, Tag("config")],
    Discriminator("kind"),
]


class InboxAnswer(Message):
    """Numbered items, oldest first."""

    items: tuple[Item, ...]
    now: float


class Failure(Message):
    """Any answer that is not a success: what a `PullprintError` says of itself."""

    code: Name
    sentence: Text


def sign_config(config: SiteConfig, key: bytes) -> str:
    """The JWS of a site's configuration; *key* is the organisation's raw Ed25519 private key."""
    return jws.sign(config, CONFIG_KIND, key)


def verify_config(token: str, pin: bytes, node: str) -> SiteConfig:
    """The configuration in *token*, for this *node*. Raises StatementRefused."""
    config = jws.verify(token, CONFIG_KIND, SiteConfig, pin, CONFIG_LIMIT)
    if config.node != node:
        raise jws.StatementRefused(reason="the configuration is another node's")
    return config
