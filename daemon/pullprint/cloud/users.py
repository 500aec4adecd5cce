"""User accounts and their passwords."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import delete, select, update

from pullprint.base.errors import BadRequest, NotFound, TooMany
from pullprint.cloud import organisations, sites
from pullprint.cloud.store import Transaction
from pullprint.cloud.tables import session, user_account
from pullprint.model.owner import USER_NAME

PASSWORD_MINIMUM = 8
PASSWORD_LIMIT = 1_024
AT_ONCE = 2
"""Passwords checked at the same time: each takes 64 MiB and a core."""
QUEUE_LIMIT = 64
"""Checks that wait for their turn; further ones are sent away."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user, and what a password is checked against."""

    organisation: str
    name: str
    password: str


class Passwords:
    """Argon2id in threads of its own, a few at a time."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._executor = ThreadPoolExecutor(AT_ONCE, "pullprint-password")
        self._waiting = 0
        # What an unknown user's password is checked against, so that it takes as long as a known one's.
        self._decoy = self._hasher.hash("")

    async def check(self, password: str, encoded: str | None) -> bool:
        """Whether *password* is the one in *encoded*; with None it takes as long, and is not. Raises TooMany."""
        if self._waiting >= QUEUE_LIMIT:
            raise TooMany(seconds=5)
        self._waiting += 1
        try:
            right = await asyncio.get_running_loop().run_in_executor(
                self._executor, self._verify, password, encoded or self._decoy
            )
        finally:
            self._waiting -= 1
        return right and encoded is not None

    def close(self) -> None:
        """End the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _verify(self, password: str, encoded: str) -> bool:
        try:
            return self._hasher.verify(encoded, password)
        except (VerificationError, InvalidHashError):
            return False


def add(t: Transaction, organisation_id: str, name: str, encoded: str) -> str:
    """A new user with an argon2 hash; the name as it is stored. Raises BadRequest, NotFound, AlreadyThere."""
    organisations.check_exists(t, organisation_id)
    lowered = check_user_name(name)
    values = {"organisation": organisation_id, "name": lowered, "password": encoded, "created": t.now}
    if not t.add(user_account, values):
        raise organisations.AlreadyThere(what="user", name=lowered)
    sites.changed(t, organisation_id)
    return lowered


def set_password(t: Transaction, organisation_id: str, name: str, encoded: str) -> str:
    """Another argon2 hash for a user, whose sessions end; the name as it is stored. Raises NotFound."""
    lowered = name.lower()
    found = update(user_account).where(user_account.c.organisation == organisation_id, user_account.c.name == lowered)
    if not t.run(found.values(password=encoded).returning(user_account.c.name)).all():
        raise NotFound(what="user")
    _end_sessions(t, organisation_id, lowered)
    return lowered


def remove(t: Transaction, organisation_id: str, name: str) -> str:
    """Take a user away; held jobs stay until they expire, but nobody can release them. Raises NotFound."""
    lowered = name.lower()
    _end_sessions(t, organisation_id, lowered)
    found = delete(user_account).where(user_account.c.organisation == organisation_id, user_account.c.name == lowered)
    if not t.run(found.returning(user_account.c.name)).all():
        raise NotFound(what="user")
    sites.changed(t, organisation_id)
    return lowered


def _end_sessions(t: Transaction, organisation_id: str, name: str) -> None:
    t.run(delete(session).where(session.c.organisation == organisation_id, session.c.user == name))


def hash_password(password: str) -> str:
    """Its argon2id hash; takes a while. Raises BadRequest."""
    if not PASSWORD_MINIMUM <= len(password) <= PASSWORD_LIMIT:
        raise BadRequest(reason=f"a password has {PASSWORD_MINIMUM} to {PASSWORD_LIMIT} characters")
    return PasswordHasher().hash(password)


def check_user_name(name: str) -> str:
    """*name* in lower case, if a user may have it. Raises BadRequest."""
    if not USER_NAME.fullmatch(name) or not name.isprintable():
        raise BadRequest(reason="a user's name has 1 to 254 characters, no spaces or quotes, such as u@example.com")
    return name.lower()


def names(t: Transaction, organisation_id: str) -> list[str]:
    """An organisation's users. Raises NotFound."""
    organisations.check_exists(t, organisation_id)
    query = select(user_account.c.name).where(user_account.c.organisation == organisation_id)
    return list(t.run(query.order_by(user_account.c.name)).scalars())


def accounts_named(t: Transaction, name: str, organisation_id: str, limit: int) -> list[Account]:
    """The accounts with this name, in one organisation or (when that is empty) in all, at most *limit*."""
    query = select(user_account.c.organisation, user_account.c.name, user_account.c.password)
    query = query.where(user_account.c.name == name.lower())
    if organisation_id:
        query = query.where(user_account.c.organisation == organisation_id)
    return [Account(*row) for row in t.all(query.order_by(user_account.c.organisation).limit(limit))]


def exists(t: Transaction, organisation_id: str, name: str) -> bool:
    """Whether there is such a user."""
    query = select(user_account.c.name).where(
        user_account.c.organisation == organisation_id, user_account.c.name == name
    )
    return t.one(query) is not None
