"""Certificates: a small private CA, what it issues, and the server's side of TLS."""

import asyncio.sslproto
import datetime
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pullprint.base.errors import BadRequest, ConfigError

AUTHORITY_DAYS = 3_650
SERVER_DAYS = 397  # what browsers accept at most
NODE_DAYS = 90  # nodes renew theirs by themselves
READ_BUFFER = 1 << 14
"""Bytes that each connection has for reading, for as long as it lasts: one TLS record. asyncio's own 256 KiB would be
2.5 GiB for 10,000 nodes that only wait; it reads a large upload in more and smaller pieces for that."""
_BACKDATED = datetime.timedelta(hours=1)  # hosts whose clocks are a little slow


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, PEM."""

    certificate: str
    key: str


def new_authority(name: str, now: float) -> Pair:
    """A CA of its own (ECDSA P-256), which may issue end certificates only."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    certificate = (
        _builder(subject, subject, key.public_key(), now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(_pem(certificate), _key_pem(key))


def new_server(authority: Pair, hosts: Sequence[str], now: float) -> Pair:
    """A server certificate for *hosts* (names and addresses). Raises BadRequest."""
    if not hosts:
        raise BadRequest(reason="a server certificate names at least one host")
    key = ec.generate_private_key(ec.SECP256R1())
    names = [_host(host) for host in hosts]
    certificate = _issue(authority, hosts[0], names, key.public_key(), now, SERVER_DAYS, client=False)
    return Pair(_pem(certificate), _key_pem(key))


def certify_node(authority: Pair, csr: str, node: str, now: float) -> str:
    """The certificate (PEM) for the key in *csr*, which has signed it; the names are ours, not the request's.

    Raises BadRequest.
    """
    try:
        request = x509.load_pem_x509_csr(csr.encode())
        public = request.public_key()
        signed = request.is_signature_valid
    except Exception as error:
        raise BadRequest(reason="the certificate request cannot be read") from error
    if not signed:
        raise BadRequest(reason="the certificate request is not signed with its own key")
    if not isinstance(public, ed25519.Ed25519PublicKey) and not (
        isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1)
    ):
        raise BadRequest(reason="the certificate request's key is neither ECDSA P-256 nor Ed25519")
    return _pem(_issue(authority, node, [x509.DNSName(node)], public, now, NODE_DAYS, client=True))


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 and later with the certificate in these files. Raises ConfigError."""
    asyncio.sslproto.SSLProtocol.max_size = READ_BUFFER  # there is no argument for it
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        reason = error.strerror if isinstance(error, FileNotFoundError | PermissionError) else "it does not fit its key"
        raise ConfigError(path=certificate, reason=reason) from error
    context.set_alpn_protocols(["http/1.1"])
    return context


def _issue(
    authority: Pair,
    name: str,
    names: Sequence[x509.GeneralName],
    public: CertificateIssuerPublicKeyTypes,
    now: float,
    days: int,
    *,
    client: bool,
) -> x509.Certificate:
    issuer = x509.load_pem_x509_certificate(authority.certificate.encode())
    issuer_key = serialization.load_pem_private_key(authority.key.encode(), password=None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, *([ExtendedKeyUsageOID.CLIENT_AUTH] if client else [])]
    return (
        _builder(_name(name), issuer.subject, public, now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, public: CertificateIssuerPublicKeyTypes, now: float, days: int
) -> x509.CertificateBuilder:
    begin = datetime.datetime.fromtimestamp(now, datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - _BACKDATED)
        .not_valid_after(begin + datetime.timedelta(days=days))
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        return x509.DNSName(text.encode("idna").decode())
    except (UnicodeError, ValueError) as error:
        raise BadRequest(reason=f"{text} is neither a host's name nor an address") from error


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
