"""Errors that reach a person.

Every class says in its docstring what happened, whether the document is safe and what to do next; that
docstring is the sentence that the user reads, with ``{names}`` filled in from the error's fields. Text that
came from outside is cleaned and clipped before it is filled in, so an error may be shown anywhere.
"""

from inspect import cleandoc

from pullprint.base.text import printable

FIELD_LIMIT = 200
EX_CONFIG = 78
"""sysexits.h: a daemon that ends with this ends so again until a person has done something."""


class PullprintError(Exception):
    """Something went wrong in Pullprint. The document is still held; see `pullprint trace`."""

    code = "error"
    """Stable word for programs; part of the API."""
    http_status = 500
    exit_status = 1
    """Of a daemon or of an administrator's command that ends because of it."""

    def __init__(self, **fields: object) -> None:
        self.fields = {name: printable(str(value), FIELD_LIMIT) for name, value in fields.items()}
        super().__init__(self.sentence)

    @property
    def sentence(self) -> str:
        """What the user reads, on one line."""
        template = " ".join(cleandoc(self.__class__.__doc__ or "").split())
        return template.format_map(_Fields(self.fields))


class _Fields(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return f"({key} unknown)"


class BadRequest(PullprintError):
    """The request was not understood: {reason}. Nothing was changed."""

    code = "bad-request"
    http_status = 400


class NotSignedIn(PullprintError):
    """You are not signed in, or your session has ended. Sign in again; your jobs are still held."""

    code = "not-signed-in"
    http_status = 401


class NotAllowed(PullprintError):
    """You may not do that: {reason}. Nothing was changed."""

    code = "not-allowed"
    http_status = 403


class NotFound(PullprintError):
    """There is no such {what}, or it is not yours."""

    code = "not-found"
    http_status = 404


class TooLarge(PullprintError):
    """{what} is larger than the {limit} that are accepted here. Nothing was stored."""

    code = "too-large"
    http_status = 413


class TooMany(PullprintError):
    """Too many attempts. Wait {seconds} seconds, then try again."""

    code = "too-many"
    http_status = 429


class ConfigError(PullprintError):
    """The configuration {path} cannot be used: {reason}. Correct it and start again."""

    code = "config"


class WrittenByNewer(PullprintError):
    """{what} was written by a newer Pullprint ({version}), and this one ({own}) cannot use it. Install that version or
    a newer one again, or restore a backup from before the upgrade. Nothing was changed, and held jobs are safe."""

    code = "written-by-newer"
    http_status = 503
    exit_status = EX_CONFIG


class DaemonAway(PullprintError):
    """pullprintd does not answer at {path}. Start it with `{command}`. Held jobs are safe on disk."""

    code = "daemon-away"
    http_status = 503
