"""Configuration files: a mistake is named by its line, and an office goes on with what was good before."""

import logging
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pullprint.base.config import PLACE, ConfigFile, FileBroken, NoLastGood, OtherPlace, from_values, load
from pullprint.cloud.config import Settings as CloudSettings
from pullprint.node.settings import Settings as NodeSettings


@dataclass(frozen=True)
class _Inner:
    port: int = 1
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.port < 1:
            raise ValueError("port must be 1 or more")


@dataclass(frozen=True)
class _Settings:
    name: str = "x"
    on: bool = False
    folder: Path | None = None
    limit_mib: int = 1
    inner: _Inner = _Inner()
    kept_in: Path = field(default=Path("/usual"), metadata=PLACE)

    def __post_init__(self) -> None:
        if self.limit_mib < 1:
            raise ValueError("limit_mib must be 1 or more")


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ('name = "a"\n\nnmae = 1\n', 3, "there is no setting named nmae"),
        ('name = "a"\n# on = 1\non = 1 # on\n', 3, "on has a value of the wrong type"),
        ('name = """\non = 1\n"""\non = 1\n', 4, "on has a value of the wrong type"),
        ('on = true\nname = "on"\nlimit-mib = 0\n', 3, "limit_mib must be 1 or more"),
        ('name = "port"\n[inner]\n# port\nport = 1.5\n', 4, "port has a value of the wrong type"),
        ('name = "port"\ninner.port = 0\n', 2, "port must be 1 or more"),
        ('inner = { tags = ["a"],\tprot = 1 }', 1, "there is no setting named prot"),
        ('[inner]\ntags = [\n "a",\n 1,\n]\n', 2, "tags has a value of the wrong type"),
        ('limit_mib = 2\nlimit-mib = 2\n', 2, "limit-mib is set twice, also as limit_mib"),
        ('folder = "a\\u0000b"\r\n', 1, "folder has a value of the wrong type"),
        ('\r\nname = "a"\r\non = 1\r\n', 3, "on has a value of the wrong type"),
        ('name = "a"\nname = "b"\n', 2, "cannot overwrite a value (column 11)"),
        ('\n\nname = \n', 3, "invalid value (column 8)"),
        ("name = 'a", 1, "expected \"'\""),
        ("name = [\n\n", 1, "invalid value"),
        ("on = true\nname = \udcff\n", 2, "it is not UTF-8"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_by_file_and_line(tmp_path: Path, text: str, line: int, what: str) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(FileBroken) as caught:
        load(_Settings, path)
    assert caught.value.sentence == (
        f"The configuration {path} cannot be used: line {line}: {what}. Correct it and start again."
    )
    assert caught.value.exit_status == 78


@pytest.mark.parametrize(
    "text", ["name = " + "[" * 100_000, "limit_mib = " + "9" * 5_000, "name = " + "{a=" * 50_000, "#" * ((1 << 20) + 1)]
)
def test_a_monstrous_file_is_refused_too(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(FileBroken, match=r"c\.toml"):
        load(_Settings, path)


@pytest.mark.parametrize("kind", [NodeSettings, CloudSettings])
@pytest.mark.parametrize("text", ['log_level = "loud"', "document_limit_mib = 0\nupload_limit_mib = 0", "port = 70000\ncups_port = 70000"])  # fmt: skip
def test_values_that_the_daemons_refuse_have_a_line(tmp_path: Path, kind: type, text: str) -> None:
    path = tmp_path / "c.toml"
    kept = [line for line in text.splitlines() if line.partition(" ")[0] in kind.__dataclass_fields__]
    path.write_text("# first\n" + "\n".join(kept))
    with pytest.raises(FileBroken, match=r"line 2: "):
        load(kind, path)


def test_no_value_of_the_file_is_repeated(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    for text in (
        'name = ["postgresql://u:geheim@db/x"]',
        'name = "postgresql://u:geheim@db/x',
        "name = postgresql://u:geheim@db/x",
        '"name = geheim',
    ):
        path.write_text(text)
        with pytest.raises(FileBroken) as caught:
            load(_Settings, path)
        assert "geheim" not in caught.value.sentence


def test_what_is_about_to_be_written_is_checked_as_it_will_be_read(tmp_path: Path) -> None:
    assert from_values(_Settings, {"limit-mib": 3}, tmp_path) == _Settings(limit_mib=3)
    with pytest.raises(FileBroken, match="limit_mib must be 1 or more"):
        from_values(_Settings, {"limit_mib": 0}, tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c.toml"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


def started(path: Path, state: Path | None, *, optional: bool = True) -> tuple[ConfigFile[_Settings], _Settings]:
    """A daemon that came up."""
    file = ConfigFile(_Settings, path, optional=optional, kept_in=state)
    settings = file.start()
    file.keep()
    return file, settings


def test_the_last_good_one_takes_the_place_of_a_broken_one_until_that_is_good_again(path: Path, state: Path) -> None:
    path.write_text('name = "good" # password: geheim\n')
    file, settings = started(path, state)
    assert (settings.name, file.problem, file.trouble()) == ("good", None, "")
    copy = state / "last-good.toml"
    assert copy.read_bytes() == path.read_bytes() and stat.S_IMODE(copy.stat().st_mode) == 0o600

    path.write_text('name = "bad"\nnmae = 1\n')
    assert (
        "line 2: there is no setting named nmae" in file.trouble() and "what it said before is in use" in file.trouble()
    )
    for _ in range(2):
        file, settings = started(path, state)
        assert settings.name == "good" and file.problem is not None
        assert "line 2: there is no setting named nmae" in file.trouble() and str(copy) in file.trouble()
        assert copy.read_text().startswith('name = "good"')

    path.write_text('name = "better"\n')
    assert "good again" in file.trouble()
    file, settings = started(path, state)
    assert (settings.name, file.trouble()) == ("better", "")
    assert copy.read_bytes() == path.read_bytes() == b'name = "better"\n'


def test_only_a_start_that_succeeded_makes_a_good_one(path: Path, state: Path) -> None:
    path.write_text('name = "one"')
    started(path, state)
    path.write_text('name = "two"')
    ConfigFile(_Settings, path, optional=True, kept_in=state).start()
    path.write_text("name = 1")
    assert started(path, state)[1].name == "one"


def test_no_file_is_a_good_state_and_comes_back_as_that(path: Path, state: Path) -> None:
    assert started(path, state)[1] == _Settings()
    path.write_text("name = 1")
    file, settings = started(path, state)
    assert settings == _Settings() and file.problem is not None
    path.unlink()
    with pytest.raises(FileBroken, match="No such file"):
        ConfigFile(_Settings, path, optional=False, kept_in=None).start()


@pytest.mark.parametrize("spoil", ["folder", "link", "unreadable", "no way"])
def test_a_file_that_cannot_be_read_is_broken_and_not_missing(
    path: Path, state: Path, spoil: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text('name = "good"')
    started(path, state)
    path.unlink()
    match spoil:
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(path.parent / "nowhere")
        case "no way":
            (path.parent / "file").write_text("")
            path = path.parent / "file" / "c.toml"
        case _:  # root may read everything, so that the kernel's answer has to be made up
            path.write_text('name = "secret"')
            monkeypatch.setattr(Path, "open", _denied(path, Path.open))
    file, settings = started(path, state)
    assert settings.name == "good" and file.problem is not None and file.trouble()


def _denied(path: Path, original: object) -> object:
    def opened(self: Path, *arguments: object, **more: object) -> object:
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return original(self, *arguments, **more)  # type: ignore[operator]

    return opened


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"name = 'go", b"setting_of_a_newer_version = 1"])
def test_defaults_never_take_the_place_of_a_damaged_copy(path: Path, state: Path, damage: bytes) -> None:
    path.write_text('name = "good"')
    started(path, state)
    (state / "last-good.toml").write_bytes(damage)
    path.write_text("name = 1")
    with pytest.raises(NoLastGood, match=r"line 1: name has.*last-good\.toml.*Defaults are not used") as caught:
        started(path, state)
    assert caught.value.exit_status == 78
    path.write_text('name = "good"')
    assert started(path, state)[0].problem is None
    assert (state / "last-good.toml").read_text() == 'name = "good"'


def test_without_a_good_one_the_first_broken_file_stops_the_daemon(path: Path, state: Path) -> None:
    path.write_text("name = 1")
    for kept_in in (state, None):
        with pytest.raises(FileBroken, match="line 1"):
            started(path, kept_in)
    assert os.listdir(state) == []


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ('kept-in = "/a"', 'kept_in = "/b"\nname = 7'), ('kept_in = "/a"', "name = 7"), ("", 'kept_in = "/a"\nname = 7'),
        ('kept_in = "/a"', "kept_in = 7"), ('kept_in = "/a"', 'kept_in = "/a"\nkept-in = "/a"'),
        ('kept_in = "/a"', 'name = 7\n[inner]\nkept_in = "/a"'),
    ],
)  # fmt: skip
def test_the_last_good_one_never_leads_to_another_place(path: Path, state: Path, good: str, bad: str) -> None:
    """What is acknowledged there would be gone once the slip is mended."""
    path.write_text(good)
    started(path, state)
    path.write_text(bad)
    with pytest.raises(OtherPlace, match=r"line [123]: .*last-good\.toml.*\(kept_in\)") as caught:
        started(path, state)
    assert caught.value.exit_status == 78


@pytest.mark.parametrize(
    "bad", ['kept-in = "/a"\nname = 7', 'kept_in = "/b"\nname = ', 'kept_in = "/b"\nname = \udcff']
)
def test_where_no_other_place_can_be_told_the_last_good_one_serves(path: Path, state: Path, bad: str) -> None:
    path.write_text('kept_in = "/a"')
    started(path, state)
    path.write_bytes(bad.encode("utf-8", "surrogateescape"))
    file, settings = started(path, state)
    assert settings.kept_in == Path("/a") and file.problem


@pytest.mark.parametrize(
    ("kind", "setting"), [(NodeSettings, "state_dir"), (CloudSettings, "state-dir"), (CloudSettings, "database")]
)
def test_the_daemons_say_where_they_keep_things(path: Path, state: Path, kind: type, setting: str) -> None:
    path.write_text(f'{setting} = "/a"')
    file: ConfigFile[object] = ConfigFile(kind, path, optional=True, kept_in=state)
    file.start()
    file.keep()
    path.write_text(f'{setting} = "/b"\nlog_level = 7')
    with pytest.raises(OtherPlace, match=setting.replace("-", "_")):
        ConfigFile(kind, path, optional=True, kept_in=state).start()


def test_a_copy_that_cannot_be_kept_stops_nothing(path: Path, state: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text('name = "good"')
    state.rmdir()
    with caplog.at_level(logging.WARNING):
        assert started(path, state)[1].name == "good"
    assert "no copy of the configuration can be kept" in caplog.text
