"""Who is signed in: random tokens, of which the database has the hash only.

A session ends `IDLE` after its last use, `LIMIT` after it began, and at sign-out. Signing in always makes a new
one and ends the one that was presented, so that nobody can plant a session on somebody else.
"""

import hashlib
import secrets
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, insert, select, update

from pullprint.base.errors import NotSignedIn
from pullprint.cloud.store import Transaction
from pullprint.cloud.tables import organisation, session

IDLE = 12 * 3_600
LIMIT = 7 * 86_400
TOUCH_EVERY = 300
"""Seconds between two notes of a session's use."""
TOKEN_LIMIT = 128

_FIND = (
    select(session, organisation.c.name)
    .join(organisation, organisation.c.id == session.c.organisation)
    .where(session.c.token_hash == bindparam("token_hash"))
)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The user who calls."""

    organisation: str
    organisation_name: str
    user: str
    token_hash: bytes
    expires: int
    stale: bool
    """Its use should be noted."""


def begin(t: Transaction, organisation_id: str, user: str, replaces: str) -> tuple[str, SignedIn]:
    """A new session, in place of the one with the token *replaces* (or none): its token, and whose it is."""
    if replaces:
        end(t, _hash(replaces))
    token = secrets.token_urlsafe(32)
    values = {
        "token_hash": _hash(token),
        "organisation": organisation_id,
        "user": user,
        "created": t.now,
        "used": t.now,
        "expires": t.now + IDLE,
    }
    t.run(insert(session), values)
    return token, find(t, token)


def find(t: Transaction, token: str) -> SignedIn:
    """Whose session has this *token*. Raises NotSignedIn."""
    if not 0 < len(token) <= TOKEN_LIMIT:
        raise NotSignedIn
    row = t.one(_FIND, {"token_hash": _hash(token)})
    if row is None or row.expires <= t.now:
        raise NotSignedIn
    return SignedIn(
        row.organisation, row.name, row.user, row.token_hash, int(row.expires), row.used < t.now - TOUCH_EVERY
    )


def touch(t: Transaction, token_hash: bytes) -> None:
    """It is used: it lasts longer."""
    row = t.one(select(session.c.created).where(session.c.token_hash == token_hash))
    if row is not None:
        expires = min(t.now + IDLE, row.created + LIMIT)
        t.run(update(session).where(session.c.token_hash == token_hash).values(used=t.now, expires=expires))


def end(t: Transaction, token_hash: bytes) -> None:
    """Sign out."""
    t.run(delete(session).where(session.c.token_hash == token_hash))


def forget_ended(t: Transaction) -> None:
    """Drop sessions that have expired."""
    t.run(delete(session).where(session.c.expires <= t.now))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
