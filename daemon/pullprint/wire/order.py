"""The release order: job J may be printed on printer P with ticket T, once.

A JWS by the organisation's order key, which every node pinned at enrolment. It is valid for `LIFETIME` seconds by
the cloud's time, and used up by the first COMMIT of its ballot.
"""

from typing import Annotated

from pydantic import Field

from pullprint.wire import jws
from pullprint.wire.jws import StatementRefused
from pullprint.wire.types import Id, JobId, Message, Name, NodeId, Seconds, WireTicket

LIFETIME = 60
LIMIT = 1 << 18
KIND = "pullprint-order+jwt"

Ballot = Annotated[int, Field(ge=1, le=1 << 31)]


class OrderRefused(StatementRefused):
    """The order to print was refused: {reason}. Nothing was printed; the job is still held."""

    code = "order-refused"


class Order(Message):
    """The claims of a release order."""

    jti: Id
    """The order's own id; the releaser commits to it."""
    iss: Id
    """The organisation."""
    aud: NodeId
    """The node that is to release it."""
    iat: Seconds
    exp: Seconds
    job: JobId
    printer: Id
    """Looked up in the node's own, signed inventory; an order carries no URI."""
    ticket: WireTicket
    """What is to be printed: the job's ticket with the owner's changes."""
    ballot: Ballot
    forces: tuple[Ballot, ...] = ()
    """Doubtful earlier ballots that the owner has seen and wants printed all the same."""
    by: Name
    """The user who pressed Print."""


def sign_order(order: Order, key: bytes) -> str:
    """The compact JWS; *key* is the organisation's raw Ed25519 private key."""
    return jws.sign(order, KIND, key)


def verify_order(token: str, pin: bytes, node: str, organisation: str, now: float | None) -> Order:
    """The order in *token*, which must be for this *node*, in time, and signed by the *pin* (raw Ed25519 public key).

    *now* is None where it is a matter of the past. Raises StatementRefused. That it is used once is the votes' matter,
    not this function's.
    """
    order = jws.verify(token, KIND, Order, pin, LIMIT)
    if order.iss != organisation or order.aud != node:
        raise OrderRefused(reason="it is meant for another node or organisation")
    if order.exp - order.iat > LIFETIME or not (now is None or order.iat - LIFETIME <= now <= order.exp):
        raise OrderRefused(reason="it has expired")
    return order
