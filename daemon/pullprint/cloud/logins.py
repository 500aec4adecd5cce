"""``pullprint login``: the OAuth 2.0 device flow (RFC 8628). The client is a node, for one of its local accounts.

The node is given a device code, which it polls with, and a user code, which a person types or scans. Whoever is
signed in on the page, in the node's own organisation, sees which account of which host asks, and answers. Both codes
are kept as hashes.
"""

import hashlib
import secrets
from typing import Any

from sqlalchemy import Select, delete, func, select, update

from pullprint.base.errors import BadRequest, NotFound, PullprintError
from pullprint.cloud import accounts
from pullprint.cloud.nodes import Node
from pullprint.cloud.store import AnyRow, Transaction
from pullprint.cloud.tables import login, node, organisation
from pullprint.model.owner import is_account, new_code, tidy_code
from pullprint.wire.api import PendingLogin
from pullprint.wire.node import AccountStatement, LoginOffer, Token, sign_account

LIFETIME = 600
"""Seconds for an answer."""
INTERVAL = 3
"""Seconds between two polls of a node."""
SLOWER = 5
"""Seconds that are added to it for a node that does not wait so long."""
SLACK = 0.5
"""Seconds by which the network may bring two polls closer together than they were sent."""
PENDING_LIMIT = 20
"""Accounts of one node that wait for an answer at the same time."""

_ALLOWED, _DENIED = "allowed", "denied"


class AuthorizationPending(PullprintError):
    """Nobody has answered on the page yet. Ask again after the interval; nothing was changed."""

    code = "authorization_pending"
    http_status = 400


class SlowDown(PullprintError):
    """That was too soon: wait 5 seconds longer between two polls from now on. Nothing was changed."""

    code = "slow_down"
    http_status = 400


class AccessDenied(PullprintError):
    """The login was denied on the page. Nothing was changed; held jobs are safe."""

    code = "access_denied"
    http_status = 400


class ExpiredToken(PullprintError):
    """Nobody answered in time. Run `pullprint login` again; nothing was changed."""

    code = "expired_token"
    http_status = 400


class InvalidGrant(PullprintError):
    """The cloud knows no such login of this host, or it has ended. Run `pullprint login` again."""

    code = "invalid_grant"
    http_status = 400


class TooManyLogins(PullprintError):
    """Too many accounts of this host wait to be let in. Wait ten minutes, then run `pullprint login` again."""

    code = "too-many"
    http_status = 429


class LoginRefused(NotFound):
    """No login waits for this code, or its time is over. Run `pullprint login` again and type the code that it
    shows."""

    code = "login-refused"


def begin(t: Transaction, sender: Node, account: str, public_url: str) -> LoginOffer:
    """Codes for a local account of the node, in place of those that it had. Raises BadRequest, TooManyLogins."""
    if not is_account(account):
        raise BadRequest(reason="an account's name has letters, digits and . _ - @ only")
    # First the login, then the node: `answer` locks in this order, too.
    t.run(delete(login).where(login.c.node == sender.id, login.c.account == account))
    t.run(select(node.c.id).where(node.c.id == sender.id).with_for_update())
    waiting = select(func.count()).where(login.c.node == sender.id, login.c.answer == "", login.c.expires > t.now)
    if t.run(waiting).scalar_one() >= PENDING_LIMIT:
        raise TooManyLogins
    device_code = secrets.token_urlsafe(32)
    user_code = _add(t, sender, account, device_code)
    return LoginOffer(
        device_code=device_code,
        user_code=user_code,
        verification_uri=f"{public_url}/login",
        verification_uri_complete=f"{public_url}/login?code={user_code}",
        expires_in=LIFETIME,
        interval=INTERVAL,
    )


def redeem(t: Transaction, sender: Node, device_code: str) -> Token | PullprintError:
    """The node polls: the token, once, or why there is none (which is returned, because it is noted, too).

    An answer that was given in time may be fetched for as long again.
    """
    this = (login.c.device_hash == _hash(device_code), login.c.node == sender.id)
    row = t.one(select(login).where(*this).with_for_update())
    if row is None:
        return InvalidGrant()
    if not row.answer and row.expires > t.now:
        return _not_yet(t, row)
    t.run(delete(login).where(login.c.device_hash == row.device_hash))
    if not row.answer:
        return ExpiredToken()
    if row.answer == _DENIED or not accounts.is_bound(t, sender.id, row.account, row.user):
        return AccessDenied()
    key = t.run(select(organisation.c.order_key).where(organisation.c.id == sender.organisation)).scalar_one()
    statement = AccountStatement(
        iss=sender.organisation, aud=sender.id, iat=int(t.now), account=row.account, user=row.user
    )
    return Token(access_token=sign_account(statement, key), user=row.user)


def withdraw(t: Transaction, sender: Node, device_code: str) -> None:
    """Whoever wanted to be let in has gone away: the codes are void. What was answered stays."""
    this = (login.c.device_hash == _hash(device_code), login.c.node == sender.id)
    t.run(delete(login).where(*this, login.c.answer == ""))


def pending(t: Transaction, organisation_id: str, code: str) -> PendingLogin:
    """Who in the organisation waits with this user code. Raises LoginRefused."""
    row = _found(t.one(_waiting(organisation_id, code, t.now)))
    return PendingLogin(
        code=tidy_code(code), account=row.account, host=row.host, site=row.site, expires=int(row.expires)
    )


def answer(t: Transaction, organisation_id: str, user: str, code: str, *, allow: bool) -> None:
    """The signed-in user says whether that account is theirs; once. Raises LoginRefused."""
    row = _found(t.one(_waiting(organisation_id, code, t.now).with_for_update(of=login)))
    answered = update(login).where(login.c.device_hash == row.device_hash)
    t.run(answered.values(answer=_ALLOWED if allow else _DENIED, user=user))
    if allow:
        accounts.bind(t, row.node, row.account, organisation_id, user)


def forget_old(t: Transaction) -> None:
    """Drop codes whose time was over long enough ago for their node to have heard of it."""
    t.run(delete(login).where(login.c.expires <= t.now - LIFETIME))


def _add(t: Transaction, sender: Node, account: str, device_code: str) -> str:
    """Keep a new login; its user code, which nobody else in the organisation has."""
    while True:
        user_code = new_code()
        values = {
            "device_hash": _hash(device_code),
            "organisation": sender.organisation,
            "user_hash": _hash(user_code),
            "node": sender.id,
            "account": account,
            "created": t.now,
            "expires": t.now + LIFETIME,
            "interval": INTERVAL,
            "polled": 0.0,
        }
        if t.add(login, values):
            return user_code


def _not_yet(t: Transaction, row: AnyRow) -> PullprintError:
    hasty = t.now - row.polled < row.interval - SLACK
    interval = row.interval + SLOWER if hasty else row.interval
    t.run(update(login).where(login.c.device_hash == row.device_hash).values(polled=t.now, interval=interval))
    return SlowDown() if hasty else AuthorizationPending()


def _waiting(organisation_id: str, code: str, now: float) -> Select[*tuple[Any, ...]]:
    """The login that waits for an answer."""
    return (
        select(login, node.c.name.label("host"), node.c.site)
        .join(node, node.c.id == login.c.node)
        .where(login.c.organisation == organisation_id, login.c.user_hash == _hash(tidy_code(code)))
        .where(login.c.answer == "", login.c.expires > now, node.c.revoked.is_(None))
    )


def _found(row: AnyRow | None) -> AnyRow:
    if row is None:
        raise LoginRefused
    return row


def _hash(code: str) -> bytes:
    return hashlib.sha256(code.encode("utf-8", "replace")).digest()
