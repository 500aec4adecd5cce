"""How a node proves itself: whatever is covered cannot be changed, and the base string is RFC 9421's."""

import base64
import re

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pullprint.wire import signature
from pullprint.wire.signature import WINDOW, SignatureRefused

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
NODE = signature.node_id(PUBLIC)
NOW = 1_780_000_000.5
REQUEST = {"method": "POST", "path": "/node/v1/events", "query": "since=7", "body": b'{"n":1}'}


def headers() -> dict[str, str]:
    return signature.sign(KEY, NODE, now=NOW, **REQUEST)  # type: ignore[arg-type]


def check(sent: dict[str, str], *, now: float = NOW, public: bytes = PUBLIC, **changes: object) -> None:
    claim = signature.read(sent["Signature-Input"], sent["Signature"])
    signature.verify(
        claim,
        public,
        content_digest=sent["Content-Digest"],
        now=now,
        **(REQUEST | changes),  # type: ignore[arg-type]
    )


def test_a_request_as_it_was_sent_is_accepted() -> None:
    check(headers())


def test_the_signature_base_is_the_one_that_rfc_9421_section_2_5_describes() -> None:
    """Put together by hand: one line for each component, in the order of Signature-Input, and no newline at the end."""
    sent = headers()
    nonce = re.search(r'nonce="([0-9a-f]{32})"', sent["Signature-Input"])
    assert nonce
    base = (
        '"@method": POST\n'
        '"@path": /node/v1/events\n'
        '"@query": ?since=7\n'
        '"content-digest": sha-256=:K/0U9D0X/HzqJOCReoh5tLL4gLi67sG52Q+6rWVecb0=:\n'
        '"@signature-params": ("@method" "@path" "@query" "content-digest");created=1780000000;'
        f'nonce="{nonce[1]}";keyid="{NODE}";alg="ed25519";tag="pullprint"'
    )
    raw = base64.b64decode(sent["Signature"].removeprefix("pullprint=:").removesuffix(":"))
    KEY.public_key().verify(raw, base.encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "GET"}, {"method": "post"}, {"path": "/node/v1/release"}, {"path": "/node/v1/events/"}, {"query": ""},
        {"query": "since=8"}, {"query": "since=7&x=1"}, {"body": b""}, {"body": b'{"n":2}'}, {"body": b'{"n":1}\n'},
        {"path": "/node/v1/events?since=7", "query": ""},
        {"path": '/node/v1/events\n"@query": ?since=7', "query": ""},
    ],
)  # fmt: skip
def test_an_altered_component_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(SignatureRefused):
        check(headers(), **changes)


def test_an_altered_parameter_is_refused() -> None:
    for before, after in ((r"created=\d+", "created=1780000001"), (r'nonce="."', ""), (r'nonce="[0-9a-f]', 'nonce="x')):
        sent = headers()
        sent["Signature-Input"] = re.sub(before, after, sent["Signature-Input"]) + ("" if after else " ")
        with pytest.raises(SignatureRefused):
            check(sent)
    sent = headers()
    sent["Signature-Input"] = re.sub(r'nonce="[0-9a-f]{32}"', f'nonce="{"0" * 32}"', sent["Signature-Input"])
    with pytest.raises(SignatureRefused, match="signature is wrong"):
        check(sent)


def test_a_body_with_a_digest_of_its_own_is_refused() -> None:
    sent = headers()
    sent["Content-Digest"] = signature.sign(KEY, NODE, "POST", "/", "", b"evil", NOW)["Content-Digest"]
    with pytest.raises(SignatureRefused):
        check(sent)
    with pytest.raises(SignatureRefused, match="signature is wrong"):
        check(sent, body=b"evil")


def test_another_nodes_key_and_another_nodes_name_are_refused() -> None:
    other = Ed25519PrivateKey.generate()
    with pytest.raises(SignatureRefused, match="not that node's"):
        check(headers(), public=other.public_key().public_bytes_raw())
    forged = signature.sign(other, NODE, now=NOW, **REQUEST)  # type: ignore[arg-type]
    with pytest.raises(SignatureRefused, match="signature is wrong"):
        check(forged)


@pytest.mark.parametrize("off", [-WINDOW - 1, WINDOW + 1.5, 1e9, -1e9])
def test_outside_the_window_of_the_clock_nothing_is_accepted(off: float) -> None:
    with pytest.raises(SignatureRefused, match="clock"):
        check(headers(), now=NOW + off)


@pytest.mark.parametrize("off", [-WINDOW + 1, WINDOW - 1])
def test_inside_the_window_of_the_clock_a_request_is_accepted(off: float) -> None:
    check(headers(), now=NOW + off)


def test_no_two_requests_have_one_nonce() -> None:
    claims = [signature.read(sent["Signature-Input"], sent["Signature"]) for sent in (headers() for _ in range(50))]
    assert len({claim.nonce for claim in claims}) == 50


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("pullprint=(", "sig1=("), ('"@method" ', ""), ("content-digest", "content-type"), ("ed25519", "none"),
        ("ed25519", "hmac-sha256"), ('tag="pullprint"', 'tag="other"'), (";created=", ";expires=1;created="),
        (')"', ')";x="'), ("created=", "created=-"), ("pullprint=", "pullprint=pullprint="),
    ],
)  # fmt: skip
def test_anything_but_this_profile_is_refused(before: str, after: str) -> None:
    sent = headers()
    altered = sent["Signature-Input"].replace(before, after) + ("" if before in sent["Signature-Input"] else "x")
    with pytest.raises(SignatureRefused):
        signature.read(altered, sent["Signature"])
    for twisted in ("", "pullprint=::", "pullprint=:AAAA:", sent["Signature"] + "\n", sent["Signature"][:-3] + ":"):
        with pytest.raises(SignatureRefused):
            signature.read(sent["Signature-Input"], twisted)
