"""Headers from a disk that somebody wrote to: SealDamaged, or a header that is written the one way there is."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st
from tests.fuzz.mutations import mutated
from tests.unit.making import Parties

from pullprint.vault import header as layout
from pullprint.vault import keys
from pullprint.vault.header import SealDamaged

_VECTOR = (Path(__file__).parents[1] / "vectors" / "one-byte.job").read_bytes()
GOOD = _VECTOR[: layout.read_length(_VECTOR)]
PARTIES = Parties()


def signed(body: bytes) -> bytes:
    """*body* with lengths, context hash and signature put right, so that a fuzzer gets past them."""
    body = body.ljust(212, b"\0")
    length = int.from_bytes(body[204:208], "big")
    body = body[:104] + hashlib.sha256(body[212 : 212 + length]).digest() + body[136:]
    body = body[:12] + min(len(body) + 96, 0xFFFFFFFF).to_bytes(4, "big") + body[16:168]
    return body + PARTIES.identity.public_key().public_bytes_raw()


def check(data: bytes) -> None:
    try:
        header = layout.decode(data)
    except SealDamaged as error:
        assert error.sentence.isprintable()
        return
    assert header.encode() == data
    assert header.context.title.encode() is not None
    with suppress(SealDamaged):
        keys.unwrap(header, {number: bytes(32) for number in range(len(header.slots))})


@given(st.binary(max_size=2_000))
@example(b"")
@example(b"pulljob\n")
def test_random_bytes_are_no_header(data: bytes) -> None:
    check(data)
    check(b"pulljob\n\0\1\0\x40" + len(data).to_bytes(4, "big") + data)


@given(mutated(GOOD))
def test_a_broken_header_is_damage(data: bytes) -> None:
    check(data)


@given(mutated(GOOD[:-96]))
def test_a_broken_header_of_the_right_length_with_a_good_signature_is_damage_or_sound(body: bytes) -> None:
    start = signed(body) + body[200:]
    start = start[:12] + (len(start) + 96).to_bytes(4, "big") + start[16:] + bytes(32)
    check(start + PARTIES.identity.sign(start))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["\ud800", "\0"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_CONTEXT = json.loads(layout.encode_context(PARTIES.context()))


@given(
    st.one_of(
        _JSON,
        st.builds(lambda name, value: _CONTEXT | {name: value}, st.sampled_from(sorted(_CONTEXT)), _JSON),
        st.builds(
            lambda copies, options: _CONTEXT | {"ticket": {"copies": copies, "options": options}},
            st.integers() | _JSON,
            st.lists(st.lists(st.text(max_size=9), min_size=2, max_size=2), max_size=3) | _JSON,
        ),
        st.just(_CONTEXT),
    )
)
def test_any_json_for_a_context_with_a_good_signature_is_damage_or_sound(values: object) -> None:
    raw = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
    slots_and_wraps = GOOD[212 + int.from_bytes(GOOD[204:208], "big") : -96]
    body = GOOD[:204] + len(raw).to_bytes(4, "big") + GOOD[208:212] + raw + slots_and_wraps
    start = signed(body) + body[200:]
    start = start[:12] + (len(start) + 96).to_bytes(4, "big") + start[16:] + bytes(32)
    check(start + PARTIES.identity.sign(start))
    if values == _CONTEXT:
        assert layout.decode(start + PARTIES.identity.sign(start)).context == PARTIES.context()
