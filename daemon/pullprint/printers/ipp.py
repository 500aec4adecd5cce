"""Small questions to an IPP printer: one request, one bounded answer.

pyipp puts requests together and takes answers apart. Its client is not used: it reads answers without a
limit, follows redirects, and its parser raises on enum values that it has not heard of and never returns on a
negative length. So the octets are walked once before it sees them.
"""

import asyncio
import hashlib
import re
import ssl
import struct
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from pyipp.enums import IppOperation
from pyipp.exceptions import IPPError
from pyipp.parser import parse
from pyipp.serializer import encode_dict
from yarl import URL

from pullprint.base.errors import PullprintError
from pullprint.base.text import printable
from pullprint.model.uri import PrinterUri

ANSWER_LIMIT = 1 << 20
"""Octets of an answer; a Get-Printer-Attributes of a large device has about 60 KiB."""
ANSWER_SECONDS = 8.0
CONNECT_SECONDS = 4.0
NESTING_LIMIT = 16
USER = "pullprint"
"""requesting-user-name, the same one that the backend is given: many printers show jobs to their owner only.
"""

_ENUM, _INTEGER, _BEGIN, _END_COLLECTION, _DATE = 0x23, 0x21, 0x34, 0x37, 0x31
_FIXED = {0x21: 4, 0x22: 1, 0x23: 4, 0x31: 11, 0x32: 9, 0x33: 8}


class NoAnswer(PullprintError):
    """The printer at {host} did not say how it is: {reason}. Your document is still held."""

    code = "printer-no-answer"
    http_status = 502


class NotReached(NoAnswer):
    """The printer at {host} does not answer: it is switched off, asleep or not on the network. Your document is still
    held."""

    code = "printer-not-reached"


class Answer:
    """The parts of an IPP answer that are ever needed."""

    def __init__(self, parsed: Mapping[str, Any]) -> None:
        self.status: int = int(parsed["status-code"]) & 0xFFFF
        self.jobs: list[Mapping[str, Any]] = [group for group in parsed["jobs"] if isinstance(group, dict)]
        self.printers: list[Mapping[str, Any]] = [group for group in parsed["printers"] if isinstance(group, dict)]

    @property
    def ok(self) -> bool:
        """successful-ok and its relatives (RFC 8011 appendix B.1.2)."""
        return self.status < 0x0100


class IppClient:
    """A connection to one ipp or ipps printer, for as long as its ``async with``."""

    def __init__(self, uri: PrinterUri, trust: Path | None = None) -> None:
        """*trust* is the folder in which the ipps backend keeps the certificates that it saw first."""
        self._uri = uri
        self._trust = trust
        self._session: aiohttp.ClientSession | None = None
        self._ssl: aiohttp.Fingerprint | bool = False

    async def __aenter__(self) -> Self:
        if self._uri.scheme == "ipps" and self._trust is not None:
            self._ssl = await asyncio.to_thread(_pinned, self._trust, self._uri.host)
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            if self._uri.scheme == "ipps":
                await asyncio.sleep(0)  # aiohttp closes TLS transports one turn later

    async def ask(self, operation: IppOperation, attributes: Mapping[str, Any]) -> Answer:
        """One request with *attributes* in its operation group; raises NoAnswer."""
        if self._session is None:
            raise RuntimeError("IppClient is used outside of its async with")
        message = {
            "version": (2, 0) if dict(self._uri.query).get("version", "2").startswith("2") else (1, 1),
            "operation": operation,
            "operation-attributes-tag": {
                "attributes-charset": "utf-8",
                "attributes-natural-language": "en",
                "printer-uri": self._uri.raw.partition("?")[0],
                **attributes,
            },
        }
        try:
            async with self._session.post(
                _url(self._uri),
                data=encode_dict(message),
                headers={"Content-Type": "application/ipp"},
                ssl=self._ssl,
                allow_redirects=False,
            ) as response:
                if response.status != 200:
                    raise NoAnswer(host=self._uri.host, reason=f"HTTP status {response.status}")
                body = await _bounded(response)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise NotReached(host=self._uri.host) from error
        return read_answer(body, self._uri.host)


def read_answer(body: bytes, host: str) -> Answer:
    """*body* taken apart; raises NoAnswer for anything that is not a whole IPP answer."""
    try:
        return Answer(parse(_walked(body)))
    except (
        IPPError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        OverflowError,
        struct.error,
        RecursionError,
    ) as error:
        raise NoAnswer(host=host, reason="it does not speak IPP properly") from error


def text(group: Mapping[str, Any], name: str, limit: int = 200) -> str:
    """A value as one clean line; empty when it is absent."""
    value = group.get(name)
    return "" if value is None else printable(str(value[0] if isinstance(value, list) and value else value), limit)


def words(group: Mapping[str, Any], name: str, count: int = 512) -> tuple[str, ...]:
    """All values of a 1setOf keyword, mimeMediaType or name."""
    value = group.get(name)
    values = value if isinstance(value, list) else [value] if value is not None else []
    return tuple(printable(item, 255) for item in values[:count] if isinstance(item, str) and item)


def number(group: Mapping[str, Any], name: str) -> int | None:
    """An integer or enum; None when it is absent or something else."""
    value = group.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _url(uri: PrinterUri) -> URL:
    return URL.build(
        scheme="https" if uri.scheme == "ipps" else "http",
        host=uri.host,
        port=uri.port,
        path=uri.path,
        encoded=False,
    )


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(65_536):
        body += chunk
        if len(body) > ANSWER_LIMIT:
            raise ValueError("too long")
    return bytes(body)


def _walked(body: bytes) -> bytes:
    """*body* up to its end tag, its lengths checked (RFC 8010 3.1); enums become integers, dates octet
    strings.
    """
    data = bytearray(body)
    position, depth = 8, 0
    while (tag := data[position]) != 0x03:
        if tag < 0x10:
            if tag == 0 or depth:
                raise ValueError("group tag out of place")
            if tag not in {1, 2, 4, 5}:
                raise ValueError("group that nobody asked for")
            position += 1
            if data[position] < 0x10:
                position = _empty_group(data, position)
            continue
        name, value_at = _length(data, position + 1)
        value, end = _length(data, value_at + name)
        if tag in _FIXED and value != _FIXED[tag]:
            raise ValueError("value of the wrong size")
        depth += (tag == _BEGIN) - (tag == _END_COLLECTION)
        if not 0 <= depth <= NESTING_LIMIT:
            raise ValueError("collections out of balance")
        if tag == _ENUM:
            data[position] = _INTEGER
        elif tag == _DATE:
            data[position] = 0x30
        position = end + value
    if depth:
        raise ValueError("collection without an end")
    return bytes(data[: position + 1])


def _empty_group(data: bytearray, position: int) -> int:
    # pyipp takes the octet after a group tag for an attribute; the standard allows groups with none.
    del data[position - 1]
    return position - 1


def _length(data: bytearray, at: int) -> tuple[int, int]:
    (length,) = struct.unpack_from(">H", data, at)
    if length > 0x7FFF or at + 2 + length > len(data):
        raise ValueError("length out of range")
    return length, at + 2


def _pinned(trust: Path, host: str) -> aiohttp.Fingerprint | bool:
    # cups/tls-gnutls.c, http_gnutls_default_path and http_gnutls_make_path.
    file = trust / ".cups" / "ssl" / (re.sub(r"[^A-Za-z0-9.-]", "_", host) + ".crt")
    try:
        with file.open("r", encoding="ascii") as stream:
            pem = stream.read(65_536).partition("-----END CERTIFICATE-----")
        return aiohttp.Fingerprint(hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem[0] + pem[1])).digest())
    except (OSError, ValueError):
        return False
