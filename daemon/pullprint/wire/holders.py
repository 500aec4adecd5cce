"""New holders for a job: the order for it, what voters say of it, and the proof that a generation is in force.

A generation of key parts after the second is made by one of the holders, under an order of the organisation, and is in
force when a majority of the holders before it has accepted its key table (`model.votes`). Each acceptance is signed
with the voter's identity key. Whoever was no holder before believes the `Link`s from the second generation on, which
the job's origin signed: a node's id is a hash of its key, so nothing else has to be known to check them.

================================================  ==================  ================================================
request, between nodes as in `wire.mesh`          answer              meaning
================================================  ==================  ================================================
``POST /mesh/v1/generations/close`` `Close`       `Closed`            vote no more in this generation; what was accepted
``POST /mesh/v1/generations/accept`` `Accept`     `AcceptanceAnswer`  accept this key table for the next one
``POST /mesh/v1/generations/open`` `Opening`      204                 the next one is in force; repeated until heard
================================================  ==================  ================================================
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from pydantic import Field, StringConstraints

from pullprint.model import votes
from pullprint.model.votes import quorum
from pullprint.wire import jws
from pullprint.wire.jws import StatementRefused
from pullprint.wire.mesh import (
    FIRST_TABLE,
    HOLDERS_LIMIT,
    TABLE_LIMIT,
    Installation,
    KeyTable,
    Vote,
    read_table,
    vote_from_wire,
    vote_to_wire,
)
from pullprint.wire.node import PartyKey
from pullprint.wire.signature import node_id
from pullprint.wire.types import Id, JobId, Key, Message, NodeId, Seconds

KIND = "pullprint-holders+jwt"
ACCEPTANCE_KIND = "pullprint-acceptance+jwt"
LIFETIME = 600
"""Seconds for which an order is good."""
LIMIT = 1 << 14
ACCEPTANCE_LIMIT = 4_096
CANDIDATES_LIMIT = 16
LINKS_LIMIT = 64
"""Generations between the second and the one that is to be believed: with more, no new one can be made."""

Generation = Annotated[int, Field(ge=2, le=1 << 31)]
Number = Annotated[int, Field(ge=1, le=1 << 31)]
Token = Annotated[str, StringConstraints(max_length=TABLE_LIMIT)]


class HoldersOrder(Message):
    """Other nodes are to hold this job. Signed by the organisation's order key."""

    jti: Id
    iss: Id
    """The organisation."""
    aud: NodeId
    """The holder that is to see to it."""
    iat: Seconds
    exp: Seconds
    job: JobId
    base: Generation
    """The generation whose holders are to be asked; the next one is the new one."""
    number: Number
    """Each order for a job has a higher one."""
    out: Annotated[tuple[NodeId, ...], Field(max_length=HOLDERS_LIMIT)] = ()
    """Holders that leave."""
    candidates: Annotated[tuple[NodeId, ...], Field(max_length=CANDIDATES_LIMIT)] = ()
    """Nodes that may come in, best first."""
    wanted: Annotated[int, Field(ge=0, le=HOLDERS_LIMIT)] = 0
    """How many of them."""
    urgent: bool = False
    """Also if none of them takes a copy: a holder was shut out, and its key part is to be of no use."""


class Close(Message):
    """Vote no more in this generation, and say what you accepted."""

    job: JobId
    generation: Generation
    """The one that ends."""
    number: Number
    order: Annotated[str, Field(max_length=LIMIT)]


class Proposal(Message):
    """`model.votes.Proposal`: what is not in its key table."""

    table: Token
    """A JWS of `wire.mesh.TABLE_KIND`; it says the generation and the voters."""
    start: Vote


class Accepted(Message):
    """`model.votes.Acceptance`."""

    number: Number
    proposal: Proposal


class Closed(Message):
    """A voter's answer to `Close`."""

    vote: Vote
    closed: Annotated[int, Field(ge=0, le=1 << 31)] = 0
    accepted: Accepted | None = None
    key: PartyKey | None = None
    """Its day key, to which its part in the next generation is to be sealed."""
    refused: Annotated[str, Field(max_length=64)] = ""
    """A word of `model.votes.Refusal`; empty: it did as asked."""


class Accept(Message):
    """Accept this proposal."""

    job: JobId
    generation: Generation
    """The one that ends."""
    number: Number
    proposal: Proposal
    order: Annotated[str, Field(max_length=LIMIT)]


class AcceptanceAnswer(Message):
    """A voter's answer to `Accept`."""

    acceptance: Annotated[str, Field(max_length=ACCEPTANCE_LIMIT)] = ""
    """A JWS of `ACCEPTANCE_KIND`: an `Acceptance`."""
    refused: Annotated[str, Field(max_length=64)] = ""


class Acceptance(Message):
    """A voter's durable word, signed by its identity key."""

    voter: Key
    """Raw Ed25519."""
    job: JobId
    base: Generation
    base_table: Key
    """SHA-256 of the JWS of the base generation's key table."""
    number: Number
    table: Key
    """SHA-256 of the JWS of the next one's."""
    start: Key
    """`start_digest`."""


class Link(Message):
    """A key table, and why it is in force."""

    table: Token
    acceptances: Annotated[
        tuple[Annotated[str, Field(max_length=ACCEPTANCE_LIMIT)], ...], Field(max_length=HOLDERS_LIMIT)
    ] = ()
    """JWS of `ACCEPTANCE_KIND`, of a majority of the holders in the table before; none for the second generation."""


class Opening(Installation):
    """A generation after the second is in force: its *table*, what makes the receiver its holder, and the proof."""

    earlier: Annotated[tuple[Link, ...], Field(max_length=LINKS_LIMIT)]
    """From the second generation up to the one before."""
    acceptances: Annotated[
        tuple[Annotated[str, Field(max_length=ACCEPTANCE_LIMIT)], ...], Field(max_length=HOLDERS_LIMIT)
    ]
    start: Vote
    """The record with which each of the new voters starts."""

    def links(self) -> tuple[Link, ...]:
        """All of them, the last one's included."""
        return (*self.earlier, Link(table=self.table, acceptances=self.acceptances))


@dataclass(frozen=True, slots=True)
class Proven:
    """A generation that is in force."""

    table: KeyTable
    token: str
    """The table's JWS."""
    base: KeyTable
    acceptances: dict[str, votes.Acceptance]
    """By voter of the base."""
    former: frozenset[str]
    """Who held the job in any earlier generation, and does not in this one."""


def sign_holders_order(order: HoldersOrder, key: bytes) -> str:
    """The JWS; *key* is the organisation's raw Ed25519 private key."""
    return jws.sign(order, KIND, key)


def verify_holders_order(token: str, pin: bytes, node: str, organisation: str, now: float) -> HoldersOrder:
    """The order in *token*, which must be for *node* and in time. Raises StatementRefused."""
    order = jws.verify(token, KIND, HoldersOrder, pin, LIMIT)
    if order.iss != organisation or order.aud != node:
        raise StatementRefused(reason="it is meant for another node or organisation")
    if order.exp - order.iat > LIFETIME or not order.iat - LIFETIME <= now <= order.exp:
        raise StatementRefused(reason="it has expired")
    return order


def sign_acceptance(acceptance: Acceptance, key: bytes) -> str:
    """The JWS; *key* is the voter's raw Ed25519 private key."""
    return jws.sign(acceptance, ACCEPTANCE_KIND, key)


def read_acceptance(token: str) -> Acceptance:
    """The acceptance in *token*, signed by the voter that it names. Raises StatementRefused."""
    return jws.verify_own(token, ACCEPTANCE_KIND, Acceptance, lambda said: said.voter, ACCEPTANCE_LIMIT)


def table_digest(token: str) -> bytes:
    """SHA-256 of a key table's JWS."""
    return hashlib.sha256(token.encode()).digest()


def start_digest(start: votes.Vote) -> bytes:
    """SHA-256 of what a record says that a generation starts with; written out, so that every version gets the same."""
    attempts = [[a.ballot, a.order, a.releaser, a.nothing_sent, a.carried] for a in start.attempts]
    return hashlib.sha256(json.dumps([start.promised, attempts], separators=(",", ":")).encode()).digest()


def proposal_to_wire(proposal: votes.Proposal) -> Proposal:
    """In the model's proposals the table is its JWS."""
    return Proposal(table=proposal.table, start=vote_to_wire(proposal.start))


def proposal_from_wire(said: Proposal) -> votes.Proposal:
    """The model's proposal. Raises StatementRefused."""
    table = read_table(said.table)
    start = vote_from_wire(said.start)
    if start.lost:
        raise StatementRefused(reason="a generation does not start with a lost record")
    return votes.Proposal(table.generation, said.table, table.holders, start)


def check_successor(table: KeyTable, base: KeyTable) -> None:
    """Whether *table* may follow *base*. Raises StatementRefused."""
    if table.job != base.job or (table.size, table.digest) != (base.size, base.digest):
        raise StatementRefused(reason="a key table is another job's, or for another file")
    if table.generation != base.generation + 1:
        raise StatementRefused(reason="a key table does not follow from the one before")
    if node_id(table.author) not in base.holders:
        raise StatementRefused(reason="a key table was made by somebody who did not hold the job")
    if len(set(table.holders)) != len(table.holders):
        raise StatementRefused(reason="a key table names a holder twice")


def check_links(links: Sequence[Link], origin: str, start: votes.Vote | None = None) -> Proven:
    """What the last of *links* puts in force: a generation after the second, of a job that came from node *origin*.

    *start*, if given, must be what the acceptances name. Raises StatementRefused.
    """
    if not 2 <= len(links) <= LINKS_LIMIT:
        raise StatementRefused(reason="it proves no generation, or too many")
    base = read_table(links[0].table)
    if base.generation != FIRST_TABLE or node_id(base.author) != origin or links[0].acceptances:
        raise StatementRefused(reason="the first key table was not made by the job's origin")
    former: set[str] = {origin, *base.holders}
    table, accepted = base, _Accepted(0, b"", ())
    for before, link in pairwise(links):
        base, table = table, read_table(link.table)
        check_successor(table, base)
        accepted = _check_acceptances(link, before, base)
        former |= set(table.holders)
    if start is None:
        start = votes.Vote()
    elif start_digest(start) != accepted.start or start.lost:
        raise StatementRefused(reason="what the voters start with is not what was accepted")
    token = links[-1].table
    proposal = votes.Proposal(table.generation, token, table.holders, start)
    acceptances = {voter: votes.Acceptance(accepted.number, proposal) for voter in accepted.voters}
    return Proven(table, token, base, acceptances, frozenset(former - set(table.holders)))


@dataclass(frozen=True, slots=True)
class _Accepted:
    number: int
    start: bytes
    voters: tuple[str, ...]


def _check_acceptances(link: Link, before: Link, base: KeyTable) -> _Accepted:
    """A majority of the *base*'s holders accepted *link*'s table, all under one number and with one start."""
    said = [read_acceptance(token) for token in link.acceptances]
    voters = {node_id(one.voter) for one in said}
    if len(voters) != len(said) or not voters <= set(base.holders) or len(voters) < quorum(len(base.holders)):
        raise StatementRefused(reason="a key table was not accepted by a majority of the holders before")
    expected = (base.job, base.generation, table_digest(before.table), table_digest(link.table))
    if any((one.job, one.base, one.base_table, one.table) != expected for one in said):
        raise StatementRefused(reason="a key table was accepted for another job, or in place of another")
    if len({(one.number, one.start) for one in said}) != 1:
        raise StatementRefused(reason="a key table was not accepted under one number")
    return _Accepted(said[0].number, said[0].start, tuple(sorted(voters)))
