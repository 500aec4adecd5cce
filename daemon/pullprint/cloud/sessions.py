"""Who is signed in: random tokens, of which the database has the hash only.

A session ends some time after its last use, some time after it began (`Span`), and at sign-out. Signing in always
makes a new one and ends the one that was presented, so that nobody can plant a session on somebody else. Whoever
parks a request listens to `bus.jobs_topic`, and asks `find` again when that wakes it.
"""

import hashlib
import secrets
from dataclasses import dataclass

from sqlalchemy import ColumnElement, bindparam, delete, insert, select, update

from pullprint.base.errors import NotFound, NotSignedIn
from pullprint.cloud import user_agent
from pullprint.cloud.bus import jobs_topic
from pullprint.cloud.store import Transaction
from pullprint.cloud.tables import organisation, session
from pullprint.wire.api import SessionView


@dataclass(frozen=True, slots=True)
class Span:
    """How long a session lasts, in seconds."""

    idle: int
    """Since its last use."""
    limit: int
    """Since it began."""

    def end(self, created: float, now: float) -> float:
        """When a session that is used now ends."""
        return min(now + self.idle, created + self.limit)


PASSING = Span(12 * 3_600, 7 * 86_400)
REMEMBERED = Span(30 * 86_400, 180 * 86_400)
TOUCH_EVERY = 300
"""Seconds between two notes of a session's use."""
TOKEN_LIMIT = 128
LIST_LIMIT = 200

_FIND = (
    select(session, organisation.c.name.label("organisation_name"))
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


def begin(
    t: Transaction, organisation_id: str, user: str, replaces: str, name: str, *, remember: bool
) -> tuple[str, SignedIn]:
    """A new session at *name*, in place of the one with the token *replaces* (or none): its token, and whose it is."""
    if replaces:
        end(t, _hash(replaces))
    token = secrets.token_urlsafe(32)
    values = {
        "token_hash": _hash(token),
        "organisation": organisation_id,
        "user": user,
        "created": t.now,
        "used": t.now,
        "expires": _span(remember).end(t.now, t.now),
        "id": secrets.token_hex(8),
        "name": name,
        "remember": remember,
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
    stale = row.used < t.now - TOUCH_EVERY
    return SignedIn(row.organisation, row.organisation_name, row.user, row.token_hash, int(row.expires), stale)


def touch(t: Transaction, token_hash: bytes) -> None:
    """It is used: it lasts longer."""
    row = t.one(select(session.c.created, session.c.remember).where(session.c.token_hash == token_hash))
    if row is not None:
        expires = _span(row.remember).end(row.created, t.now)
        t.run(update(session).where(session.c.token_hash == token_hash).values(used=t.now, expires=expires))


def listing(t: Transaction, caller: SignedIn) -> list[SessionView]:
    """Where the caller is signed in, the one last used first."""
    query = select(session).where(*_of(caller.organisation, caller.user), session.c.expires > t.now)
    return [
        SessionView(
            id=row.id,
            kind="page",
            name=row.name or user_agent.PROGRAM,
            created=int(row.created),
            used=int(row.used),
            current=row.token_hash == caller.token_hash,
        )
        for row in t.all(query.order_by(session.c.used.desc(), session.c.id).limit(LIST_LIMIT))
    ]


def end(t: Transaction, token_hash: bytes) -> None:
    """Sign out."""
    _end(t, session.c.token_hash == token_hash)


def end_one(t: Transaction, organisation_id: str, user: str, session_id: str) -> None:
    """Sign out there. Raises NotFound."""
    if not _end(t, *_of(organisation_id, user), session.c.id == session_id):
        raise NotFound(what="session")


def end_all(t: Transaction, organisation_id: str, user: str) -> None:
    """Sign out everywhere."""
    _end(t, *_of(organisation_id, user))


def forget_ended(t: Transaction) -> None:
    """Drop sessions that have expired."""
    t.run(delete(session).where(session.c.expires <= t.now))


def _of(organisation_id: str, user: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return session.c.organisation == organisation_id, session.c.user == user


def _end(t: Transaction, *which: ColumnElement[bool]) -> bool:
    """End those sessions, and with them what is parked under them; whether there were any."""
    ended = t.all(delete(session).where(*which).returning(session.c.organisation, session.c.user))
    for row in ended:
        t.wake(jobs_topic(row.organisation, row.user))
    return bool(ended)


def _span(remember: bool) -> Span:
    return REMEMBERED if remember else PASSING


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
