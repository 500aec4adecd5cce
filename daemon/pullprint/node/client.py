"""Requests to the cloud: signed, limited, and with errors that a person can read."""

import asyncio
import contextlib
import errno
import ssl
import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import TypeVar

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError
from yarl import URL

from pullprint.base.clock import Clock
from pullprint.base.errors import BadRequest, PullprintError
from pullprint.wire.node import BODY_LIMIT, Failure
from pullprint.wire.signature import WINDOW, SignatureRefused, sign
from pullprint.wire.types import Message

Answer = TypeVar("Answer", bound=Message)

TIMEOUT = 20.0
"""Seconds for a request that does not park."""
LONGEST_RETRY = 120.0
"""Seconds for which a cloud that has too much to do is left alone, at most, whatever it says."""
# OpenSSL's X509_V_ERR_…: what is wrong with a certificate.
_OTHER_TIME = frozenset({9, 10})
_OTHER_NAME = frozenset({62, 64})
_NO_WAY = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})


class CloudAway(PullprintError):
    """The cloud at {cloud} does not answer ({reason}). Held jobs are safe on this host; it is being tried again."""

    code = "cloud-away"
    http_status = 503


class NotOurs(CloudAway):
    """What answers at {cloud} does not speak as Pullprint's cloud does ({reason}). Held jobs are safe on this host; it
    is being tried again."""


class ClockWrong(CloudAway):
    """The clock of this host shows {here}, that of {cloud} {there} (UTC): too far apart for the host to prove itself.
    Set the wrong one, for example with `timedatectl set-ntp true`. Held jobs are safe."""

    code = "clock-wrong"


class CloudRefused(PullprintError):
    """{sentence}"""

    code = "cloud-refused"
    http_status = 409

    def __init__(self, status: int, code: str, sentence: str, retry_after: float = 0.0) -> None:
        super().__init__(sentence=sentence)
        self.status = status
        self.code = code
        self.retry_after = retry_after
        """Seconds for which the cloud wants to be left alone; 0 when it did not say so."""
        self.http_status = status if 400 <= status < 500 else 502


class CloudClient:
    """One node's connection to its cloud; an async context manager."""

    def __init__(self, url: str, authority: str, node: str, key: Ed25519PrivateKey, clock: Clock) -> None:
        """*url* is https and has no path. Raises BadRequest."""
        self._url = check_cloud(url)
        self._node = node
        self._key = key
        self._clock = clock
        try:
            self._tls = ssl.create_default_context(cadata=authority or None)
        except ssl.SSLError as error:
            raise BadRequest(reason="the CA file holds no certificate") from error
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "CloudClient":
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=16, keepalive_timeout=75)
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session:
            await self._session.close()

    @property
    def host(self) -> str:
        """The cloud's name, for sentences."""
        return self._url.host or ""

    async def get(self, path: str, answer: type[Answer], query: str = "", timeout: float = TIMEOUT) -> Answer | None:
        """The *answer* at *path*, or None for 204. Raises CloudAway, CloudRefused."""
        return await self._request("GET", path, query, b"", answer, timeout)

    async def post(self, path: str, message: Message | bytes, answer: type[Answer], timeout: float = TIMEOUT) -> Answer:
        """The *answer* to *message* (as bytes: its JSON). Raises CloudAway, CloudRefused."""
        body = message if isinstance(message, bytes) else message.model_dump_json().encode()
        result = await self._request("POST", path, "", body, answer, timeout)
        if result is None:
            raise CloudAway(cloud=self.host, reason="its answer is empty")
        return result

    async def tell(self, path: str, message: Message) -> None:
        """*message*, to which nothing but 204 is the answer. Raises CloudAway, CloudRefused."""
        if await self._request("POST", path, "", message.model_dump_json().encode(), Message, TIMEOUT) is not None:
            raise CloudAway(cloud=self.host, reason="its answer is not empty")

    @contextlib.asynccontextmanager
    async def stream(self, path: str, idle: float, total: float) -> AsyncIterator[AsyncIterator[bytes]]:
        """What is at *path*, piece by piece, with at most *idle* seconds between two and *total* for all.

        Raises CloudAway, also while the pieces are read and when they end too early, and CloudRefused.
        """
        assert self._session is not None
        headers = sign(self._key, self._node, "GET", path, "", b"", self._clock.now())
        limits = aiohttp.ClientTimeout(total=total, sock_connect=TIMEOUT, sock_read=idle)
        try:
            async with self._session.get(
                self._url.with_path(path), headers=headers, allow_redirects=False, timeout=limits
            ) as response:
                if response.status != 200:
                    raise _refused(response, await _limited(response), self.host)
                yield response.content.iter_any()
        except TimeoutError as error:
            raise CloudAway(cloud=self.host, reason="it is silent") from error
        except aiohttp.ClientError as error:
            raise CloudAway(cloud=self.host, reason=_reason(error)) from error

    async def _request(
        self, method: str, path: str, query: str, body: bytes, answer: type[Answer], timeout: float
    ) -> Answer | None:
        assert self._session is not None
        headers = sign(self._key, self._node, method, path, query, body, self._clock.now())
        if body:
            headers["Content-Type"] = "application/json"
        url = self._url.with_path(path).with_query(query or None)
        try:
            async with (
                asyncio.timeout(timeout),
                self._session.request(
                    method, url, data=body or None, headers=headers, allow_redirects=False
                ) as response,
            ):
                raw = await _limited(response)
                status, there = response.status, _date(response)
        except TimeoutError as error:
            raise CloudAway(cloud=self.host, reason="it is silent") from error
        except (aiohttp.ClientError, OSError) as error:
            raise CloudAway(cloud=self.host, reason=_reason(error)) from error
        if status == 204:
            return None
        if status >= 300:
            here = self._clock.now()
            if status == SignatureRefused.http_status and there is not None and abs(here - there) > WINDOW:
                raise ClockWrong(cloud=self.host, here=_utc(here), there=_utc(there))
            raise _refused(response, raw, self.host)
        try:
            return answer.model_validate_json(raw)
        except ValidationError as error:
            raise _not_ours(status, self.host) from error


def check_cloud(url: str) -> URL:
    """*url* as the address of a cloud: https, a host, perhaps a port, nothing else. Raises BadRequest."""
    try:
        parsed = URL(url if "://" in url else f"https://{url}")
    except ValueError as error:
        raise BadRequest(reason="the cloud's address is not a URL") from error
    if parsed.scheme != "https" or not parsed.host or parsed.user or parsed.password or parsed.path not in ("", "/"):
        raise BadRequest(reason="the cloud's address looks like https://print.example.com")
    return parsed.origin()


def _refused(response: aiohttp.ClientResponse, raw: bytes, host: str) -> PullprintError:
    try:
        failure = Failure.model_validate_json(raw)
    except ValidationError:
        return _not_ours(response.status, host)
    return CloudRefused(response.status, failure.code, failure.sentence, _retry_after(response))


def _retry_after(response: aiohttp.ClientResponse) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), LONGEST_RETRY) if text.isascii() and text.isdigit() and len(text) < 10 else 0.0


def _not_ours(status: int, host: str) -> NotOurs:
    return NotOurs(cloud=host, reason=f"status {status}")


async def _limited(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for piece in response.content.iter_chunked(1 << 16):
        data += piece
        if len(data) > BODY_LIMIT:
            raise aiohttp.ClientPayloadError("too large")
    return bytes(data)


def _date(response: aiohttp.ClientResponse) -> float | None:
    """What the other end's clock shows, in whole seconds, if it says so (RFC 9110, 6.6.1)."""
    try:
        return parsedate_to_datetime(response.headers.get("Date", "")).timestamp()
    except (ValueError, OverflowError):
        return None


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))


def _reason(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return _distrust(error.certificate_error)
        case aiohttp.ClientConnectorDNSError():
            return "its name is not known here; check how it is spelt, and the DNS"
        case aiohttp.ClientConnectorSSLError():
            return "what listens there does not speak TLS as it should; check the port"
        case aiohttp.ClientConnectorError() if error.os_error.errno == errno.ECONNREFUSED:
            return "no connection; nothing listens at that port, or a firewall is in the way"
        case aiohttp.ClientConnectorError() if error.os_error.errno in _NO_WAY:
            return "no connection; this host has no way to it, so check the network"
        case aiohttp.ClientConnectorError():
            return "no connection"
        case aiohttp.ServerDisconnectedError():
            return "it hung up"
        case _:
            return "the connection broke"


def _distrust(error: Exception) -> str:
    code = getattr(error, "verify_code", 0)
    if code in _OTHER_TIME:
        return (
            f"its certificate has expired or is not valid yet by this host's clock, {_utc(time.time())} UTC; check both"
        )
    if code in _OTHER_NAME:
        return "its certificate is for another name; use the name that it was made for"
    return "its certificate is not trusted here; join with --ca FILE, the CA's certificate, if it has a private one"
