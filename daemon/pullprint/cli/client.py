"""Requests to pullprintd: JSON over HTTP on a Unix socket, each with a time limit and an answer limit."""

import http.client
import json
import socket
import time
from pathlib import Path

from pullprint.base.errors import DaemonAway
from pullprint.base.platform import START_DAEMON
from pullprint.cli.errors import BrokenAnswer, DaemonSlow, Refused, SocketForbidden
from pullprint.wire.local import ANSWER_LIMIT

QUICK = 15.0
"""Seconds for a whole answer that the daemon has at hand."""
SLOW = 60.0
"""Seconds for one for which the daemon asks the cloud."""


class _TimedSocket(socket.socket):
    """A socket whose reads and writes all end at one deadline, however slowly the bytes trickle."""

    deadline = 0.0

    def _hurry(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.settimeout(left)

    def recv_into(self, *arguments, **named) -> int:  # type: ignore[no-untyped-def]
        self._hurry()
        return super().recv_into(*arguments, **named)

    def sendall(self, *arguments) -> None:  # type: ignore[no-untyped-def]
        self._hurry()
        super().sendall(*arguments)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("localhost")
        self._path = path
        self._deadline = time.monotonic() + seconds

    def connect(self) -> None:
        timed = _TimedSocket(socket.AF_UNIX, socket.SOCK_STREAM)
        timed.deadline = self._deadline
        timed.settimeout(max(0.001, self._deadline - time.monotonic()))
        self.sock = timed
        timed.connect(str(self._path))


class Client:
    """One daemon at one socket. Every method raises DaemonAway, SocketForbidden, DaemonSlow, BrokenAnswer, Refused."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, target: str, seconds: float = QUICK) -> object:
        """The JSON value at *target*."""
        return self.request("GET", target, None, seconds)

    def post(self, target: str, body: dict[str, object], seconds: float = SLOW) -> object:
        """The answer to *body*."""
        return self.request("POST", target, body, seconds)

    def delete(self, target: str, seconds: float = SLOW) -> object:
        """The answer to a deletion."""
        return self.request("DELETE", target, None, seconds)

    def request(self, method: str, target: str, body: dict[str, object] | None, seconds: float) -> object:
        """Send one request, wait for its whole answer at most *seconds*, return the JSON value in it."""
        connection = _UnixConnection(self.path, seconds)
        try:
            try:
                connection.connect()
            except PermissionError:
                raise SocketForbidden(path=self.path) from None
            except TimeoutError:
                raise DaemonSlow(path=self.path, seconds=f"{seconds:g}") from None
            except OSError:
                raise DaemonAway(path=self.path, command=START_DAEMON) from None
            status, data = self._exchange(connection, method, target, body, seconds)
        finally:
            connection.close()
        return self._value(status, data)

    def _exchange(
        self,
        connection: _UnixConnection,
        method: str,
        target: str,
        body: dict[str, object] | None,
        seconds: float,
    ) -> tuple[int, bytes]:
        headers = {"Accept": "application/json", "Connection": "close"}
        if method != "GET":
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, target, None if body is None else json.dumps(body).encode(), headers)
            response = connection.getresponse()
            data = response.read(ANSWER_LIMIT + 1)
        except TimeoutError:
            raise DaemonSlow(path=self.path, seconds=f"{seconds:g}") from None
        except (http.client.HTTPException, OSError, ValueError):
            raise BrokenAnswer(path=self.path, reason="it broke off or does not speak HTTP") from None
        if len(data) > ANSWER_LIMIT:
            raise BrokenAnswer(path=self.path, reason=f"it is longer than {ANSWER_LIMIT >> 20} MiB")
        return response.status, data

    def _value(self, status: int, data: bytes) -> object:
        try:
            value: object = json.loads(data)
        except (ValueError, RecursionError):
            raise BrokenAnswer(path=self.path, reason=f"status {status} came without proper JSON") from None
        if 200 <= status < 300:
            return value
        if isinstance(value, dict):
            code, sentence = value.get("code"), value.get("sentence")
            if isinstance(code, str) and isinstance(sentence, str) and sentence:
                raise Refused(code, sentence)
        raise BrokenAnswer(path=self.path, reason=f"status {status} came without a sentence")
