"""A node's side of the device flow: what it believes of its cloud, how often it asks, and when it gives up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.node.host import ORGANISATION, SITE, Organisation

from pullprint.base.clock import ManualClock
from pullprint.base.errors import NotFound, PullprintError
from pullprint.node.client import CloudAway, CloudRefused
from pullprint.node.logins import Logins, NoAccount
from pullprint.node.site import Membership, Site
from pullprint.wire.node import AccountStatement, LoginOffer, Token, TokenAsk, sign_account
from pullprint.wire.types import Message

NODE = "0" * 32
ADA = "ada@example.com"
Reply = Token | PullprintError


def refused(code: str) -> CloudRefused:
    return CloudRefused(400, code, "A sentence.")


class Cloud:
    """The client and the channel of a node, whose cloud answers as it is told; the last reply is repeated."""

    host = "cloud.example.com"

    def __init__(self, clock: ManualClock, site: Site, organisation: Organisation) -> None:
        self.clock, self.site, self.organisation = clock, site, organisation
        self.replies: list[Reply] = [refused("authorization_pending")]
        self.offered = 0
        self.polled: list[float] = []
        self.withdrawn: list[str] = []
        self.accounts: dict[str, str] = {}
        self.expires_in, self.interval = 600, 3
        self.away: CloudAway | None = None
        self.polled_at_most = 1_000

    async def post(self, path: str, message: Message, answer: type[Message]) -> Message:
        if self.away:
            raise self.away
        if path == "/node/v1/logins":
            self.offered += 1
            uri = "https://print.example.com/login"
            return LoginOffer(
                device_code=f"device-{self.offered}", user_code="7KQ2-M9XD", verification_uri=uri,
                verification_uri_complete=uri, expires_in=self.expires_in, interval=self.interval,
            )  # fmt: skip
        assert path == "/node/v1/logins/token" and isinstance(message, TokenAsk)
        self.polled.append(self.clock.now())
        if len(self.polled) > self.polled_at_most:
            await asyncio.Event().wait()
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Token):
            return reply
        raise reply

    async def tell(self, path: str, message: Message) -> None:
        assert path == "/node/v1/logins/withdraw" and isinstance(message, TokenAsk)
        self.withdrawn.append(message.device_code)

    async def configure(self) -> None:
        await self.site.accept(self.organisation.config(NODE, {}, revision=2, accounts=self.accounts))

    def token(self, key: bytes = b"", user: str = ADA, says: str = ADA, **claims: Any) -> Token:
        values = {"iss": ORGANISATION, "aud": NODE, "iat": int(self.clock.now()), "account": "ada", "user": says}
        statement = sign_account(AccountStatement(**{**values, **claims}), key or self.organisation.key)
        return Token(access_token=statement, user=user)


@pytest.fixture
async def cloud(tmp_path: Path) -> Cloud:
    organisation, clock = Organisation(), ManualClock()
    site = Site(tmp_path, clock)
    membership = Membership("https://cloud.example.com", "", NODE, ORGANISATION, SITE, organisation.pin.hex(), "", "")
    await site.join(membership)
    await site.accept(organisation.config(NODE, {}, revision=1))
    return Cloud(clock, site, organisation)


@asynccontextmanager
async def running(cloud: Cloud) -> AsyncIterator[Logins]:
    logins = Logins(cloud, cloud, cloud.site, cloud.clock)  # type: ignore[arg-type]
    task = asyncio.create_task(logins.run())
    await asyncio.sleep(0)
    try:
        yield logins
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ended(cloud: Cloud, *replies: Reply) -> tuple[str, str]:
    """State and user at the end of a login that the cloud answers with *replies*."""
    cloud.replies = list(replies)
    async with running(cloud) as logins:
        await logins.begin("ada")
        async with asyncio.timeout(10):
            while (view := await logins.look("ada", 0)).state == "pending":
                await asyncio.sleep(0.005)
        return view.state, view.user


async def test_allowed_login_ends_with_the_user_and_the_new_configuration(cloud: Cloud) -> None:
    cloud.accounts = {"ada": ADA}
    start = cloud.clock.now()
    token = cloud.token(iat=int(start) + 6)
    assert await ended(cloud, refused("authorization_pending"), token) == ("allowed", ADA)
    assert [at - start for at in cloud.polled] == [3, 6]
    assert cloud.site.user_of("ada") == ADA


FORGERIES: dict[str, Callable[[Cloud], Token]] = {
    "another key": lambda c: c.token(Ed25519PrivateKey.generate().private_bytes_raw()),
    "another account": lambda c: c.token(account="root"),
    "another node": lambda c: c.token(aud="1" * 32),
    "another organisation": lambda c: c.token(iss="globex"),
    "another user beside it": lambda c: c.token(user="eve@example.com"),
    "an old one": lambda c: c.token(iat=int(c.clock.now()) - 3_600),
    "no statement": lambda c: Token(access_token="x.y.z", user=ADA),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_statement_that_the_organisation_did_not_sign_for_this_is_not_believed(
    cloud: Cloud, forgery: str
) -> None:
    assert await ended(cloud, FORGERIES[forgery](cloud)) == ("expired", "")


async def test_denied_and_expired_logins_end(cloud: Cloud) -> None:
    assert await ended(cloud, refused("access_denied")) == ("denied", "")
    assert await ended(cloud, refused("expired_token")) == ("expired", "")


async def test_slow_down_is_obeyed_and_a_cloud_that_is_away_is_asked_less_often(cloud: Cloud) -> None:
    start, away = cloud.clock.now(), CloudAway(cloud="c", reason="r")
    busy = CloudRefused(503, "store-busy", "A sentence.")
    state, _ = await ended(cloud, refused("slow_down"), away, busy, away, refused("access_denied"))
    assert state == "denied"
    assert [at - start for at in cloud.polled] == [3, 3 + 8, 3 + 8 + 16, 27 + 30, 57 + 30]


async def test_login_that_nobody_answers_ends_by_the_nodes_own_clock(cloud: Cloud) -> None:
    start = cloud.clock.now()
    assert await ended(cloud, CloudAway(cloud="c", reason="r")) == ("expired", "")
    assert 600 <= cloud.clock.now() - start <= 640


async def test_token_that_was_lost_on_its_way_is_found_in_the_configuration(cloud: Cloud) -> None:
    cloud.accounts = {"ada": ADA}
    assert await ended(cloud, CloudAway(cloud="c", reason="r"), refused("invalid_grant")) == ("allowed", ADA)
    cloud.accounts = {"other": ADA}
    assert await ended(cloud, refused("invalid_grant")) == ("expired", "")


async def test_cloud_that_wants_to_be_asked_all_the_time_is_asked_once_a_second(cloud: Cloud) -> None:
    cloud.interval, cloud.expires_in = 0, 100
    start = cloud.clock.now()
    await ended(cloud, refused("authorization_pending"), refused("authorization_pending"), refused("access_denied"))
    assert [at - start for at in cloud.polled] == [1, 2, 3]


@pytest.mark.parametrize("account", ["", "a\nb", "a\x1b[31m", "a\0", "\u202eada", "-rf", "a" * 65])
async def test_account_without_a_proper_name_is_refused_before_the_cloud_hears_of_it(
    cloud: Cloud, account: str
) -> None:
    async with running(cloud) as logins:
        with pytest.raises(NoAccount):
            await logins.begin(account)
        with pytest.raises(NotFound):
            await logins.look(account, 0)
    assert cloud.offered == 0


async def test_withdrawn_login_is_void_here_and_at_the_cloud(cloud: Cloud) -> None:
    async with running(cloud) as logins:
        with pytest.raises(NotFound):
            await logins.withdraw("ada")
        await logins.begin("ada")
        assert (await logins.withdraw("ada")).state == "expired"
        assert cloud.withdrawn == ["device-1"]
        assert (await logins.begin("ada")).state == "pending" and cloud.offered == 2


async def test_away_from_the_cloud_nothing_begins(cloud: Cloud) -> None:
    cloud.away = CloudAway(cloud="c", reason="no connection")
    async with running(cloud) as logins:
        with pytest.raises(CloudAway, match="no connection"):
            await logins.begin("ada")
        with pytest.raises(NotFound):
            await logins.look("ada", 0)
        cloud.away = None
        assert (await logins.begin("ada")).state == "pending"


async def test_an_account_has_one_code_until_it_is_about_to_end(cloud: Cloud) -> None:
    cloud.polled_at_most = 0  # it is silent, and time stands still
    async with running(cloud) as logins:
        first, second = await asyncio.gather(logins.begin("ada"), logins.begin("ada"))
        assert cloud.offered == 1 and first.user_code == second.user_code
        await logins.begin("bob")
        assert cloud.offered == 2
        cloud.clock.advance(545)
        assert 0 < (await logins.look("ada", 0)).expires_in < 60
        assert (await logins.begin("ada")).expires_in == 600 and cloud.offered == 3
