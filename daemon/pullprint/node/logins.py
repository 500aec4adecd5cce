"""``pullprint login``: a local account of this host becomes a user, by the device flow (RFC 8628) with the cloud.

The cloud gives a code to show and is asked in the background until somebody has answered on the page. What it then
says counts only with the organisation's signature, and from then on the site's configuration says so, too.
"""

import asyncio
import logging
from dataclasses import dataclass

from pullprint.base.bell import Bell
from pullprint.base.clock import Clock
from pullprint.base.errors import NotFound, PullprintError
from pullprint.model.owner import is_account
from pullprint.node.channel import Channel
from pullprint.node.client import CloudAway, CloudClient, CloudRefused
from pullprint.node.site import Site
from pullprint.wire.jws import StatementRefused
from pullprint.wire.node import LoginAsk, LoginOffer, Token, TokenAsk, verify_account
from pullprint.wire.views import LoginView

log = logging.getLogger(__name__)

SLOWER = 5.0
"""Seconds that are added between two polls when the cloud asks for it (RFC 8628, 3.5)."""
LONGEST = 30.0
"""Seconds between two polls of a cloud that is away."""
ENOUGH = 60.0
"""Seconds in which a person can still answer: a code with less is replaced when the account asks again."""


class NoAccount(PullprintError):
    """Your account on this host has no name that can be bound to a user: letters, digits and . _ - @ only. Nothing was
    changed."""

    code = "no-account"
    http_status = 403


@dataclass
class _Login:
    offer: LoginOffer
    until: float
    """By the monotonic clock."""
    state: str = "pending"
    user: str = ""
    polling: asyncio.Task[None] | None = None


class Logins:
    """The logins of this host's accounts, one of each; `run` polls for them."""

    def __init__(self, client: CloudClient, channel: Channel, site: Site, clock: Clock) -> None:
        self._client = client
        self._channel = channel
        self._site = site
        self._clock = clock
        self._logins: dict[str, _Login] = {}
        self._beginning = asyncio.Lock()
        self._tasks: asyncio.TaskGroup | None = None
        self._changed = Bell()

    async def run(self) -> None:
        """Poll for what is begun, until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            await asyncio.Event().wait()

    async def begin(self, account: str) -> LoginView:
        """A code for *account*; the same while it can still be answered. Raises NoAccount, CloudAway, CloudRefused."""
        if not is_account(account):
            raise NoAccount
        async with self._beginning:
            known = self._logins.get(account)
            if known and known.state == "pending" and known.until - self._clock.monotonic() > ENOUGH:
                return self._view(known)
            if self._tasks is None:
                raise CloudAway(cloud=self._client.host, reason="this host is only just starting")
            offer = await self._client.post("/node/v1/logins", LoginAsk(account=account), LoginOffer)
            self._forget(account)
            begun = self._logins[account] = _Login(offer, self._clock.monotonic() + offer.expires_in)
            begun.polling = self._tasks.create_task(self._poll(account, begun), name="login")
            return self._view(begun)

    async def look(self, account: str, wait: float) -> LoginView:
        """How it stands; as long as it is pending, not before *wait* seconds have passed. Raises NotFound."""
        end = self._clock.monotonic() + wait
        while True:
            ticket = self._changed.ticket
            login = self._logins.get(account)
            if login is None:
                raise NotFound(what="login")
            left = end - self._clock.monotonic()
            if login.state != "pending" or left <= 0:
                return self._view(login)
            await self._changed.wait(ticket, left)

    async def withdraw(self, account: str) -> LoginView:
        """It is not wanted any more: its code is void, here and at the cloud. Raises NotFound, CloudAway."""
        login = self._logins.get(account)
        if login is None:
            raise NotFound(what="login")
        if login.state == "pending":
            self._forget(account)
            self._end(login, "expired")
            await self._client.tell("/node/v1/logins/withdraw", TokenAsk(device_code=login.offer.device_code))
        return self._view(login)

    def _forget(self, account: str) -> None:
        """Drop what was there of *account*, and what ended long ago of others."""
        old = self._logins.pop(account, None)
        if old and old.polling:
            old.polling.cancel()
        now = self._clock.monotonic()
        self._logins = {name: login for name, login in self._logins.items() if login.until > now - ENOUGH}

    async def _poll(self, account: str, login: _Login) -> None:
        """Ask until there is an answer; a task of its own, so nothing may pass but cancellation."""
        interval = max(1.0, login.offer.interval)
        try:
            while login.state == "pending":
                await self._clock.sleep(interval)
                interval = await self._ask(account, login, interval)
                if login.state == "pending" and self._clock.monotonic() >= login.until:
                    self._end(login, "expired")
        except PullprintError as error:
            log.warning("a login came to nothing: %s", error)
            self._end(login, "expired")
        except Exception:
            log.exception("a login failed")
            self._end(login, "expired")

    async def _ask(self, account: str, login: _Login, interval: float) -> float:
        """One poll; the seconds until the next one. Raises StatementRefused."""
        ask = TokenAsk(device_code=login.offer.device_code)
        try:
            token = await self._client.post("/node/v1/logins/token", ask, Token)
        except CloudAway:
            return min(2 * interval, LONGEST)
        except CloudRefused as error:
            return await self._refused(account, login, error, interval)
        user = self._checked(account, token)
        await self._configure()
        self._end(login, "allowed", user)
        return interval

    async def _refused(self, account: str, login: _Login, error: CloudRefused, interval: float) -> float:
        match error.code:
            case "authorization_pending":
                return interval
            case "slow_down":
                return interval + SLOWER
            case "access_denied":
                self._end(login, "denied")
            case "invalid_grant":
                # An answer that was lost on its way is not given again; then the configuration has it.
                await self._configure()
                user = self._site.config.accounts.get(account, "")
                self._end(login, "allowed" if user else "expired", user)
            case "expired_token":
                self._end(login, "expired")
            case _:  # such as a database that is busy
                return min(2 * interval, LONGEST)
        return interval

    def _checked(self, account: str, token: Token) -> str:
        """The user in the signed statement. Raises StatementRefused."""
        member = self._site.membership
        user = verify_account(
            token.access_token, self._site.pin, member.node, member.organisation, account, self._site.cloud_now()
        )
        if user != token.user:
            raise StatementRefused(reason="it names another user")
        return user

    async def _configure(self) -> None:
        """Fetch the configuration, which says the same; if that fails, the inbox will ask for it again."""
        try:
            await self._channel.configure()
        except PullprintError as error:
            log.info("the configuration after a login: %s", error)

    def _end(self, login: _Login, state: str, user: str = "") -> None:
        login.state, login.user = state, user
        self._changed.ring()

    def _view(self, login: _Login) -> LoginView:
        offer = login.offer
        return LoginView(
            user_code=offer.user_code, verification_uri=offer.verification_uri,
            verification_uri_complete=offer.verification_uri_complete,
            expires_in=max(0, int(login.until - self._clock.monotonic())), interval=offer.interval, state=login.state,
            user=login.user,
        )  # fmt: skip
