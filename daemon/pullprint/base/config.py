"""Configuration files: TOML, read once at start, never written by a daemon.

A room declares a frozen dataclass; `load` fills it and refuses what it does not know, naming the line's key.
"""

import dataclasses
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from pullprint.base.errors import ConfigError

FILE_LIMIT = 1 << 20

Settings = TypeVar("Settings")


def load(kind: type[Settings], path: Path | None) -> Settings:
    """The settings in *path* (all defaults when it is None), as a *kind*.

    Raises ConfigError for a file that is missing, too large, not TOML, or has keys or types that *kind* lacks.
    """
    if path is None:
        return kind()
    try:
        if path.stat().st_size > FILE_LIMIT:
            raise ConfigError(path=path, reason="it is larger than 1 MiB")
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(path=path, reason=error.strerror or "it cannot be read") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(path=path, reason=error) from error
    return from_values(kind, values, path)


def from_values(kind: type[Settings], values: dict[str, Any], path: Path) -> Settings:
    """*values* checked against the dataclass *kind*."""
    hints = typing.get_type_hints(kind)
    arguments = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in hints:
            raise ConfigError(path=path, reason=f"it has no setting named {key}")
        arguments[name] = _convert(hints[name], value, key, path)
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(path=path, reason=error) from error


def _convert(hint: Any, value: Any, key: str, path: Path) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        if option is Path and isinstance(value, str):
            return Path(value)
        if typing.get_origin(option) is tuple and isinstance(value, list):
            return tuple(_convert(typing.get_args(option)[0], item, key, path) for item in value)
        if dataclasses.is_dataclass(option) and isinstance(option, type) and isinstance(value, dict):
            return from_values(option, value, path)
        if option is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if isinstance(option, type) and isinstance(value, option) and isinstance(value, bool) == (option is bool):
            return value
    raise ConfigError(path=path, reason=f"{key} has a value of the wrong type")
