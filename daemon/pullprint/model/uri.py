"""Printer URIs: which ones are accepted, and why others are not. Syntax only; names are resolved in
``printers``.

A printer's URI decides to which machine a decrypted document is sent, and CUPS's backends take orders from
its query. So this is a list of what is allowed. The path is compared after decoding, because the backends
decode it *before* they look for ``?`` (cups/http-support.c, httpSeparateURI with HTTP_URI_CODING_ALL):
``%3F`` would smuggle a query in, and ``%0A`` a command into the LPD protocol.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import quote, unquote_to_bytes

from pullprint.base.errors import PullprintError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

URI_LIMIT = 1023
"""Octets; RFC 8011 5.1.6 and CUPS's HTTP_MAX_URI."""

DEFAULT_PORTS = {"ipp": 631, "ipps": 631, "socket": 9100, "lpd": 515}

_ON_OFF = frozenset({"on", "off", "yes", "no", "true", "false"})
_IPP_QUERY = {"version": frozenset({"1.0", "1.1", "2.0", "2.1", "2.2"})}
# What a backend may be told by a URI. Left out on purpose: `encryption` (ipps is the way to say it), `contimeout`,
# `waitjob` and `snmp` (delivery decides on them).
ALLOWED_QUERY: dict[str, dict[str, frozenset[str]]] = {
    "ipp": _IPP_QUERY,
    "ipps": _IPP_QUERY,
    "socket": {"waiteof": _ON_OFF},
    "lpd": {
        "banner": _ON_OFF,
        "format": frozenset("cdfglnoprtv"),
        "mode": frozenset({"standard", "stream"}),
        "order": frozenset({"control,data", "data,control"}),
        "reserve": frozenset({"none", "any", "rfc1179"}),
    },
}

_SYNTAX = re.compile(
    r"(?P<scheme>[a-z]+)://(?P<host>\[[^\]]*\]|[^/?:\[\]]*)(?::(?P<port>[0-9]{1,5}))?(?P<rest>[/?].*)?"
)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PATH = re.compile(r"/[A-Za-z0-9 ._~/:@,()-]*")
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class BadUri(PullprintError):
    """This printer address cannot be used: {reason}. Write it like ipp://printer.example/ipp/print; nothing
    was sent.
    """

    code = "bad-uri"
    http_status = 400


@dataclass(frozen=True, slots=True)
class PrinterUri:
    """A printer's address that passed `check_uri`."""

    scheme: str
    """ipp, ipps, socket or lpd."""
    host: str
    """Lower-case name, or an address without brackets."""
    port: int
    """1 to 65535, the scheme's own when none was given."""
    path: str
    """Decoded; begins with a slash. The resource of ipp, the queue of lpd, ``/`` for socket."""
    query: tuple[tuple[str, str], ...]
    raw: str
    """The whole URI in its normal form; what ``str()`` gives."""

    def __str__(self) -> str:
        return self.raw

    @property
    def address(self) -> Address | None:
        """The host as an address; None when it is a name."""
        return _literal(self.host)

    def with_host(self, host: str) -> "PrinterUri":
        """The same printer under another name or address."""
        return _normal(replace(self, host=host))

    def with_query(self, *options: tuple[str, str]) -> str:
        """The URI as text with *options* after its own query, for a backend's ``DEVICE_URI``."""
        return _text(self.scheme, self.host, self.port, self.path, (*self.query, *options))


def check_uri(uri: str, networks: Sequence[Network] | None = None) -> PrinterUri:
    """*uri* taken apart, if it is one that documents may be sent to; raises BadUri.

    With *networks*, a host given as an address must be inside one of them; names are left to
    `pullprint.printers.uri.resolve`.
    """
    if len(uri) > URI_LIMIT or len(uri.encode("utf-8", "replace")) > URI_LIMIT:
        raise BadUri(reason=f"it is longer than {URI_LIMIT} bytes")
    if not uri.isascii() or not uri.isprintable() or any(char in uri for char in " \"'\\<>`{}|^#"):
        raise BadUri(reason="it has characters that no URI has; write others as %XX")
    match = _SYNTAX.fullmatch(uri)
    scheme = uri.partition(":")[0].lower()
    if scheme not in DEFAULT_PORTS:
        raise BadUri(reason="it must begin with ipp:, ipps:, socket: or lpd:")
    if "@" in uri.partition("://")[2].partition("/")[0]:
        raise BadUri(reason="names and passwords do not belong in it")
    if match is None or match["scheme"] != scheme:
        raise BadUri(reason=f"it is not of the form {scheme}://host:port/path")
    port = int(match["port"] or DEFAULT_PORTS[scheme])
    if not 1 <= port <= 65_535:
        raise BadUri(reason="its port is not between 1 and 65535")
    host = _host(match["host"])
    path, _, query = (match["rest"] or "/").partition("?")
    result = _normal(PrinterUri(scheme, host, port, _path(scheme, path or "/"), _query(scheme, query), ""))
    if len(result.raw) > URI_LIMIT:
        raise BadUri(reason=f"it is longer than {URI_LIMIT} bytes")
    if networks is not None and (address := result.address) is not None and not within(address, networks):
        raise BadUri(reason="its address is outside the networks of this site")
    return result


def within(address: Address, networks: Sequence[Network]) -> bool:
    """Whether *address* is in one of *networks*; an IPv4 address in IPv6 clothes counts as IPv4."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address.version == network.version and address in network for network in networks)


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _host(text: str) -> str:
    if text.startswith("["):
        address = _literal(text[1:-1])
        if not isinstance(address, IPv6Address) or address.scope_id is not None:
            raise BadUri(reason="what is in [ ] is not a plain IPv6 address")
        return address.compressed
    host = text.lower().removesuffix(".")
    labels = host.split(".")
    # getaddrinfo reads 127.1, 0x7f000001 and 017700000001 as addresses; a name never ends in a number (WHATWG
    # URL).
    if _NUMERIC.fullmatch(labels[-1]):
        if not isinstance(_literal(host), IPv4Address):
            raise BadUri(reason="its host looks like an address but is none")
        return host
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise BadUri(reason="its host is not a name or an address")
    return host


def _path(scheme: str, text: str) -> str:
    decoded = unquote_to_bytes(text)
    if _ESCAPE.search(text) or not decoded.isascii() or not _PATH.fullmatch(path := decoded.decode("ascii")):
        raise BadUri(reason="its path has characters that are not allowed here")
    if ".." in path.split("/"):
        raise BadUri(reason="its path has .. in it")
    if scheme == "socket" and path != "/":
        raise BadUri(reason="socket: has no path")
    if scheme == "lpd" and path == "/":
        raise BadUri(reason="lpd: needs the name of a queue, like lpd://printer.example/lp")
    return path


def _query(scheme: str, text: str) -> tuple[tuple[str, str], ...]:
    options: dict[str, str] = {}
    for part in text.split("&") if text else ():
        name, _, value = part.partition("=")
        if value not in ALLOWED_QUERY[scheme].get(name, ()) or name in options:
            raise BadUri(reason="its options after ? are not among those that are allowed")
        options[name] = value
    return tuple(options.items())


def _normal(uri: PrinterUri) -> PrinterUri:
    return replace(uri, raw=_text(uri.scheme, uri.host, uri.port, uri.path, uri.query))


def _text(scheme: str, host: str, port: int, path: str, query: Sequence[tuple[str, str]]) -> str:
    authority = f"[{host}]" if ":" in host else host
    options = "&".join(f"{name}={value}" for name, value in query)
    return f"{scheme}://{authority}:{port}{quote(path, safe='/:@,()-._~')}{'?' if options else ''}{options}"
