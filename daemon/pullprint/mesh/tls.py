"""Who is at the other end: mutual TLS 1.3 with certificates of the organisation's CA, and of no other.

A certificate's only name is its node's id. That is checked inside the handshake, at both ends, so that no request ever
travels on a connection whose other end is not exactly one node.
"""

import re
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pullprint.base.errors import PullprintError

_NODE = re.compile(r"[0-9a-f]{32}")


class CertificateUnusable(PullprintError):
    """The certificate that shows this host to the others of its site cannot be used: {reason}. Held jobs are safe and
    can be printed from here; the others cannot help until this host has a new one, or joins again."""

    code = "certificate-unusable"


class Credentials:
    """This node's certificate, as contexts for both directions; renewed at run time."""

    def __init__(self, certificate: str, key: Path, authority: str) -> None:
        """*certificate* and *authority* (the organisation's CA) as PEM, *key* a PEM file. Blocking.

        Raises CertificateUnusable.
        """
        self.renew(certificate, key, authority)

    @property
    def server(self) -> ssl.SSLContext:
        """For the next connection that is accepted."""
        return self._server

    @property
    def client(self) -> ssl.SSLContext:
        """For the next connection that is made; its server_hostname is the other node's id."""
        return self._client

    def renew(self, certificate: str, key: Path, authority: str) -> None:
        """Use these from the next handshake on; standing connections stay. Blocking.

        Raises CertificateUnusable, and goes on with the old ones.
        """
        server = _context(ssl.PROTOCOL_TLS_SERVER, certificate, key, authority)
        server.verify_mode = ssl.CERT_REQUIRED
        server.num_tickets = 0  # a resumed session would be as good as a certificate that has expired meanwhile
        client = _context(ssl.PROTOCOL_TLS_CLIENT, certificate, key, authority)
        self._server, self._client = server, client


def node_of(certificate: Mapping[str, Any] | None) -> str:
    """The id of the node whose verified *certificate* (as `ssl` gives it) this is.

    Raises SSLCertVerificationError for one that names anything but one node.
    """
    match (certificate or {}).get("subjectAltName"):
        case (("DNS", str(name)),) if _NODE.fullmatch(name):
            return name
        case _:
            raise ssl.SSLCertVerificationError("the certificate does not name one node")


class _OneNode(ssl.SSLObject):
    def do_handshake(self) -> None:
        super().do_handshake()
        node_of(self.getpeercert())


def _context(protocol: int, certificate: str, key: Path, authority: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.sslobject_class = _OneNode
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_verify_locations(cadata=authority)
        with tempfile.NamedTemporaryFile("w", encoding="ascii", suffix=".pem") as file:  # OpenSSL reads files only
            file.write(certificate)
            file.flush()
            context.load_cert_chain(file.name, key)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = "it does not fit its key, or is damaged"
        if not isinstance(error, ssl.SSLError | ValueError):
            reason = error.strerror or reason
        raise CertificateUnusable(reason=reason) from error
    return context
