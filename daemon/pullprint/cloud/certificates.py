"""Certificate files: those of the private CA, those that an administrator brings, and the server that notices new ones.

Whoever has ca.key can pretend to be this server, so it stays root's; the server's account reads server.key alone.
"""

import asyncio
import datetime
import ipaddress
import logging
import secrets
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from pullprint.base import files
from pullprint.base.clock import Clock
from pullprint.base.errors import ConfigError, PullprintError
from pullprint.cloud import tls
from pullprint.cloud.config import Settings

RENEW_DAYS = 30
"""Days before its end at which a certificate of the private CA is renewed."""
WARN_DAYS = 21
"""Days before its end at which the server complains of a certificate that nobody has renewed."""
LOOK_EVERY = 60.0
"""Seconds between two looks at the server's own files."""
FILE_LIMIT = 1 << 20

_DAY = 86_400.0
_HALF = (
    "{there} is there without {missing}, and what trusts this CA would not trust a new one. Put {missing} back, or "
    "move {there} away"
)
_log = logging.getLogger(__name__)


class CertificateRefused(PullprintError):
    """The certificate {path} cannot be used: {reason}. Nothing was changed."""

    code = "certificate-refused"


@dataclass(frozen=True, slots=True)
class File:
    """A file to be written."""

    path: Path
    data: bytes
    mode: int
    shared: bool = False
    """The group of the server's account may read it, too."""


def write(made: Iterable[File], group: int = -1) -> None:
    """Write them all; *group* gets the shared ones. Raises ConfigError."""
    for file in made:
        shared = file.shared and group != -1
        try:
            files.replace(file.path, file.data, file.mode | (0o040 if shared else 0), group if shared else -1)
        except OSError as error:
            raise ConfigError(path=file.path, reason=error.strerror or "it cannot be written") from error


def private(folder: Path, hosts: Sequence[str], now: float) -> list[File]:
    """A new server certificate for *hosts* by the folder's CA, or a new one. Raises BadRequest, CertificateRefused."""
    certificate, key = folder / "ca.pem", folder / "ca.key"
    for there, missing in ((certificate, key), (key, certificate)):
        if there.exists() and not missing.exists():
            raise CertificateRefused(path=certificate, reason=_HALF.format(there=there.name, missing=missing.name))
    authority = _authority(folder)
    made = []
    if authority is None:
        authority = tls.new_authority(f"Pullprint CA {secrets.token_hex(4)}", now)
        made = [
            File(key, authority.key.encode(), 0o600),
            File(certificate, authority.certificate.encode(), 0o644),
        ]
    try:
        server = tls.new_server(authority, hosts, now)
    except ValueError as error:
        raise CertificateRefused(path=certificate, reason="the CA that is there cannot be read") from error
    return [*made, *_server_files(folder, server.certificate.encode(), server.key.encode())]


def brought(folder: Path, certificate: Path, key: Path, host: str, now: float) -> list[File]:
    """Copies of an administrator's certificate and key, which fit each other and *host*. Raises CertificateRefused."""
    chain, secret = _read(certificate), _read(key)
    _check(certificate, chain, key, secret, host, now)
    return _server_files(folder, chain, secret)


def is_ours(folder: Path) -> bool:
    """Whether the folder's server certificate is one by the CA that is there, with its key."""
    return _ours(folder) is not None


def trust(settings: Settings) -> str:
    """What a host has to add to `pullprint join` to trust this server; empty where it does so anyway, or that cannot be
    known. The CA's key need not be there any more."""
    if settings.proxy:
        return ""
    try:
        private_ca = _issued(settings.certificate.parent) is not None
    except CertificateRefused:
        return ""
    if not private_ca:
        return ""
    authority = settings.certificate.parent / "ca.pem"
    return f" --ca ca.pem\nwith a copy of {authority} (not of ca.key), which browsers have to trust, too."


def serves(folder: Path, host: str, now: float) -> bool:
    """Whether the certificate and key that are in the folder fit each other and *host*, for some time yet."""
    certificate, key = folder / "server.pem", folder / "server.key"
    try:
        _check(certificate, _read(certificate), key, _read(key), host, now + RENEW_DAYS * _DAY)
    except CertificateRefused:
        return False
    return True


def renewal(folder: Path, now: float) -> list[File]:
    """What replaces a certificate by the folder's own CA that has less than `RENEW_DAYS` left; otherwise nothing.

    Raises CertificateRefused.
    """
    server = _ours(folder)
    if server is None or _left(server, now) >= RENEW_DAYS * _DAY:
        return []
    return private(folder, _names(server), now)


def fits(certificate: x509.Certificate, host: str) -> bool:
    """Whether one of its names is *host*: a name, a wildcard for its first label, or an address."""
    lowered = host.lower().rstrip(".")
    parent = lowered.partition(".")[2]
    return any(name in (lowered, f"*.{parent}" if parent else lowered) for name in _names(certificate))


async def watch(settings: Settings, context: ssl.SSLContext, clock: Clock) -> None:
    """Until cancelled: take up a certificate that has been replaced, and complain of one that runs out."""
    loaded = await asyncio.to_thread(_stamp, settings)
    complained = -_DAY
    while True:
        try:
            stamp = await asyncio.to_thread(_stamp, settings)
            if stamp != loaded:
                # First where it harms nothing: half of a new pair would spoil the context that is in use.
                await asyncio.to_thread(tls.server_context, settings.certificate, settings.key)
                await asyncio.to_thread(context.load_cert_chain, settings.certificate, settings.key)
                loaded = stamp
                _log.info("%s has been replaced, and is in use", settings.certificate)
            if clock.monotonic() - complained >= _DAY:
                complained = clock.monotonic()
                await asyncio.to_thread(_complain, settings.certificate, clock.now())
        except PullprintError as error:
            _log.warning("%s The certificate of before stays in use.", error.sentence)
        except OSError as error:
            _log.warning("%s cannot be read: %s", settings.certificate, error.strerror)
        await clock.sleep(LOOK_EVERY)


def _complain(path: Path, now: float) -> None:
    certificate = _load(path, _read(path))[0]
    left = _left(certificate, now)
    lifetime = (certificate.not_valid_after_utc - certificate.not_valid_before_utc).total_seconds()
    if left < min(WARN_DAYS * _DAY, lifetime / 4):
        _log.warning("%s ends in %d days: renew it, or nobody can reach this server then", path, max(0, left // _DAY))


def _stamp(settings: Settings) -> tuple[tuple[int, int], ...]:
    stats = [path.stat() for path in (settings.certificate, settings.key)]
    return tuple((stat.st_ino, stat.st_mtime_ns) for stat in stats)


def _server_files(folder: Path, certificate: bytes, key: bytes) -> list[File]:
    return [
        File(folder / "server.key", key, 0o600, shared=True),
        File(folder / "server.pem", certificate, 0o644),
    ]


def _authority(folder: Path) -> tls.Pair | None:
    certificate, key = folder / "ca.pem", folder / "ca.key"
    if not (certificate.exists() and key.exists()):
        return None
    return tls.Pair(_read(certificate).decode("utf-8", "replace"), _read(key).decode("utf-8", "replace"))


def _ours(folder: Path) -> x509.Certificate | None:
    """The folder's server certificate, if its CA is there with its key."""
    return _issued(folder) if (folder / "ca.key").exists() else None


def _issued(folder: Path) -> x509.Certificate | None:
    """The folder's server certificate, if it is by the CA that is there. Raises CertificateRefused."""
    certificate, authority = folder / "server.pem", folder / "ca.pem"
    if not (certificate.exists() and authority.exists()):
        return None
    server = _load(certificate, _read(certificate))[0]
    try:
        server.verify_directly_issued_by(_load(authority, _read(authority))[0])
    except (ValueError, TypeError, InvalidSignature):
        return None
    return server


def _check(path: Path, chain: bytes, key_path: Path, secret: bytes, host: str, now: float) -> None:
    certificate = _load(path, chain)[0]
    if _spki(certificate.public_key()) != _spki(_public(key_path, secret)):
        raise CertificateRefused(
            path=path, reason=f"{key_path} is not its key, or the server's own certificate is not the first in the file"
        )
    if _left(certificate, now) <= 0:
        raise CertificateRefused(path=path, reason=f"it ended on {certificate.not_valid_after_utc:%Y-%m-%d}")
    if now < certificate.not_valid_before_utc.timestamp():
        raise CertificateRefused(path=path, reason=f"it begins on {certificate.not_valid_before_utc:%Y-%m-%d} only")
    if not fits(certificate, host):
        names = ", ".join(_names(certificate)) or "no name at all"
        raise CertificateRefused(path=path, reason=f"it is for {names}, and not for {host}")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, key_path)
    except ssl.SSLError as error:
        raise CertificateRefused(path=path, reason=f"TLS does not take it ({error.reason})") from error


def _load(path: Path, data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise CertificateRefused(path=path, reason="it is not a certificate in PEM") from error


def _public(path: Path, data: bytes) -> PublicKeyTypes:
    try:
        return serialization.load_pem_private_key(data, password=None).public_key()
    except TypeError as error:
        raise CertificateRefused(path=path, reason="the key has a passphrase, which nobody could type") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateRefused(path=path, reason="it is not a private key in PEM") from error


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _left(certificate: x509.Certificate, now: float) -> float:
    """Seconds."""
    return (certificate.not_valid_after_utc - datetime.datetime.fromtimestamp(now, datetime.UTC)).total_seconds()


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    hosts = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
    return hosts + [str(ipaddress.ip_address(str(name))) for name in names.get_values_for_type(x509.IPAddress)]


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise CertificateRefused(path=path, reason=error.strerror or "it cannot be read") from error
    if len(data) > FILE_LIMIT:
        raise CertificateRefused(path=path, reason="it is larger than 1 MiB")
    return data
