"""User accounts and their passwords."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import delete, select, update

from pullprint.base.errors import BadRequest, NotFound, TooMany
from pullprint.cloud import organisations, sessions, sites
from pullprint.cloud.store import Transaction
from pullprint.cloud.tables import invitation, user_account
from pullprint.model.owner import USER_NAME

PASSWORD_MINIMUM = 8
PASSWORD_LIMIT = 1_024
NO_PASSWORD = ""
"""Instead of a hash, of a user who has yet to choose a password: nothing fits."""
AT_ONCE = 2
"""Passwords worked on at the same time: each takes 64 MiB and a core."""
QUEUE_LIMIT = 64
"""Those that wait for their turn; further ones are sent away."""

T = TypeVar("T")


class PasswordRefused(BadRequest):
    """A password has {minimum} to {limit} characters: choose another one. Nothing was changed."""

    code = "password-refused"


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

    async def check(self, password: str, encoded: str) -> bool:
        """Whether *password* is the one in *encoded*; `NO_PASSWORD` takes as long, and is none. Raises TooMany."""
        right = await self._in_thread(self._verify, password, encoded or self._decoy)
        return right and bool(encoded)

    async def encode(self, password: str) -> str:
        """The hash of a new *password*. Raises PasswordRefused, TooMany."""
        _check_length(password)
        return await self._in_thread(self._hasher.hash, password)

    def close(self) -> None:
        """End the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: Callable[..., T], *words: str) -> T:
        if self._waiting >= QUEUE_LIMIT:
            raise TooMany(seconds=5)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work, *words)
        finally:
            self._waiting -= 1

    def _verify(self, password: str, encoded: str) -> bool:
        try:
            return self._hasher.verify(encoded, password)
        except (VerificationError, InvalidHashError):
            return False


def add(t: Transaction, organisation_id: str, name: str, encoded: str) -> str:
    """A new user with an argon2 hash or `NO_PASSWORD`; the name as it is stored.

    Raises BadRequest, NotFound, AlreadyThere.
    """
    organisations.check_exists(t, organisation_id)
    lowered = check_user_name(name)
    values = {"organisation": organisation_id, "name": lowered, "password": encoded, "created": t.now}
    if not t.add(user_account, values):
        raise organisations.AlreadyThere(what="user", name=lowered)
    sites.changed(t, organisation_id)
    return lowered


def set_password(t: Transaction, organisation_id: str, name: str, encoded: str) -> str:
    """Another argon2 hash for a user, whose sessions and invitation end; the name as it is stored. Raises NotFound."""
    lowered = name.lower()
    found = update(user_account).where(user_account.c.organisation == organisation_id, user_account.c.name == lowered)
    if not t.run(found.values(password=encoded).returning(user_account.c.name)).all():
        raise NotFound(what="user")
    sessions.end_all(t, organisation_id, lowered)
    withdraw_invitation(t, organisation_id, lowered)
    return lowered


def remove(t: Transaction, organisation_id: str, name: str) -> str:
    """Take a user away; held jobs stay until they expire, but nobody can release them. Raises NotFound."""
    lowered = name.lower()
    sessions.end_all(t, organisation_id, lowered)
    found = delete(user_account).where(user_account.c.organisation == organisation_id, user_account.c.name == lowered)
    if not t.run(found.returning(user_account.c.name)).all():
        raise NotFound(what="user")
    sites.changed(t, organisation_id)
    return lowered


def withdraw_invitation(t: Transaction, organisation_id: str, name: str) -> None:
    """The link that the user may have been given leads nowhere any more."""
    t.run(delete(invitation).where(invitation.c.organisation == organisation_id, invitation.c.user == name))


def hash_password(password: str) -> str:
    """Its argon2id hash; takes a while. Raises PasswordRefused."""
    _check_length(password)
    return PasswordHasher().hash(password)


def _check_length(password: str) -> None:
    if not PASSWORD_MINIMUM <= len(password) <= PASSWORD_LIMIT:
        raise PasswordRefused(minimum=PASSWORD_MINIMUM, limit=PASSWORD_LIMIT)


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
