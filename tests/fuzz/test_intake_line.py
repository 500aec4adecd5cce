"""Whatever connects to the intake socket: a submission whose texts are clean, or a PullprintError."""

import json

from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.mutations import mutated

from pullprint.base.errors import PullprintError
from pullprint.wire.intake import read_line

FIELDS: dict[str, object] = {
    "v": 1, "job_uuid": "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", "cups_job_id": 17, "queue": "pullprint",
    "device_uri": "pullprint:/", "user": "alice", "host": "localhost", "title": "Report ☃", "copies": 2,
    "options": "sides=one-sided x='a b' media-col={a=b}", "content_type": "application/pdf",
}  # fmt: skip
GOOD = json.dumps(FIELDS).encode()
_TEXT = st.text(st.characters(exclude_categories=()), max_size=300)
_VALUE = st.one_of(
    _TEXT, st.none(), st.booleans(), st.integers(), st.floats(), st.lists(_TEXT, max_size=3),
    st.dictionaries(_TEXT, _TEXT, max_size=2), st.sampled_from(["\ud800", "\0", "a\nb", "\u202e", "x" * 70_000]),
)  # fmt: skip


def check(line: bytes) -> None:
    try:
        read = read_line(line)
    except PullprintError as error:
        assert error.sentence.isprintable()
        return
    texts = [read.queue, read.device_uri, read.submitter, read.host, read.title, read.content_type, read.job_uuid]
    texts += [text for pair in read.ticket.options for text in pair]
    for text in texts:
        text.encode()
        assert not any(ord(char) < 0x20 or ord(char) == 0x7F for char in text)


@given(st.binary(max_size=500))
def test_random_bytes_are_no_line(line: bytes) -> None:
    check(line)


@given(mutated(GOOD))
def test_a_broken_line_is_refused_or_clean(line: bytes) -> None:
    check(line)


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), _VALUE, max_size=4))
def test_any_value_in_any_field_is_refused_or_clean(changes: dict[str, object]) -> None:
    check(json.dumps(FIELDS | changes).encode())
