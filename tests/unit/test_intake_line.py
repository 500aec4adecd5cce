"""The backend's line: read whole and unchanged, or refused with a sentence; nothing of it is ever raw text."""

import json
from typing import Any

import pytest

from pullprint.base.errors import PullprintError
from pullprint.model.job import UNTITLED
from pullprint.model.ticket import TicketRefused
from pullprint.wire.intake import LINE_LIMIT, LineRefused, read_line

FIELDS: dict[str, Any] = {
    "v": 1, "job_uuid": "0F1E2D3C-4b5a-6978-8796-a5b4c3d2e1f0", "cups_job_id": 17, "queue": "pullprint",
    "device_uri": "pullprint:/", "user": "alice", "host": "localhost", "title": "Report", "copies": 2,
    "options": "sides=one-sided x='a b'", "content_type": "application/PDF",
}  # fmt: skip


def line(**changes: Any) -> bytes:
    return json.dumps(FIELDS | changes).encode() + b"\n"


def test_a_line_is_read_field_by_field() -> None:
    read = read_line(line())
    assert read.job_uuid == "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
    assert (read.cups_job_id, read.queue, read.device_uri, read.submitter) == (17, "pullprint", "pullprint:/", "alice")
    assert (read.host, read.title, read.content_type) == ("localhost", "Report", "application/pdf")
    assert read.ticket.copies == 2
    assert read.ticket.options == (("sides", "one-sided"), ("x", "a b"))


@pytest.mark.parametrize("name", list(FIELDS))
def test_a_field_that_is_missing_or_of_another_kind_is_refused(name: str) -> None:
    without = {key: value for key, value in FIELDS.items() if key != name}
    with pytest.raises(LineRefused):
        read_line(json.dumps(without).encode())
    for value in (None, [], {}, 1.5, True if name != "v" else 2, "x" if isinstance(FIELDS[name], int) else 5):
        with pytest.raises(LineRefused):
            read_line(line(**{name: value}))


@pytest.mark.parametrize(
    "changes",
    [
        {"job_uuid": ""}, {"job_uuid": "x" * 36}, {"job_uuid": FIELDS["job_uuid"] + "\n"}, {"job_uuid": "../../etc/passwd"},
        {"queue": ""}, {"queue": "a b"}, {"queue": "a/b"}, {"queue": "a#b"}, {"queue": "a\nb"}, {"queue": "x" * 128},
        {"queue": "\ud800"}, {"queue": "a\u202eb"}, {"content_type": ""}, {"content_type": "pdf"},
        {"content_type": "a/b; c=d"}, {"content_type": "a/b\n"}, {"cups_job_id": -1}, {"cups_job_id": 1 << 60}, {"v": 2},
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(LineRefused):
        read_line(line(**changes))


@pytest.mark.parametrize(
    "changes", [{"copies": 0}, {"copies": 10_000}, {"options": "x='a\nb'"}, {"options": "a " * 600}]
)
def test_options_beyond_the_limits_are_refused_as_such(changes: dict[str, Any]) -> None:
    with pytest.raises(TicketRefused):
        read_line(line(**changes))


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\n", b"{", b"[]", b"null", b"1", b'"v"', b"\xff\xfe\x00", b"[" * 100_000, b'{"v":1}', b'{"v":' * 50_000,
        b'{"v":1e999}', b'{"v":NaN}', b"9" * 10_000, b'{"v":1,"v":2}', b" " * (LINE_LIMIT + 1), line() + b" " * LINE_LIMIT,
    ],
)  # fmt: skip
def test_what_is_no_line_is_refused(raw: bytes) -> None:
    with pytest.raises(LineRefused):
        read_line(raw)


def test_control_characters_and_64_kib_of_text_are_cleaned_and_cut() -> None:
    nasty = "a\x00b\x1b[31m\nSTATE: +evil\u202e\ud800" + "x" * 65_536
    fields = {
        "title": ("title", 255),
        "user": ("submitter", 255),
        "host": ("host", 255),
        "device_uri": ("device_uri", 1023),
    }
    for sent, (name, limit) in fields.items():
        text = getattr(read_line(line(**{sent: nasty})), name)
        assert len(text) <= limit
        assert text.isprintable()
        assert text.encode()
    assert read_line(line(title=" \n ")).title == UNTITLED
    assert read_line(line(title="")).title == UNTITLED


def test_a_refusal_says_nothing_raw() -> None:
    for changes in ({"queue": "\x1b[31m\n"}, {"options": "x='\x1b[31m'"}, {"content_type": "\x1b[31m"}):
        with pytest.raises(PullprintError) as error:
            read_line(line(**changes))
        assert error.value.sentence.isprintable()
