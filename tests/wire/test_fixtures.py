"""Messages of every released version are read by this one, and this version's by their rules (`pullprint.wire`)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.wire import make

from pullprint import __version__
from pullprint.wire import api, holders, mesh, node, order, signature, views
from pullprint.wire.intake import read_line
from pullprint.wire.jws import StatementRefused
from pullprint.wire.order import verify_order
from pullprint.wire.types import Message
from pullprint.wire.versions import RELEASES

FOLDERS = [make.FOLDER / version for version in RELEASES]
_MODULES = {"api": api, "holders": holders, "mesh": mesh, "node": node, "order": order, "views": views}
_OTHERS = ("intake.line", "signed")
DROPPED: frozenset[tuple[str, str]] = frozenset()
"""Types and fields that a released version wrote and this one left out on purpose."""


def fixtures(folder: Path) -> Iterator[tuple[str, type[Message], dict[str, Any]]]:
    """Name, type and content of each message in *folder*."""
    for path in sorted(folder.glob("*.json")):
        if not path.name.startswith(_OTHERS):
            module, kind = path.name.split(".")[:2]
            yield path.name, getattr(_MODULES[module], kind), json.loads(path.read_text("utf-8"))


def with_unknown(value: Any, message: object) -> Any:
    """*value*, which is *message* written, as a version would write it that added a field to every message in it."""
    if isinstance(message, Message):
        known = {name: with_unknown(value[name], getattr(message, name)) for name in value}
        return {**known, "from_the_future": {"kind": "x", "list": [1, None, {"a": "☃"}]}}
    if isinstance(message, tuple) and isinstance(value, list):
        return [with_unknown(part, each) for part, each in zip(value, message, strict=True)]
    return value


def test_every_release_has_a_folder_and_no_other_is_there() -> None:
    assert [
        path.name for path in sorted(make.FOLDER.iterdir()) if path.is_dir() and path.name != "__pycache__"
    ] == sorted(RELEASES)


def test_the_fixtures_of_this_version_are_what_it_writes() -> None:
    """Before a release: ``python -m tests.wire.make``. After it the folder stands, and the version needs a new number."""
    folder = make.FOLDER / __version__
    assert {path.name: path.read_text("utf-8") for path in folder.glob("*.json")} == dict(make.files())


def test_every_message_has_a_fixture_and_every_field_a_value_that_is_not_its_default() -> None:
    assert {type(message) for message in make.messages()} == make.types(), "add it to tests/wire/make.py"
    told = {
        (type(message), name)
        for message in make.messages()
        for name, field in type(message).model_fields.items()
        if field.is_required() or getattr(message, name) != field.get_default(call_default_factory=True)
    }
    fixed = {"kind", "protocol", "oldest", "grant_type", "token_type"}
    every = {(kind, name) for kind in make.types() for name in kind.model_fields if name not in fixed}
    assert {f"{kind.__name__}.{name}" for kind, name in every - told} == set()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_what_that_version_wrote_is_read_and_means_the_same(folder: Path) -> None:
    for name, kind, values in fixtures(folder):
        again = make.written(kind.model_validate_json(json.dumps(values)))
        kept = {field: value for field, value in values.items() if (kind.__name__, field) not in DROPPED}
        assert {field: value for field, value in again.items() if field in kept} == kept, name
    line = (folder / "intake.line.json").read_bytes()
    submission = read_line(json.dumps(json.loads(line)).encode() + b"\n")
    assert (submission.title, submission.ticket.copies) == ("Jahresbericht ☃", 2)
    assert submission.ticket.get("x-new") == "a b ☃"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_what_that_version_signed_is_still_good_and_nothing_else_is(folder: Path) -> None:
    kept = json.loads((folder / "signed.json").read_text("utf-8"))
    pin, identity, now, request = (
        bytes.fromhex(kept["pin"]),
        bytes.fromhex(kept["identity"]),
        kept["now"],
        kept["request"],
    )
    assert verify_order(kept["order"], pin, kept["node"], "acme", now).ticket == make.TICKET
    assert node.verify_config(kept["config"], pin, kept["node"]).accounts == {"guest": "ada@example.com"}
    assert node.verify_account(kept["account"], pin, kept["node"], "acme", "ada", now) == "ada@example.com"
    headers = request["headers"]
    claim = signature.read(headers["Signature-Input"], headers["Signature"])

    def verify(body: bytes) -> None:
        signature.verify(
            claim, identity, request["method"], request["path"], request["query"], body, headers["Content-Digest"], now
        )

    verify(request["body"].encode())
    with pytest.raises(signature.SignatureRefused):
        verify(b"[]")
    for token in (kept["order"], kept["config"], kept["account"]):
        spoiled = token[:-10] + ("A" if token[-10] != "A" else "B") + token[-9:]
        with pytest.raises(StatementRefused):
            verify_order(spoiled, pin, kept["node"], "acme", now)


def test_fields_that_this_version_does_not_know_change_nothing() -> None:
    for message in make.messages():
        newer = with_unknown(make.written(message), message)
        assert type(message).model_validate_json(json.dumps(newer)) == message
    line = json.dumps({**make.intake_line(), "from_the_future": [1]}).encode() + b"\n"
    assert read_line(line) == read_line(json.dumps(make.intake_line()).encode() + b"\n")


def test_a_signed_statement_with_fields_that_this_version_does_not_know_is_read() -> None:
    class NewerOrder(order.Order):
        mood: str = "cheerful"

    known = next(message for message in make.messages() if isinstance(message, order.Order))
    token = order.sign_order(NewerOrder(**dict(known)), make.ORDER_KEY.private_bytes_raw())
    pin = make.ORDER_KEY.public_key().public_bytes_raw()
    assert verify_order(token, pin, make.NODE, "acme", make.NOW) == known


def test_items_and_reports_of_unknown_kinds_are_passed_over_where_they_stand() -> None:
    stranger = {"kind": "dance", "seq": 8, "job": ["not", "an", "id"]}
    inbox = next(message for message in make.messages() if isinstance(message, node.InboxAnswer))
    newer = {**make.written(inbox), "items": [stranger, *make.written(inbox)["items"], stranger]}
    items = node.InboxAnswer.model_validate_json(json.dumps(newer)).items
    assert items == (node.UnknownItem(kind="dance", seq=8), *inbox.items, node.UnknownItem(kind="dance", seq=8))

    events = next(message for message in make.messages() if isinstance(message, node.Events))
    newer = {**make.written(events), "events": [{"n": 1, "report": {"kind": "dance"}}, *make.written(events)["events"]]}
    taken = node.Events.model_validate_json(json.dumps(newer)).events
    assert taken == (node.Event(n=1, report=node.UnknownReport(kind="dance")), *events.events)


@pytest.mark.parametrize("item", [{}, {"kind": None, "seq": 1}, {"kind": 1, "seq": 1}, {"kind": "dance"}, {"kind": "cancel"}, 7, None])  # fmt: skip
def test_an_item_without_kind_or_number_and_a_known_one_that_lacks_fields_are_refused(item: object) -> None:
    with pytest.raises(ValidationError):
        node.InboxAnswer.model_validate_json(json.dumps({"items": [item], "now": 1.0}))
