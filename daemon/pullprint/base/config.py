"""Configuration files: TOML, read once at start, never written by a daemon.

A room declares a frozen dataclass; `load` fills it and refuses what it does not know, naming file and line. A daemon
uses a `ConfigFile`, which keeps a copy of the last file that it started with: a slip in an editor must not keep an
office from printing at the next reboot.
"""

import dataclasses
import logging
import re
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, Generic, TypeVar

from pullprint.base.errors import EX_CONFIG, ConfigError
from pullprint.base.files import replace

FILE_LIMIT = 1 << 20
LAST_GOOD = "last-good.toml"
PLACE = types.MappingProxyType({"pullprint.place": True})
"""Metadata of a field that says where things are kept. A copy never overrules a file in that: what was kept in the one
place would not be seen in the other."""
_log = logging.getLogger(__name__)
_NOTHING_SET = b"# Nothing was set.\n"
"""What is kept of an empty or missing file: a copy without a byte is a damaged one."""

Settings = TypeVar("Settings")
Keys = tuple[str, ...]
"""The way to a setting, tables first."""


class FileBroken(ConfigError):
    """The configuration {path} cannot be used: {reason}. Correct it and start again."""

    exit_status = EX_CONFIG


class NoLastGood(FileBroken):
    """The configuration {path} cannot be used: {reason}. Nor can the copy of the last good one, {copy}: {damage}.
    Defaults are not used in their place. Correct the file and start again; what is held is safe."""


class OtherPlace(FileBroken):
    """The configuration {path} cannot be used: {reason}. Nor is the copy of the last good one, {copy}, for it keeps
    things elsewhere ({names}). Correct the file and start again; what is held is safe."""


class _Mistake(Exception):
    """*reason* what is wrong with the setting at *keys*."""

    def __init__(self, keys: Keys, reason: object) -> None:
        super().__init__(reason)
        self.keys = keys


class ConfigFile(Generic[Settings]):
    """A daemon's configuration and the copy of the last good one."""

    def __init__(self, kind: type[Settings], path: Path, *, optional: bool, kept_in: Path | None) -> None:
        """*optional*: that there is no file is as good as an empty one. *kept_in* is the folder of the copy, if any."""
        self._kind = kind
        self._path = path
        self._optional = optional
        self._copy = kept_in / LAST_GOOD if kept_in else None
        self._good: bytes | None = None
        self.problem: FileBroken | None = None
        """Why the last good configuration is in use instead of the file."""

    def read(self) -> Settings:
        """The settings in the file as it is now. Raises FileBroken."""
        return _settings(self._kind, self._data(), self._path)

    def start(self) -> Settings:
        """The settings to start with: the file's, or those of the last good one, and then `problem` says why.

        Raises FileBroken, NoLastGood, OtherPlace.
        """
        data = b""
        try:
            data = self._data()
            settings = _settings(self._kind, data, self._path)
        except FileBroken as error:
            settings = self._last_good(error)
            if names := _moved(data, settings):
                raise OtherPlace(**error.fields, copy=self._copy, names=", ".join(names)) from error
            self.problem = error
        else:
            self._good = data
        return settings

    def keep(self) -> None:
        """What the daemon started with was good: keep a copy, for its own account only. Blocking."""
        if self._copy is None or self._good is None:
            return
        data = self._good or _NOTHING_SET
        try:
            if not self._copy.exists() or _read(self._copy) != data:
                replace(self._copy, data)
        except OSError as error:
            _log.warning("no copy of the configuration can be kept in %s: %s", self._copy.parent, error.strerror)

    def trouble(self) -> str:
        """What is the matter with the file now, for people; empty when nothing is. Blocking."""
        try:
            self.read()
        except FileBroken as error:
            in_use = f"the last good one, {self._copy}, is in use" if self.problem else "what it said before is in use"
            return f"{error.sentence} Until then {in_use}."
        return f"The configuration {self._path} is good again, and in use after a restart." if self.problem else ""

    def _data(self) -> bytes:
        try:
            return _read(self._path)
        except FileNotFoundError as error:
            if self._optional and not self._path.is_symlink():
                return b""
            raise _unreadable(self._path, error) from error
        except OSError as error:
            raise _unreadable(self._path, error) from error

    def _last_good(self, error: FileBroken) -> Settings:
        if self._copy is None:
            raise error
        try:
            data = _read(self._copy)
            if data:
                return _settings(self._kind, data, self._copy)
            reason = "it is empty"
        except FileNotFoundError:
            raise error from None
        except OSError as damage:
            reason = damage.strerror or "it cannot be read"
        except FileBroken as damage:
            reason = damage.fields["reason"]
        raise NoLastGood(**error.fields, copy=self._copy, damage=reason) from error


def load(kind: type[Settings], path: Path | None) -> Settings:
    """The settings in *path* (all defaults when it is None), as a *kind*.

    Raises FileBroken for a file that is missing, too large, not TOML, or has keys or types that *kind* lacks.
    """
    return kind() if path is None else ConfigFile(kind, path, optional=False, kept_in=None).read()


def from_values(kind: type[Settings], values: dict[str, Any], path: Path) -> Settings:
    """*values*, which are to be written into *path*, checked as a *kind*. Raises FileBroken."""
    try:
        return _filled(kind, values, ())
    except _Mistake as error:
        raise FileBroken(path=path, reason=error) from error


def _moved(data: bytes, settings: Any) -> list[str]:
    """The places that a broken file names otherwise than *settings* do; none where it names no place that can be
    told."""
    kind = type(settings)
    places = [field.name for field in dataclasses.fields(kind) if PLACE.items() <= field.metadata.items()]
    try:
        values = _parsed(data.decode("utf-8")) if data else None
    except (ValueError, RecursionError):
        values = None
    if values is None:
        return []
    said = {key: value for key, value in values.items() if key.replace("-", "_") in places}
    try:
        named = _filled(kind, said, ())
    except _Mistake:  # a place that cannot be told either, but was changed
        return places
    return [name for name in places if getattr(named, name) != getattr(settings, name)]


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(FILE_LIMIT + 1)


def _unreadable(path: Path, error: OSError) -> FileBroken:
    return FileBroken(path=path, reason=error.strerror or "it cannot be read")


def _settings(kind: type[Settings], data: bytes, path: Path) -> Settings:
    if len(data) > FILE_LIMIT:
        raise FileBroken(path=path, reason="it is larger than 1 MiB")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FileBroken(path=path, reason=f"line {line}: it is not UTF-8") from error
    try:
        return _filled(kind, _parsed(text), ())
    except tomllib.TOMLDecodeError as error:
        raise FileBroken(path=path, reason=_of_toml(str(error), text)) from error
    except RecursionError as error:
        raise FileBroken(path=path, reason="it is nested too deeply") from error
    except _Mistake as error:
        line = _line_of(error.keys, text)
        raise FileBroken(path=path, reason=f"line {line}: {error}" if line else error) from error


def _parsed(text: str) -> dict[str, Any]:
    """Raises TOMLDecodeError, RecursionError."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:  # Python refuses numbers of thousands of digits
        raise tomllib.TOMLDecodeError("A number is too long (at end of document)") from error


def _of_toml(said: str, text: str) -> str:
    """tomllib's words with the line in front: ``line 3: invalid value (column 5)``."""
    if place := re.fullmatch(r"(?s)(.+) \(at line ([0-9]+), column ([0-9]+)\)", said):
        what, line, column = place.groups()
        return f"line {line}: {what[0].lower()}{what[1:]} (column {column})"
    what = said.removesuffix(" (at end of document)")
    return f"line {text.rstrip().count(chr(10)) + 1}: {what[0].lower()}{what[1:]}"


def _line_of(keys: Keys, text: str) -> int:
    """The line, counted from 1, on which the setting at *keys* begins; 0 when it cannot be told.

    TOML is parsed from its beginning, so that is the last line that has the key's name in it and before which the
    setting is not there yet.
    """
    if not keys:
        return 0
    lines = [f"{line}\n" for line in text.split("\n")]
    named = [number for number, line in enumerate(lines) if keys[-1] in line]
    for number in reversed(named):
        try:
            before: Any = tomllib.loads("".join(lines[:number]))
        except ValueError:  # this line is inside of a value
            continue
        for key in keys:
            before = before.get(key) if isinstance(before, dict) else None
        if before is None:
            return number + 1
    return 0


def _filled(kind: type[Settings], values: dict[str, Any], above: Keys) -> Settings:
    hints = typing.get_type_hints(kind)
    arguments: dict[str, Any] = {}
    written: dict[str, str] = {}
    for key, value in values.items():
        name, keys = key.replace("-", "_"), (*above, key)
        if name not in hints:
            raise _Mistake(keys, f"there is no setting named {key}")
        if name in written:
            raise _Mistake(keys, f"{key} is set twice, also as {written[name]}")
        written[name] = key
        arguments[name] = _converted(hints[name], value, keys)
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        words = re.findall(r"\w+", str(error))
        name = next((word for word in words if word in written), "")
        raise _Mistake((*above, written[name]) if name else above, error) from error


def _converted(hint: Any, value: Any, keys: Keys) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        if option is Path and isinstance(value, str) and value and "\0" not in value:
            return Path(value)
        if typing.get_origin(option) is tuple and isinstance(value, list):
            return tuple(_converted(typing.get_args(option)[0], item, keys) for item in value)
        if dataclasses.is_dataclass(option) and isinstance(option, type) and isinstance(value, dict):
            return _filled(option, value, keys)
        if option is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if isinstance(option, type) and isinstance(value, option) and isinstance(value, bool) == (option is bool):
            return value
    raise _Mistake(keys, f"{keys[-1]} has a value of the wrong type")
