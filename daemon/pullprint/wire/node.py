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
``GET /node/v1/candidates?size=N``       `Candidates`            which nodes of the site would hold N bytes, best first
``POST /node/v1/parts`` `PartAsk`        `PartItem`              the cloud's part, for new holders after a restart
``POST /node/v1/certificate`` `CertificateAsk` `Certificate`     a new one for the mesh, before the old one expires
``POST /node/v1/printers`` `PrinterStates` 204                   what printers said of themselves
``POST /node/v1/pictures`` `PictureKeys`  204                    answers a `PictureItem`
``POST /node/v1/loans`` and below        see `wire.loans`        votes of a node that goes to sleep
``GET /node/v1/uploads/{id}``            octets                  the sealed document of an `UploadItem`, once
``POST /node/v1/uploads/{id}`` `UploadResult` 204                what became of it
``POST /node/v1/logins`` `LoginAsk`      `LoginOffer`            device authorization request (RFC 8628, 3.1)
``POST /node/v1/logins/token`` `TokenAsk` `Token`                device access token request (RFC 8628, 3.4)
``POST /node/v1/logins/withdraw`` `TokenAsk` 204                 whoever asked has gone away: the codes are void
=======================================  ======================  ===============================================

The device flow has RFC 8628's names and error codes, in the JSON of this channel: a `Failure` with the code
``authorization_pending``, ``slow_down``, ``access_denied``, ``expired_token`` or (RFC 6749, 5.2) ``invalid_grant``. The
client is the node; its signature authenticates it.
"""

from typing import Annotated, Literal

from pydantic import Field, Tag

from pullprint.wire import OLDEST, PROTOCOL, jws
from pullprint.wire.order import Ballot
from pullprint.wire.types import (
    UNKNOWN,
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
    by_kind,
)
from pullprint.wire.views import CapabilitiesView

CONFIG_KIND = "pullprint-config+jwt"
ACCOUNT_KIND = "pullprint-account+jwt"
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
    accounts: dict[str, str] = Field(default_factory=dict, max_length=10_000)
    """Local accounts of this node that users said are theirs, with those users; they come before *owner_rule*."""


class SignedConfig(Message):
    """A `SiteConfig` as JWS of `CONFIG_KIND` by the order key."""

    config: Annotated[str, Field(max_length=CONFIG_LIMIT)]
    now: float
    """The cloud's clock, seconds since the epoch."""
    protocol: int = PROTOCOL
    oldest: int = OLDEST
    """The cloud speaks every version of the protocol from this one on."""
    roster: Annotated[str, Field(max_length=4 << 20)] = ""
    """The nodes of the site (`wire.mesh.SignedRoster`); empty from a cloud that knows of no mesh."""


class JobReport(Message):
    """All that the cloud may know of a job."""

    kind: Literal["job"] = "job"
    job: JobId
    job_uuid: Name
    cups_job_id: Count
    queue: Annotated[str, Field(max_length=255)]
    """Empty for an upload."""
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
    table: Annotated[str, Field(max_length=1 << 16)] = ""
    """The `wire.mesh.KeyTable` of a generation after the first, as JWS by its author: it says who the holders are."""


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
    elsewhere: bool = False
    """This node could not do it, such as reach the printer; another holder may."""


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


class PictureReport(Message):
    """A small picture of a job's first page, sealed with a key that stays on the holders (`wire.api.Picture`).

    On its way it is also HPKE-sealed to *cloud_key* (`vault.parts.wrap_picture`): a stolen host has the key, and
    perhaps this report, which it could not deliver or has delivered only just now.
    """

    kind: Literal["picture"] = "picture"
    job: JobId
    cloud_key: Id
    picture: Blob


class UnknownReport(Message):
    """Of a kind that a newer node knows; acknowledged, and no more."""

    kind: Name


Report = Annotated[
    Annotated[JobReport, Tag("job")]
    | Annotated[StateReport, Tag("state")]
    | Annotated[TraceReport, Tag("trace")]
    | Annotated[PictureReport, Tag("picture")]
    | Annotated[UnknownReport, Tag(UNKNOWN)],
    by_kind("job", "state", "trace", "picture"),
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
    generation: Annotated[int, Field(ge=1, le=1 << 31)] = 1


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
    role: Annotated[str, Field(max_length=16)] = "normal"
    """A word of `model.placement.Role`; one that is not known counts as ``normal``."""
    endpoints: Annotated[tuple[Annotated[str, Field(max_length=128)], ...], Field(max_length=8)] = ()
    """Where its mesh listens (`wire.mesh.Endpoint`); empty: it has no mesh."""
    room: Count = 0
    """Bytes that it would still store for others."""


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
    version: Annotated[str, Field(max_length=255)] = ""
    """Of the cloud's software, for people."""


class Ask(Message):
    """A release wanted by someone at this node: the owner in a terminal, or a direct queue."""

    job: JobId
    printer: Id
    changes: dict[str, str] = Field(default_factory=dict, max_length=64)
    forces: tuple[Ballot, ...] = ()
    by: Name


class Candidates(Message):
    """Nodes that would hold a job, best first; not the one that asks."""

    nodes: Annotated[tuple[NodeId, ...], Field(max_length=64)]


class PartAsk(Message):
    """A holder that was restarted before others held the job wants to place it now."""

    job: JobId
    generation: Annotated[int, Field(ge=1, le=1 << 31)]
    """That it has."""


class PartItem(Message):
    """The cloud's key part, HPKE-sealed to the node's key, bound to the job and the word *order*."""

    order: Id
    part: Blob
    part_key: Id


class CertificateAsk(Message):
    """A node's certificate for the mesh ends soon."""

    csr: Annotated[str, Field(max_length=8_192)]
    """PEM; the key may be a new one."""


class Certificate(Message):
    """PEM, and the CA's that it comes from."""

    certificate: Annotated[str, Field(max_length=16_384)]
    authority: Annotated[str, Field(max_length=16_384)]


class OrderItem(Message):
    """An order and the cloud's key part for it."""

    kind: Literal["order"] = "order"
    seq: Count = 0
    order: Annotated[str, Field(max_length=1 << 18)]
    part: Blob
    """The cloud's key part, HPKE-sealed to the releaser's key, bound to job and order (`vault.parts`)."""
    part_key: Id
    """The releaser's key that it is sealed to."""


class HoldersItem(Message):
    """A job is to have other holders: an order for it and the cloud's key part, for the holder that sees to it."""

    kind: Literal["holders"] = "holders"
    seq: Count = 0
    order: Annotated[str, Field(max_length=1 << 14)]
    """A `wire.holders.HoldersOrder` as JWS."""
    part: Blob
    """As in `OrderItem`, bound to this order's id."""
    part_key: Id


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


class PictureItem(Message):
    """The owner looks at the list: seal the keys of these jobs' pictures to *public*, in `PictureKeys`."""

    kind: Literal["picture"] = "picture"
    seq: Count
    request: Id
    public: Key
    jobs: Annotated[tuple[JobId, ...], Field(max_length=32)]


class UploadItem(Message):
    """A user uploads a document, sealed to this node's day key *key*: fetch it, make it a held job of *owner*."""

    kind: Literal["upload"] = "upload"
    seq: Count
    upload: Id
    key: Id
    owner: Name
    title: Name
    content_type: Name
    size: Count


class UnknownItem(Message):
    """Of a kind that a newer cloud knows; acknowledged, and no more."""

    kind: Name
    seq: Count


Item = Annotated[
    Annotated[OrderItem, Tag("order")]
    | Annotated[HoldersItem, Tag("holders")]
    | Annotated[PictureItem, Tag("picture")]
    | Annotated[UploadItem, Tag("upload")]
    | Annotated[CancelItem, Tag("cancel")]
    | Annotated[OwnerItem, Tag("owner")]
    | Annotated[SettleItem, Tag("settle")]
    | Annotated[ConfigItem, Tag("config")]
    | Annotated[UnknownItem, Tag(UNKNOWN)],
    by_kind("order", "holders", "picture", "upload", "cancel", "owner", "settle", "config"),
]


class InboxAnswer(Message):
    """Numbered items, oldest first."""

    items: tuple[Item, ...]
    now: float


class PictureKeys(Message):
    """Keys of pictures by job, HPKE-sealed to the public key that asked; those that this node has."""

    request: Id
    keys: dict[JobId, Blob] = Field(max_length=32)


class UploadResult(Message):
    """What became of an upload: a held *job*, or the *sentence* that its user reads."""

    job: Annotated[str, Field(max_length=32)] = ""
    code: Annotated[str, Field(max_length=64)] = ""
    sentence: Annotated[str, Field(max_length=1_000)] = ""


class PrinterState(Message):
    """What a printer said of itself."""

    printer: Id
    ready: bool
    trouble: Text = ""
    can: CapabilitiesView | None = None
    """None: it did not say, or has no words for it (socket, lpd)."""


class PrinterStates(Message):
    """What printers of the site said, asked by this node."""

    printers: Annotated[tuple[PrinterState, ...], Field(max_length=1_000)]


class LoginAsk(Message):
    """A local account of this node wants to be a user."""

    account: Name


class LoginOffer(Message):
    """Device authorization response (RFC 8628, 3.2)."""

    device_code: Name
    user_code: Name
    verification_uri: Text
    verification_uri_complete: Text
    expires_in: Count
    interval: Count


class TokenAsk(Message):
    """Device access token request (RFC 8628, 3.4)."""

    grant_type: Literal["urn:ietf:params:oauth:grant-type:device_code"] = "urn:ietf:params:oauth:grant-type:device_code"
    device_code: Name


TOKEN_LIMIT = 8_192
FRESH = 60
"""Seconds between the signing of an account statement and its arrival."""


class Token(Message):
    """The account is the user's; the node's configuration, which is new now, says so too."""

    access_token: Annotated[str, Field(max_length=TOKEN_LIMIT)]
    """A JWS of `ACCOUNT_KIND` by the order key: an `AccountStatement`."""
    token_type: Literal["N_A"] = "N_A"  # noqa: S105
    """It is a statement, and gives access to nothing (RFC 8693, 2.2.1)."""
    user: Name


class AccountStatement(Message):
    """This local account of this node is that user; fresh for `FRESH` seconds."""

    iss: Id
    aud: NodeId
    iat: Seconds
    account: Name
    user: Name


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


def sign_account(statement: AccountStatement, key: bytes) -> str:
    """The JWS of *statement*; *key* is the organisation's raw Ed25519 private key."""
    return jws.sign(statement, ACCOUNT_KIND, key)


def verify_account(token: str, pin: bytes, node: str, organisation: str, account: str, now: float) -> str:
    """The user that *account* of this *node* is by the fresh statement in *token*. Raises StatementRefused."""
    statement = jws.verify(token, ACCOUNT_KIND, AccountStatement, pin, TOKEN_LIMIT)
    if (statement.iss, statement.aud, statement.account) != (organisation, node, account):
        raise jws.StatementRefused(reason="it is about another account, node or organisation")
    if abs(now - statement.iat) > FRESH:
        raise jws.StatementRefused(reason="it is an old one")
    return statement.user
