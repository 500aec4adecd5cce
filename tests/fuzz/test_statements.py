"""What claims to come from the organisation or from a node: refused in one way, or exactly what was signed."""

import base64
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.mutations import mutated_text

from pullprint.model.ticket import Ticket
from pullprint.wire import signature
from pullprint.wire.jws import StatementRefused
from pullprint.wire.node import ACCOUNT_KIND, AccountStatement, sign_account, verify_account
from pullprint.wire.order import KIND, Order, sign_order, verify_order
from pullprint.wire.signature import SignatureRefused

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PIN = KEY.public_key().public_bytes_raw()
NODE = signature.node_id(PIN)
NOW = 1_780_000_000
ORDER = Order(
    jti="order-1", iss="acme", aud=NODE, iat=NOW, exp=NOW + 60, job="a" * 32, printer="p1",
    ticket=Ticket(2, (("sides", "one-sided"),)), ballot=1, by="alice@example.com",
)  # fmt: skip
TOKEN = sign_order(ORDER, KEY.private_bytes_raw())
CLAIMS: dict[str, Any] = json.loads(ORDER.model_dump_json())
BASE64 = "ABCDwxyz0189-_.=+/"

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(header: bytes, payload: bytes) -> str:
    start = f"{encoded(header)}.{encoded(payload)}"
    return f"{start}.{encoded(KEY.sign(start.encode()))}"


def refused_or_order(token: str) -> Order | None:
    try:
        return verify_order(token, PIN, NODE, "acme", NOW)
    except StatementRefused as error:
        assert error.sentence.isprintable()
        return None


@given(st.text(max_size=300) | st.text(BASE64, max_size=300))
def test_random_text_is_no_order(token: str) -> None:
    assert refused_or_order(token) is None


@given(mutated_text(TOKEN, BASE64))
def test_a_broken_order_is_refused(token: str) -> None:
    """Only the unused low bits of the last letter may differ: base64 has them, and they sign nothing."""
    order = refused_or_order(token)
    assert order is None or (order == ORDER and token.rsplit(".", 1)[0] == TOKEN.rsplit(".", 1)[0])


@given(st.binary(max_size=200) | _JSON.map(lambda value: json.dumps(value).encode()), st.binary(max_size=100))
def test_any_header_with_a_good_signature_is_refused(header: bytes, payload: bytes) -> None:
    assert refused_or_order(signed(header, payload)) is None


@given(st.dictionaries(st.sampled_from(["alg", "typ", "crit", "b64", "kid", "jwk", "zip", "x"]), _JSON, max_size=4))
def test_any_field_in_a_header_is_refused_unless_it_means_nothing(fields: dict[str, Any]) -> None:
    header = json.dumps({"alg": "Ed25519", "typ": KIND} | fields).encode()
    order = refused_or_order(signed(header, ORDER.model_dump_json().encode()))
    assert order in (None, ORDER)
    if {"alg", "typ"} & fields.keys() or fields.get("crit"):
        assert order is None


@given(_JSON | st.builds(lambda name, value: CLAIMS | {name: value}, st.sampled_from(sorted(CLAIMS)), _JSON))
def test_any_claims_with_a_good_signature_are_refused_or_an_order_for_here(claims: object) -> None:
    order = refused_or_order(signed(json.dumps({"alg": "Ed25519", "typ": KIND}).encode(), json.dumps(claims).encode()))
    assert order is None or (order.iss, order.aud) == ("acme", NODE)


STATEMENT = AccountStatement(iss="acme", aud=NODE, iat=NOW, account="ada", user="ada@example.com")
ACCOUNT_TOKEN = sign_account(STATEMENT, KEY.private_bytes_raw())


def refused_or_user(token: str) -> str:
    try:
        return verify_account(token, PIN, NODE, "acme", "ada", NOW)
    except StatementRefused as error:
        assert error.sentence.isprintable()
        return ""


@given(mutated_text(ACCOUNT_TOKEN, BASE64))
def test_a_broken_account_statement_is_refused(token: str) -> None:
    user = refused_or_user(token)
    assert not user or (user == STATEMENT.user and token.rsplit(".", 1)[0] == ACCOUNT_TOKEN.rsplit(".", 1)[0])


@given(
    st.builds(
        lambda name, value: json.loads(STATEMENT.model_dump_json()) | {name: value},
        st.sampled_from(["iss", "aud", "iat", "account"]),
        _JSON,
    )
)
def test_an_account_statement_about_anything_else_is_refused(claims: dict[str, Any]) -> None:
    token = signed(json.dumps({"alg": "Ed25519", "typ": ACCOUNT_KIND}).encode(), json.dumps(claims).encode())
    assert refused_or_user(token) == ""


def test_an_order_is_no_account_statement_and_the_other_way_round() -> None:
    assert refused_or_user(ACCOUNT_TOKEN) == STATEMENT.user
    assert refused_or_user(TOKEN) == "" and refused_or_order(ACCOUNT_TOKEN) is None


HEADERS = signature.sign(KEY, NODE, "POST", "/node/v1/events", "", b"{}", NOW)


@given(
    st.text(max_size=200) | mutated_text(HEADERS["Signature-Input"], 'pulrint=("@method;creatd0123')
    | st.just(HEADERS["Signature-Input"]),
    st.text(max_size=200) | mutated_text(HEADERS["Signature"], BASE64 + ":") | st.just(HEADERS["Signature"]),
    st.text(max_size=100) | mutated_text(HEADERS["Content-Digest"], BASE64 + ":") | st.just(HEADERS["Content-Digest"]),
    st.binary(max_size=32),
)  # fmt: skip
def test_any_three_headers_prove_nothing_but_what_was_signed(
    inputs: str, value: str, digest: str, public: bytes
) -> None:
    for key in (PIN, public.ljust(32, b"\0")):
        try:
            claim = signature.read(inputs, value)
            signature.verify(claim, key, "POST", "/node/v1/events", "", b"{}", digest, NOW)
        except SignatureRefused as error:
            assert error.sentence.isprintable()
            continue
        assert (key, inputs, digest) == (PIN, HEADERS["Signature-Input"], HEADERS["Content-Digest"])
