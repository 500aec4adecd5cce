"""How a node proves itself on every request: HTTP Message Signatures (RFC 9421), one fixed profile.

Covered: ``@method``, ``@target-uri`` without its authority (``@path`` and ``@query``) and ``content-digest``
(RFC 9530, SHA-256 of the body); parameters ``created``, ``nonce``, ``keyid`` (the node id), ``alg="ed25519"`` and
``tag="pullprint"``. The authority is left out because a TLS-terminating proxy may change it; the organisation's
cloud is bound by the key, which was made for it alone at enrolment. A signature is good for `WINDOW` seconds
around the cloud's clock, and its nonce once.
"""

import base64
import binascii
import hashlib
import re
import secrets
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pullprint.base.errors import PullprintError

WINDOW = 300
"""Seconds that a request's ``created`` may differ from the cloud's clock."""

_COVERED = ("@method", "@path", "@query", "content-digest")
_PARAMETERS = re.compile(
    r'pullprint=\("@method" "@path" "@query" "content-digest"\)'
    r';created=(?P<created>[0-9]{1,12});nonce="(?P<nonce>[0-9a-f]{32})"'
    r';keyid="(?P<keyid>[0-9a-f]{32})";alg="ed25519";tag="pullprint"'
)
_SIGNATURE = re.compile(r"pullprint=:(?P<signature>[A-Za-z0-9+/]{86}==):")


class SignatureRefused(PullprintError):
    """The node could not prove itself to the cloud: {reason}. Held jobs are safe; check the node's clock, or join
    again."""

    code = "signature-refused"
    http_status = 401


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request says of its sender; true only after `verify`."""

    node: str
    created: int
    nonce: str
    signature: bytes
    parameters: str


def node_id(public_key: bytes) -> str:
    """The id of the node whose raw Ed25519 public key this is."""
    return hashlib.sha256(public_key).hexdigest()[:32]


def sign(
    key: Ed25519PrivateKey, node: str, method: str, path: str, query: str, body: bytes, now: float
) -> dict[str, str]:
    """The headers that prove a request; *query* without its question mark."""
    parameters = (
        f'("@method" "@path" "@query" "content-digest");created={int(now)};nonce="{secrets.token_hex(16)}"'
        f';keyid="{node}";alg="ed25519";tag="pullprint"'
    )
    digest = _digest(body)
    signature = base64.b64encode(key.sign(_base(method, path, query, digest, parameters))).decode()
    return {
        "Content-Digest": digest,
        "Signature-Input": f"pullprint={parameters}",
        "Signature": f"pullprint=:{signature}:",
    }


def read(signature_input: str, signature: str) -> Claim:
    """What the two headers claim. Raises SignatureRefused for anything but this profile."""
    parameters = _PARAMETERS.fullmatch(signature_input)
    value = _SIGNATURE.fullmatch(signature)
    if not parameters or not value:
        raise SignatureRefused(reason="the request is not signed as this version signs")
    try:
        raw = base64.b64decode(value["signature"], validate=True)
    except binascii.Error as error:
        raise SignatureRefused(reason="the signature is not base64") from error
    return Claim(
        node=parameters["keyid"],
        created=int(parameters["created"]),
        nonce=parameters["nonce"],
        signature=raw,
        parameters=signature_input.removeprefix("pullprint="),
    )


def verify(
    claim: Claim,
    public_key: bytes,
    method: str,
    path: str,
    query: str,
    body: bytes,
    content_digest: str,
    now: float,
) -> None:
    """Check *claim* against the request itself; the nonce's freshness is the caller's part. Raises SignatureRefused."""
    if abs(now - claim.created) > WINDOW:
        raise SignatureRefused(reason="its clock is more than five minutes off")
    if content_digest != _digest(body):
        raise SignatureRefused(reason="the body is not the one that was signed")
    if node_id(public_key) != claim.node:
        raise SignatureRefused(reason="the key is not that node's")
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(
            claim.signature, _base(method, path, query, content_digest, claim.parameters)
        )
    except InvalidSignature as error:
        raise SignatureRefused(reason="the signature is wrong") from error


def _digest(body: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def _base(method: str, path: str, query: str, digest: str, parameters: str) -> bytes:
    values = (method, path, f"?{query}", digest)
    lines = [f'"{name}": {value}' for name, value in zip(_COVERED, values, strict=True)]
    return "\n".join([*lines, f'"@signature-params": {parameters}']).encode()
