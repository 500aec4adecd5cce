"""The field types that messages share, with their limits."""

import base64
import binascii
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PlainSerializer, PlainValidator, StringConstraints

from pullprint.model.facts import BadFacts, Facts
from pullprint.model.job import JOB_ID
from pullprint.model.ticket import Ticket, TicketRefused

BLOB_LIMIT = 1 << 16


class Message(BaseModel):
    """A message: frozen, checked, tolerant of fields from a newer peer."""

    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True)


UNKNOWN = "unknown"


def by_kind(*known: str) -> Discriminator:
    """Tells the members of a union by their ``kind``; one that is not *known* is the member tagged `UNKNOWN`."""

    def tag(value: object) -> str | None:
        kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
        if not isinstance(kind, str):
            return None
        return kind if kind in known else UNKNOWN

    return Discriminator(tag)


def _bytes_from_text(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) or len(value) > 2 * BLOB_LIMIT:
        raise ValueError("base64 text is expected")
    try:
        raw = base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
    if len(raw) > BLOB_LIMIT:
        raise ValueError("too long")
    return raw


def _key(value: object) -> bytes:
    raw = _bytes_from_text(value)
    if len(raw) != 32:
        raise ValueError("a key has 32 bytes")
    return raw


def _ticket(value: object) -> Ticket:
    if isinstance(value, Ticket):
        return value
    if not isinstance(value, dict) or not isinstance(value.get("options"), list):
        raise ValueError("a ticket has copies and options")
    pairs = []
    for pair in value["options"]:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise ValueError("an option is a pair of texts")
        pairs.append((pair[0], pair[1]))
    copies = value.get("copies")
    if not isinstance(copies, int) or isinstance(copies, bool):
        raise ValueError("copies is a number")
    try:
        return Ticket(copies=copies, options=tuple(pairs))
    except TicketRefused as error:
        raise ValueError(error.sentence) from error


def ticket_to_dict(ticket: Ticket) -> dict[str, object]:
    """A ticket as messages carry it: ``{"copies": 1, "options": [["sides", "one-sided"], …]}``."""
    return {"copies": ticket.copies, "options": [list(pair) for pair in ticket.options]}


def _facts(value: object) -> Facts:
    if isinstance(value, Facts):
        return value
    if not isinstance(value, dict):
        raise ValueError("facts are an object")
    try:
        return Facts.from_dict(value)
    except BadFacts as error:
        raise ValueError(error.sentence) from error


Blob = Annotated[bytes, PlainValidator(_bytes_from_text), PlainSerializer(lambda b: base64.b64encode(b).decode())]
"""Bytes, sent as standard base64; at most 64 KiB."""
Key = Annotated[bytes, PlainValidator(_key), PlainSerializer(lambda b: base64.b64encode(b).decode())]
"""A raw Ed25519 or X25519 public key, 32 bytes, sent as standard base64."""
WireTicket = Annotated[Ticket, PlainValidator(_ticket), PlainSerializer(ticket_to_dict)]
WireFacts = Annotated[Facts, PlainValidator(_facts), PlainSerializer(lambda facts: facts.to_dict())]
JobId = Annotated[str, StringConstraints(pattern=f"^{JOB_ID.pattern}$")]
NodeId = Annotated[str, StringConstraints(pattern="^[0-9a-f]{32}$")]
"""First 16 bytes of SHA-256 over the node's raw Ed25519 public key, in hex: an id that proves itself."""
Id = Annotated[str, StringConstraints(pattern="^[0-9a-z][0-9a-z-]{0,63}$")]
"""Organisation, site, printer, order, key: opaque outside the room that made it."""
Text = Annotated[str, StringConstraints(max_length=1_000)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Seconds = Annotated[int, Field(ge=0, le=1 << 40)]
"""Seconds since the epoch, UTC."""
Count = Annotated[int, Field(ge=0, le=1 << 53)]
