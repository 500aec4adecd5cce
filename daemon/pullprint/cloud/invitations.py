"""Links with which a user chooses a password: each once, for some hours, and one of a user at a time.

The token is in the link's fragment, which browsers send to nobody; the page posts it. The database has its hash only.
Whoever changes an invitation has locked its user first: two who use one link at once come one after the other.
"""

import hashlib
import secrets
from typing import Any

from sqlalchemy import Select, delete, insert, select

from pullprint.base.errors import BadRequest, NotFound
from pullprint.cloud import users
from pullprint.cloud.store import AnyRow, Transaction
from pullprint.cloud.tables import invitation, organisation, user_account
from pullprint.wire.api import Invitation

HOURS = 72
HOURS_LIMIT = 30 * 24


class InvitationRefused(NotFound):
    """This link was used already, or its time is over. If you have a password, sign in with it; otherwise ask your
    administrator for a new link. Nothing was changed."""

    code = "invitation-refused"


def invite(t: Transaction, organisation_id: str, user: str, hours: int = HOURS) -> str:
    """A token with which *user* may choose a password, in place of an older one. Raises BadRequest, NotFound."""
    if not 1 <= hours <= HOURS_LIMIT:
        raise BadRequest(reason=f"an invitation lasts for at least one hour and at most {HOURS_LIMIT}")
    name = user.lower()
    if not _lock(t, organisation_id, name):
        raise NotFound(what=f"user as {name} in {organisation_id}")
    token = secrets.token_urlsafe(32)
    values = {
        "organisation": organisation_id,
        "user": name,
        "token_hash": _hash(token),
        "created": t.now,
        "expires": t.now + hours * 3_600,
    }
    users.withdraw_invitation(t, organisation_id, name)
    t.run(insert(invitation), values)
    return token


def link(public_url: str, token: str) -> str:
    """What the user opens."""
    return f"{public_url.rstrip('/')}/welcome#{token}"


def whose(t: Transaction, token: str) -> Invitation:
    """Who may choose a password with *token*. Raises InvitationRefused."""
    row = _found(t.one(_good(token, t.now)))
    return Invitation(user=row.user, organisation=row.organisation_name)


def accept(t: Transaction, token: str, encoded: str) -> tuple[str, str]:
    """Use *token* up for a password's argon2 hash; the organisation's id and the user. Raises InvitationRefused."""
    row = _found(t.one(_good(token, t.now)))
    _lock(t, row.organisation, row.user)
    _found(t.one(_good(token, t.now)))  # somebody else may have been quicker
    users.set_password(t, row.organisation, row.user, encoded)
    return row.organisation, row.user


def forget_expired(t: Transaction) -> None:
    """Drop those whose time is over."""
    t.run(delete(invitation).where(invitation.c.expires <= t.now))


def _lock(t: Transaction, organisation_id: str, name: str) -> bool:
    """Nobody else changes the user or their invitation until the commit; whether there is such a user."""
    this = (user_account.c.organisation == organisation_id, user_account.c.name == name)
    return t.one(select(user_account.c.name).where(*this).with_for_update()) is not None


def _good(token: str, now: float) -> Select[*tuple[Any, ...]]:
    return (
        select(invitation.c.organisation, invitation.c.user, organisation.c.name.label("organisation_name"))
        .join(organisation, organisation.c.id == invitation.c.organisation)
        .where(invitation.c.token_hash == _hash(token), invitation.c.expires > now)
    )


def _found(row: AnyRow | None) -> AnyRow:
    if row is None:
        raise InvitationRefused
    return row


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
