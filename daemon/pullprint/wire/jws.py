"""What the organisation signs and every node checks: JWS (RFC 7515), compact, Ed25519 (RFC 9864)."""

import base64
from collections.abc import Callable
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from joserfc.jws import JWSRegistry

from pullprint.base.errors import PullprintError
from pullprint.wire.types import Message

_ALGORITHM = "Ed25519"
_UNREADABLE = (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""joserfc lets the errors of odd headers through, such as a list where an object belongs."""

Signed = TypeVar("Signed", bound=Message)


class StatementRefused(PullprintError):
    """A statement of the organisation was refused: {reason}. Nothing was done on its word; held jobs are safe."""

    code = "statement-refused"
    http_status = 403


def sign(message: Message, kind: str, key: bytes) -> str:
    """The compact JWS of *message*, typed *kind*; *key* is a raw Ed25519 private key."""
    public = Ed25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()
    jwk = OKPKey.import_key({**_public_members(public), "d": _text(key)})
    return jws.serialize_compact(
        {"alg": _ALGORITHM, "typ": kind}, message.model_dump_json().encode(), jwk, algorithms=[_ALGORITHM]
    )


def verify(token: str, kind: str, message: type[Signed], pin: bytes, limit: int) -> Signed:
    """The *message* in *token*, typed *kind*, of at most *limit* characters, signed by *pin* (raw public key).

    Raises StatementRefused.
    """
    if len(token) > limit:
        raise StatementRefused(reason="it is too large")
    try:
        signed = jws.deserialize_compact(token, OKPKey.import_key(_public_members(pin)), registry=_registry(limit))
        if signed.headers().get("typ") != kind:
            raise StatementRefused(reason="it is of another kind")
        return message.model_validate_json(signed.payload)
    except _UNREADABLE as error:
        raise StatementRefused(reason="its signature or form is wrong") from error


def verify_own(token: str, kind: str, message: type[Signed], key: Callable[[Signed], bytes], limit: int) -> Signed:
    """As `verify`, for what is signed by a *key* that it names itself: whose that is, the caller has to know."""
    if len(token) > limit:
        raise StatementRefused(reason="it is too large")
    try:
        payload = token.split(".")[1]
        claimed = message.model_validate_json(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (*_UNREADABLE, IndexError) as error:
        raise StatementRefused(reason="its signature or form is wrong") from error
    return verify(token, kind, message, key(claimed), limit)


def _registry(limit: int) -> JWSRegistry:
    # joserfc's own limit of 128,000 characters refuses the configuration of a site with some thousand users.
    registry = JWSRegistry(algorithms=[_ALGORITHM])
    registry.max_payload_length = limit
    return registry


def _public_members(raw: bytes) -> dict[str, str | list[str]]:
    return {"kty": "OKP", "crv": "Ed25519", "x": _text(raw)}


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
