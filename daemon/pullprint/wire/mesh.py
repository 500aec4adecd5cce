"""Between the nodes of a site: HTTP/1.1 over TLS 1.3 on port 9264, both ends with the certificate that the
organisation's CA gave them at enrolment. A certificate's only DNS name is the node's id; that id must stand in the
site's signed `Roster`, and not among its revoked.

=============================================  ==============  ========================================================
request                                        answer          meaning
=============================================  ==============  ========================================================
``GET /mesh/v1/hello``                         `Hello`         who is there, and how it is
``GET /mesh/v1/roster``                        `SignedRoster`  the latest that it knows
``POST /mesh/v1/copies/{job}`` `Offer`         `Accepted`      would you hold this? from which byte on?
``PUT /mesh/v1/copies/{job}?from=N`` octets    `Received`      the sealed file from byte N on, to its end
``GET /mesh/v1/copies/{job}?from=N``           octets          the same, for a holder whose own copy is damaged
``POST /mesh/v1/holders`` `Installation`       204             you hold it from now on: key table, and what it says
``POST /mesh/v1/votes`` `Prepare`              `Ballots`       PREPARE: promise this ballot, and hand over your part
``POST /mesh/v1/commits`` `Commit`             `Ballots`       COMMIT: the last thing before the first byte
``POST /mesh/v1/news`` `News`                  204             what became of an attempt; repeated until acknowledged
=============================================  ==============  ========================================================

A refusal is a `wire.node.Failure`. A node that is not (or no longer) of the site gets 403 ``not-a-peer`` for anything;
a job that is not held here is 404 ``not-found``.

Versions of the protocol between nodes:

* 1 (2026-11-21): copies, votes, news.
"""

from typing import Annotated, Literal

from pydantic import Field

from pullprint.model import votes as model
from pullprint.model.placement import Role
from pullprint.wire import jws
from pullprint.wire.jws import StatementRefused
from pullprint.wire.node import PartyKey
from pullprint.wire.order import LIMIT as ORDER_LIMIT
from pullprint.wire.order import Ballot
from pullprint.wire.signature import node_id
from pullprint.wire.types import Blob, Count, Id, JobId, Key, Message, Name, NodeId, Seconds

PORT = 9264
ROSTER_KIND = "pullprint-roster+jwt"
TABLE_KIND = "pullprint-key-table+jwt"
ROSTER_LIMIT = 4 << 20
"""Characters of a roster: some thousand nodes."""
TABLE_LIMIT = 1 << 16
BODY_LIMIT = 1 << 19
"""Bytes of any JSON body of a request or answer but a roster."""
PEERS_LIMIT = 2_000
HOLDERS_LIMIT = 7
ENDPOINTS_LIMIT = 8
FIRST_TABLE = 2
"""The generation of a job's first key table; the one before it is in the sealed file's header."""

Endpoint = Annotated[str, Field(max_length=128, pattern=r"^(\[[0-9a-f:.]+\]|[0-9.]+):[0-9]{1,5}$")]
"""``192.0.2.7:9264`` or ``[2001:db8::7]:9264``."""


class Peer(Message):
    """A node of the site."""

    node: NodeId
    name: Name
    """For people."""
    identity: Key
    """Raw Ed25519; its key tables are signed with it."""
    role: Role = Role.NORMAL
    endpoints: Annotated[tuple[Endpoint, ...], Field(max_length=ENDPOINTS_LIMIT)] = ()
    """Where it listened when it last connected to the cloud. Only a hint: it is who its certificate says."""


class Roster(Message):
    """Who belongs to a site; signed by the organisation, the same for all of them, passed on from node to node."""

    organisation: Id
    site: Id
    revision: Count
    peers: Annotated[tuple[Peer, ...], Field(max_length=PEERS_LIMIT)]
    revoked: Annotated[tuple[NodeId, ...], Field(max_length=PEERS_LIMIT)] = ()
    """Shut out; their certificates may still be valid."""


class SignedRoster(Message):
    """A `Roster` as JWS of `ROSTER_KIND` by the order key."""

    roster: Annotated[str, Field(max_length=ROSTER_LIMIT)]


class Hello(Message):
    """How a node is."""

    node: NodeId
    version: Name
    protocol: int = 1
    roster: Count
    """The revision of the roster that it has."""
    role: Role = Role.NORMAL
    room: Count = 0
    """Bytes that it would still store for others."""
    load: Count = 0
    """Jobs that it holds."""


class Offer(Message):
    """A copy, if you like."""

    size: Count
    """Of the sealed file."""
    digest: Key
    """SHA-256 of it."""
    expires: Seconds


class Accepted(Message):
    """Yes, and this much is here already."""

    key: PartyKey
    """The receiver's day key, to which its key part is to be sealed."""
    have: Count = 0
    """Bytes; send the rest. All of them: nothing is left to send."""


class Received(Message):
    """What is here and durable."""

    size: Count
    digest: Key
    """SHA-256 of all of it."""


class KeySlot(Message):
    """One party's key part, HPKE-sealed to it (`vault.parts`)."""

    party: Annotated[str, Field(max_length=64)]
    """A node id, or ``cloud``."""
    key: Id
    sealed: Blob


class KeyWrap(Message):
    """The data key under the parts of two slots (`vault.keys`)."""

    first: Annotated[int, Field(ge=0, le=15)]
    second: Annotated[int, Field(ge=0, le=15)]
    sealed: Blob


class KeyTable(Message):
    """A generation of key parts: who holds a job and votes on it, and each one's part.

    The first generation is in the sealed file's header: the origin alone, and the cloud. Later ones lie beside the
    file. A table is signed by the node that made it; that it may, follows from the generation before: see
    ``docs/mesh.md``.
    """

    job: JobId
    generation: Annotated[int, Field(ge=FIRST_TABLE, le=1 << 31)]
    holders: Annotated[tuple[NodeId, ...], Field(min_length=1, max_length=HOLDERS_LIMIT)]
    """The voters."""
    slots: Annotated[tuple[KeySlot, ...], Field(min_length=2, max_length=HOLDERS_LIMIT + 1)]
    wraps: Annotated[tuple[KeyWrap, ...], Field(min_length=1, max_length=36)]
    size: Count
    digest: Key
    """Length and SHA-256 of the sealed file, the same at every holder."""
    author: Key
    """Raw Ed25519 public key of the node that made it."""


class Installation(Message):
    """What makes the receiver of a copy a holder."""

    table: Annotated[str, Field(max_length=TABLE_LIMIT)]
    """A JWS of `TABLE_KIND`: a `KeyTable`."""
    expires: Seconds
    owner: Annotated[str, Field(max_length=255)] = ""
    """Who claimed it meanwhile, or owned it from the start."""
    host: Annotated[str, Field(max_length=255)] = ""
    cups_job_id: Count = 0
    claim_code: Annotated[str, Field(max_length=16)] = ""
    picture_key: Blob = b""
    """The key of the picture of its first page, if there is one."""
    again: bool = False
    """The copy was not there (any more) when it was to be installed. So the receiver may have held it before, and lost
    what it voted: it has no vote now."""


class Attempt(Message):
    """`model.votes.Attempt`."""

    ballot: Ballot
    order: Id
    releaser: Annotated[str, Field(max_length=64)]
    nothing_sent: bool = False
    carried: bool = False


class Vote(Message):
    """`model.votes.Vote`."""

    promised: Annotated[int, Field(ge=0, le=1 << 31)] = 0
    attempts: Annotated[tuple[Attempt, ...], Field(max_length=1_000)] = ()
    lost: bool = False


class Prepare(Message):
    """Promise this ballot to the sender, who is to carry out *order*."""

    job: JobId
    generation: Annotated[int, Field(ge=1, le=1 << 31)]
    ballot: Ballot
    order: Annotated[str, Field(max_length=ORDER_LIMIT)]
    """The order's JWS: every voter checks it itself."""
    key: PartyKey
    """The sender's day key: the voter's part is sealed to it."""


class Commit(Message):
    """Vote for this order; the sender has every byte checked and the backend loaded."""

    job: JobId
    generation: Annotated[int, Field(ge=1, le=1 << 31)]
    ballot: Ballot
    order: Annotated[str, Field(max_length=ORDER_LIMIT)]


class Ballots(Message):
    """A voter's answer to `Prepare` and `Commit`."""

    vote: Vote
    """Its record, after what it did."""
    refused: Annotated[str, Field(max_length=64)] = ""
    """A word of `model.votes.Refusal`; empty: it did as asked."""
    part: Blob | None = None
    """Its key part, HPKE-sealed to the releaser for this order; with a promise only."""


class News(Message):
    """What became of the sender's attempt."""

    job: JobId
    generation: Annotated[int, Field(ge=1, le=1 << 31)]
    kind: Literal["nothing-sent", "printed"]
    ballot: Ballot
    order: Annotated[str, Field(max_length=ORDER_LIMIT)]
    """The order's JWS: it shows that the attempt was the sender's, and that the job's owner wanted it."""


def sign_roster(roster: Roster, key: bytes) -> str:
    """The JWS of *roster*; *key* is the organisation's raw Ed25519 private key."""
    return jws.sign(roster, ROSTER_KIND, key)


def verify_roster(token: str, pin: bytes, organisation: str, site: str) -> Roster:
    """The roster in *token*, which must be this site's. Raises StatementRefused."""
    roster = jws.verify(token, ROSTER_KIND, Roster, pin, ROSTER_LIMIT)
    if (roster.organisation, roster.site) != (organisation, site):
        raise StatementRefused(reason="the roster is another site's")
    if any(node_id(peer.identity) != peer.node for peer in roster.peers):
        raise StatementRefused(reason="a node's id in the roster is not its key's")
    return roster


def sign_table(table: KeyTable, key: bytes) -> str:
    """The JWS of *table*; *key* is its author's raw Ed25519 private key."""
    return jws.sign(table, TABLE_KIND, key)


def read_table(token: str) -> KeyTable:
    """The table in *token*, signed by whom it names as its author; whether that one may, the caller checks.

    Raises StatementRefused.
    """
    return jws.verify_own(token, TABLE_KIND, KeyTable, lambda table: table.author, TABLE_LIMIT)


def vote_to_wire(vote: model.Vote) -> Vote:
    """A voter's record as messages carry it."""
    attempts = tuple(
        Attempt(ballot=a.ballot, order=a.order, releaser=a.releaser, nothing_sent=a.nothing_sent, carried=a.carried)
        for a in vote.attempts
    )
    return Vote(promised=vote.promised, attempts=attempts, lost=vote.lost)


def vote_from_wire(vote: Vote) -> model.Vote:
    """A voter's record out of a message."""
    attempts = tuple(model.Attempt(a.ballot, a.order, a.releaser, a.nothing_sent, a.carried) for a in vote.attempts)
    return model.Vote(vote.promised, attempts, vote.lost)
