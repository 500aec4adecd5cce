"""What every room stands on: files whole or not at all, text that may be shown, waits that end."""

import asyncio
import os
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from pullprint.base.backoff import Backoff
from pullprint.base.bell import Bell
from pullprint.base.config import load
from pullprint.base.errors import BadRequest, ConfigError, NotFound
from pullprint.base.files import replace, write_once
from pullprint.base.text import printable


def test_the_same_bytes_again_succeed_and_others_fail_and_nothing_is_left_over(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_once(path, b"one")
    write_once(path, b"one")
    with pytest.raises(FileExistsError):
        write_once(path, b"two")
    assert path.read_bytes() == b"one"
    assert path.stat().st_mode & 0o777 == 0o600
    replace(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["key"]


def test_a_replacement_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "membership"
    replace(path, b"old")
    monkeypatch.setattr(os, "fsync", full)
    for write in (replace, write_once):
        with pytest.raises(OSError, match="No space"):
            write(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["membership"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Bericht ☃ é", "Bericht ☃ é"), ("a\tb\r\nc", "a b  c"), ("\x1b[31m", "\ufffd[31m"), ("a\u202eb", "a\ufffdb"),
        ("\ud800", "\ufffd"), ("\u2028", "\ufffd"), ("\0", "\ufffd"), ("x" * 20, "x" * 9 + "…"), ("x" * 10, "x" * 10),
    ],
)  # fmt: skip
def test_text_from_outside_is_shown_on_one_line_without_tricks(text: str, shown: str) -> None:
    assert printable(text, 10) == shown or printable(text, 20) == shown


def test_what_is_filled_into_a_sentence_is_not_read_as_a_template() -> None:
    assert "{reason}" in BadRequest(reason="{reason} {0} {__class__}").sentence
    assert "what unknown" in NotFound().sentence
    assert BadRequest(reason="a\nb\x1b").sentence.isprintable()
    assert len(BadRequest(reason="x" * 100_000).sentence) < 400


def test_waits_grow_are_spread_and_never_pass_the_cap() -> None:
    backoff = Backoff(first=0.25, cap=30, random=random.Random(1))
    waits = [backoff.next() for _ in range(200)]
    assert waits[0] == 0.25
    assert all(0.25 <= wait <= 30 for wait in waits)
    assert max(waits) > 20
    assert len(set(waits[10:])) > 100
    backoff.reset()
    assert backoff.next() == 0.25


async def test_a_ring_between_looking_and_waiting_is_not_missed() -> None:
    bell = Bell()
    ticket = bell.ticket
    bell.ring()
    assert await bell.wait(ticket, 0)
    assert not await bell.wait(bell.ticket, 0.01)
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(bell.wait(bell.ticket, 5)) for _ in range(3)]
        await asyncio.sleep(0)
        bell.ring()
    assert all(task.result() for task in waiting)


@dataclass(frozen=True)
class _Inner:
    port: int = 1


@dataclass(frozen=True)
class _Settings:
    name: str = "x"
    seconds: float = 1.0
    folder: Path | None = None
    tags: tuple[str, ...] = ()
    on: bool = False
    inner: _Inner = _Inner()


def test_a_configuration_is_read_into_its_types(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('name = "a"\nseconds = 2\nfolder = "/tmp"\ntags = ["a", "b"]\non = true\n[inner]\nport = 9264\n')
    assert load(_Settings, path) == _Settings("a", 2.0, Path("/tmp"), ("a", "b"), True, _Inner(9264))
    assert load(_Settings, None) == _Settings()


@pytest.mark.parametrize(
    "text",
    ["nmae = 1", "name = 1", "on = 1", "seconds = true", "tags = [1]", "tags = 'a'", "inner = 1", "[inner]\nprot = 1", "= 1",
     "\udcff", "[inner]\nport = 1.5"],
)  # fmt: skip
def test_a_configuration_with_a_mistake_is_refused_and_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=r"c\.toml"):
        load(_Settings, path)
    with pytest.raises(ConfigError):
        load(_Settings, tmp_path / "missing.toml")
