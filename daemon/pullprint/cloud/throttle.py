"""How often something may be tried, counted in the database so that a restart or a second server forgets nothing.

An attempt is counted before it is made: a thousand at once are no way round.
"""

import hashlib
import ipaddress
from dataclasses import dataclass

from sqlalchemy import case, delete, select, update

from pullprint.base.errors import TooMany
from pullprint.cloud.store import Transaction
from pullprint.cloud.tables import throttle

KEEP = 86_400
"""Seconds after which a count is forgotten; no window is longer."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most *attempts* in *seconds*."""

    what: str
    attempts: int
    seconds: int

    def key(self, *words: str) -> bytes:
        """Of whoever tries."""
        return hashlib.sha256("\0".join((self.what, *words)).encode("utf-8", "replace")).digest()


SIGN_IN_NAME_AND_ADDRESS = Limit("sign-in-name-and-address", 6, 300)
SIGN_IN_NAME = Limit("sign-in-name", 30, 900)
SIGN_IN_ADDRESS = Limit("sign-in-address", 60, 900)
WELCOME_ADDRESS = Limit("welcome-address", 60, 900)
CLAIM_USER = Limit("claim-user", 10, 600)
CLAIM_ADDRESS = Limit("claim-address", 60, 600)
LOGIN_USER = Limit("login-user", 10, 600)
LOGIN_ADDRESS = Limit("login-address", 60, 600)
ENROL_ADDRESS = Limit("enrol-address", 30, 600)


def attempt(t: Transaction, limit: Limit, *words: str) -> None:
    """Count one attempt. Raises TooMany with the seconds to wait."""
    key = limit.key(*words)
    t.add(throttle, {"key": key, "started": t.now, "attempts": 0})
    over = throttle.c.started <= t.now - limit.seconds
    t.run(
        update(throttle)
        .where(throttle.c.key == key)
        .values(
            started=case((over, t.now), else_=throttle.c.started),
            attempts=case((over, 1), else_=throttle.c.attempts + 1),
        )
    )
    row = t.one(select(throttle.c.started, throttle.c.attempts).where(throttle.c.key == key))
    assert row is not None
    if row.attempts > limit.attempts:
        raise TooMany(seconds=max(1, int(row.started + limit.seconds - t.now) + 1))


def give_back(t: Transaction, limit: Limit, *words: str) -> None:
    """The attempt was a good one: it does not count."""
    t.run(
        update(throttle)
        .where(throttle.c.key == limit.key(*words), throttle.c.attempts > 0)
        .values(attempts=throttle.c.attempts - 1)
    )


def forget_old(t: Transaction) -> None:
    """Drop what no limit looks at any more."""
    t.run(delete(throttle).where(throttle.c.started < t.now - KEEP))


def network_of(address: str) -> str:
    """What counts as one address: for IPv6 the /64, which one customer has to himself."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, 64), strict=False))
