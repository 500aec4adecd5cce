"""This node's certificate for the mesh: the one from enrolment, and those that the cloud makes in its place in time.

A new one is taken only if it is for this node's id and key, by the CA that was pinned at enrolment, and lasts longer
than the old one; the key stays where it is.
"""

import asyncio
import datetime
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pullprint.base.clock import Clock
from pullprint.base.errors import PullprintError
from pullprint.base.files import replace
from pullprint.mesh.tls import CertificateUnusable
from pullprint.node.client import CloudClient
from pullprint.node.site import Site
from pullprint.wire.node import Certificate, CertificateAsk

LOOK_EVERY = 3_600.0
"""Seconds between two looks at what is left of it."""
RETRY = 60.0
"""Seconds until the cloud is asked again."""
SHARE = 3
"""It is renewed when less than one part of so many of its life is left."""
FILE_LIMIT = 1 << 16

log = logging.getLogger(__name__)


class CertificateRefused(PullprintError):
    """The new certificate that the cloud sent for this host cannot be used: {reason}. The old one stays in use."""

    code = "certificate-refused"


class MeshCertificate:
    """The certificate and its key, on disk."""

    def __init__(self, state_dir: Path, site: Site, clock: Clock) -> None:
        self.key = state_dir / "keys" / "mesh.pem"
        """Its private key, made when this node joined."""
        self._path = state_dir / "mesh-certificate.pem"
        self._site = site
        self._clock = clock

    @property
    def authority(self) -> str:
        """The organisation's CA, PEM."""
        return self._site.membership.authority

    def current(self) -> str:
        """PEM: the renewed one, if it is good. Blocking."""
        first = self._site.membership.certificate
        try:
            with self._path.open(encoding="ascii") as file:
                renewed = file.read(FILE_LIMIT)
            self._check(renewed, "")
        except FileNotFoundError:
            return first
        except (PullprintError, OSError, ValueError) as error:
            log.warning("%s is not used: %s", self._path, error)
            return first
        return renewed

    def due(self, certificate: str) -> bool:
        """Whether *certificate* is to be replaced now."""
        try:
            loaded = x509.load_pem_x509_certificate(certificate.encode())
        except ValueError:
            return True  # none at all
        begin, end = loaded.not_valid_before_utc.timestamp(), loaded.not_valid_after_utc.timestamp()
        return end - self._clock.now() < (end - begin) / SHARE

    async def keep(self, cloud: Callable[[], CloudClient | None], use: Callable[[], Awaitable[None]]) -> None:
        """Renew it in time, until cancelled; *use* takes the new one up."""
        while True:
            pause = LOOK_EVERY
            try:
                current = await asyncio.to_thread(self.current)
                if self.due(current):
                    pause = RETRY
                    client = cloud()
                    if client is not None:
                        await self.renew(client, current)
                        await use()
                        pause = LOOK_EVERY
            except (PullprintError, OSError, ValueError) as error:
                log.warning("the certificate for the mesh is not renewed: %s", error)
            await self._clock.sleep(pause)

    async def renew(self, cloud: CloudClient, current: str) -> None:
        """Get a new one, and keep it. Raises CloudAway, CloudRefused, CertificateRefused, CertificateUnusable."""
        request = await asyncio.to_thread(self._request)
        answer = await cloud.post("/node/v1/certificate", CertificateAsk(csr=request), Certificate)
        await asyncio.to_thread(self._check, answer.certificate, current)
        await asyncio.to_thread(replace, self._path, answer.certificate.encode())
        log.info("the certificate for the mesh is renewed")

    def _request(self) -> str:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._site.membership.node)])
        request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(self._private(), hashes.SHA256())
        return request.public_bytes(serialization.Encoding.PEM).decode()

    def _private(self) -> ec.EllipticCurvePrivateKey:
        try:
            key = serialization.load_pem_private_key(self.key.read_bytes(), None)
        except (OSError, ValueError) as error:
            raise CertificateUnusable(reason="its key cannot be read") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise CertificateUnusable(reason="its key is not one of ours")
        return key

    def _check(self, certificate: str, before: str) -> None:
        """Blocking. Raises CertificateRefused, CertificateUnusable."""
        try:
            new = x509.load_pem_x509_certificate(certificate.encode("ascii"))
            authority = x509.load_pem_x509_certificate(self.authority.encode("ascii"))
            new.verify_directly_issued_by(authority)
            names = new.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as error:
            raise CertificateRefused(reason="it is not by the organisation's CA, or damaged") from error
        if list(names) != [x509.DNSName(self._site.membership.node)]:
            raise CertificateRefused(reason="it is for another host")
        if _spki(new.public_key()) != _spki(self._private().public_key()):
            raise CertificateRefused(reason="it is for another key")
        now = datetime.datetime.fromtimestamp(self._clock.now(), datetime.UTC)
        if new.not_valid_after_utc <= now or not new.not_valid_after_utc > _end(before):
            raise CertificateRefused(reason="it does not last longer than the old one")


def _spki(key: object) -> bytes:
    public: bytes = key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return public


def _end(certificate: str) -> datetime.datetime:
    try:
        return x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc
    except ValueError:
        return datetime.datetime.min.replace(tzinfo=datetime.UTC)
