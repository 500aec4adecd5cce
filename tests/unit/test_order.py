"""Orders and configurations: only what the organisation signed, for this node, now, is obeyed."""

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from pullprint.model.ticket import Ticket
from pullprint.wire.jws import StatementRefused
from pullprint.wire.node import CONFIG_KIND, PartyKey, SiteConfig, sign_config, verify_config
from pullprint.wire.order import KIND, LIFETIME, LIMIT, Order, sign_order, verify_order

KEY = bytes(range(32))
PIN = Ed25519PrivateKey.from_private_bytes(KEY).public_key().public_bytes_raw()
NODE = "0" * 31 + "1"
NOW = 1_780_000_000
CLAIMS: dict[str, Any] = {
    "jti": "order-1", "iss": "acme", "aud": NODE, "iat": NOW, "exp": NOW + LIFETIME, "job": "a" * 32, "printer": "p1",
    "ticket": Ticket(2, (("sides", "one-sided"),)), "ballot": 1, "forces": (), "by": "alice@example.com",
}  # fmt: skip


def order(**changes: Any) -> Order:
    return Order(**(CLAIMS | changes))


def check(token: str, *, pin: bytes = PIN, node: str = NODE, organisation: str = "acme", now: float = NOW) -> Order:
    return verify_order(token, pin, node, organisation, now)


def encoded(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(header: object, payload: object, key: bytes = KEY) -> str:
    """A token by hand: whatever stands in its header, its Ed25519 signature is good."""
    start = f"{encoded(header)}.{encoded(payload)}"
    return f"{start}.{encoded(Ed25519PrivateKey.from_private_bytes(key).sign(start.encode()))}"


def payload() -> dict[str, Any]:
    return dict(json.loads(order().model_dump_json()))


def test_an_order_as_it_was_signed_is_obeyed() -> None:
    assert check(sign_order(order(), KEY)) == order()
    assert check(signed({"alg": "Ed25519", "typ": KIND}, payload())) == order()
    assert check(signed({"alg": "Ed25519", "typ": KIND}, payload() | {"from-a-newer-cloud": 1})) == order()


@pytest.mark.parametrize("now", [NOW - LIFETIME - 1, NOW + LIFETIME + 1, 0])
def test_an_order_out_of_time_is_refused(now: float) -> None:
    with pytest.raises(StatementRefused, match="expired"):
        check(sign_order(order(), KEY), now=now)


def test_an_order_that_lives_longer_than_orders_do_is_refused() -> None:
    with pytest.raises(StatementRefused, match="expired"):
        check(sign_order(order(exp=NOW + LIFETIME + 1), KEY))


def test_a_foreign_order_is_refused() -> None:
    token = sign_order(order(), KEY)
    with pytest.raises(StatementRefused, match="another node"):
        check(token, node="0" * 32)
    with pytest.raises(StatementRefused, match="another node"):
        check(token, organisation="evil")
    with pytest.raises(StatementRefused, match="signature"):
        check(token, pin=Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    with pytest.raises(StatementRefused, match="signature"):
        check(sign_order(order(), bytes(32)))


@pytest.mark.parametrize("part", [0, 1, 2])
def test_an_order_with_any_part_altered_is_refused(part: int) -> None:
    parts = sign_order(order(), KEY).split(".")
    for position in (0, len(parts[part]) // 2):
        letter = parts[part][position]
        other = "B" if letter != "B" else "C"
        altered = parts[part][:position] + other + parts[part][position + 1 :]
        with pytest.raises(StatementRefused):
            check(".".join([*parts[:part], altered, *parts[part + 1 :]]))
    forged = [*parts[:1], encoded(payload() | {"by": "mallory"}), parts[2]]
    with pytest.raises(StatementRefused):
        check(".".join(forged))


def test_a_statement_of_another_kind_is_no_order() -> None:
    for header in (
        {"alg": "Ed25519"}, {"alg": "Ed25519", "typ": CONFIG_KIND}, {"alg": "Ed25519", "typ": "JWT"},
        {"alg": "Ed25519", "typ": [KIND]}, {"alg": "Ed25519", "typ": KIND.upper()},
    ):  # fmt: skip
        with pytest.raises(StatementRefused):
            check(signed(header, payload()))


def test_no_algorithm_and_no_other_algorithm_is_accepted() -> None:
    body = encoded(payload())
    for algorithm in ("none", "None", "", "EdDSA", "HS256", "ES256", "RS256", "ed25519"):
        header = encoded({"alg": algorithm, "typ": KIND})
        start = f"{header}.{body}"
        macs = [hmac.digest(secret, start.encode(), hashlib.sha256) for secret in (PIN, encoded(PIN).encode(), b"")]
        for signature in ("", *map(encoded, macs), signed({"alg": algorithm, "typ": KIND}, payload()).split(".")[2]):
            with pytest.raises(StatementRefused):
                check(f"{start}.{signature}")


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "Ed25519", "typ": KIND, "crit": ["x"], "x": 1}, {"alg": "Ed25519", "typ": KIND, "b64": False},
        {"alg": "Ed25519", "typ": KIND, "crit": ["b64"], "b64": False}, {"alg": ["Ed25519"], "typ": KIND},
        {"alg": {}, "typ": KIND}, {"alg": None}, ["alg"], [], "alg", 5, None, {}, b"", b"{", b"\xff", b"[" * 300,
        {"alg": "Ed25519", "typ": KIND, "jwk": {"kty": "OKP", "crv": "Ed25519", "x": encoded(bytes(32))}},
    ],
)  # fmt: skip
def test_an_odd_header_is_refused_and_crashes_nothing(header: object) -> None:
    token = signed(header, payload(), key=bytes(32) if isinstance(header, dict) and "jwk" in header else KEY)
    with pytest.raises(StatementRefused):
        check(token)


@pytest.mark.parametrize(
    "change",
    [
        {"ballot": 0}, {"ballot": 1 << 40}, {"job": "A" * 32}, {"job": "a" * 32 + "\n"}, {"job": "../etc/passwd"},
        {"printer": "ipp://evil/"}, {"printer": ""}, {"by": ""}, {"ticket": None}, {"ticket": {"copies": 0, "options": []}},
        {"ticket": {"copies": 1, "options": [["x", "a\nb"]]}}, {"ticket": {"copies": True, "options": []}},
        {"ticket": {"copies": 1, "options": [["x"]]}}, {"ticket": {"copies": 1, "options": {"x": "y"}}}, {"forces": [0]},
        {"exp": -1}, {"iat": "soon"}, {"jti": "x" * 65}, {"aud": "x"},
    ],
)  # fmt: skip
def test_a_claim_out_of_range_is_refused_although_it_is_signed(change: dict[str, Any]) -> None:
    with pytest.raises(StatementRefused):
        check(signed({"alg": "Ed25519", "typ": KIND}, payload() | change))


def test_a_missing_claim_is_refused_although_it_is_signed() -> None:
    for name in CLAIMS.keys() - {"forces"}:
        claims = payload()
        del claims[name]
        with pytest.raises(StatementRefused):
            check(signed({"alg": "Ed25519", "typ": KIND}, claims))


def test_an_order_beyond_its_limit_is_refused_and_the_longest_ticket_is_not() -> None:
    with pytest.raises(StatementRefused, match="too large"):
        check("a" * (LIMIT + 1))
    for value in ("x" * 65_535, '"' * 65_535, "🖨" * 16_383):
        longest = order(ticket=Ticket(1, (("x", value),)))
        assert check(sign_order(longest, KEY)) == longest


def config(**changes: Any) -> SiteConfig:
    values: dict[str, Any] = {
        "revision": 1, "organisation": "acme", "site": "berlin", "node": NODE, "networks": ("10.0.0.0/8",),
        "owner_rule": "{user}@example.com", "users": ("alice@example.com",), "printers": (), "hold": 86_400,
        "cloud_key": PartyKey(key="cloud-1", public=bytes(32), expires=NOW), "public_url": "https://print.example",
    }  # fmt: skip
    return SiteConfig(**(values | changes))


def test_a_configuration_is_for_its_node_only_and_no_order() -> None:
    token = sign_config(config(), KEY)
    assert verify_config(token, PIN, NODE) == config()
    with pytest.raises(StatementRefused, match="another node"):
        verify_config(token, PIN, "0" * 32)
    with pytest.raises(StatementRefused):
        check(token)
    with pytest.raises(StatementRefused):
        verify_config(sign_order(order(), KEY), PIN, NODE)


def test_a_site_with_twenty_thousand_users_has_a_configuration() -> None:
    """joserfc's own limit of 128,000 characters once refused that of a site with some thousand."""
    large = config(users=tuple(f"user{number}@example.com" for number in range(20_000)))
    assert verify_config(sign_config(large, KEY), PIN, NODE) == large


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(33), "", "AAAA", "not base64!", 5, None])
def test_a_key_of_another_length_is_no_key(public: object) -> None:
    with pytest.raises(ValidationError):
        PartyKey.model_validate({"key": "k", "public": public, "expires": NOW})
