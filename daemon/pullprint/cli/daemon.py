"""pullprintd's local API as calls: one method for each line of the table in `wire.local`."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pullprint.cli import answers
from pullprint.cli.answers import Finding, Job, Login, Mesh, Printer, Slept, Status, Step
from pullprint.cli.client import QUICK, SLOW, Client
from pullprint.cli.errors import BrokenAnswer

Answer = TypeVar("Answer")


class Daemon:
    """The daemon behind one socket. Every method raises what `Client` raises."""

    def __init__(self, path: Path) -> None:
        self._client = Client(path)

    def status(self) -> Status:
        return self._one(Status.from_json, self._client.get("/v1/status"))

    def mesh(self, *, jobs: bool = False) -> Mesh:
        """The site's nodes; with *jobs*, for root, also what this one holds."""
        return self._one(Mesh.from_json, self._client.get("/v1/mesh?jobs=1" if jobs else "/v1/mesh"))

    def printers(self) -> list[Printer]:
        return self._several(Printer.from_json, self._client.get("/v1/printers"))

    def findings(self) -> list[Finding]:
        return self._several(Finding.from_json, self._client.get("/v1/doctor", SLOW))

    def jobs(self, *, everyone: bool = False) -> list[Job]:
        return self._several(Job.from_json, self._client.get("/v1/jobs?all=1" if everyone else "/v1/jobs"))

    def job(self, job: str) -> Job:
        """*job* is an id or the beginning of one, as in all methods."""
        return self._one(Job.from_json, self._client.get(f"/v1/jobs/{job}"))

    def trace(self, job: str, seen: int = 0, wait: int = 0) -> list[Step]:
        """The steps that follow the first *seen*; waits up to *wait* seconds for one."""
        # The daemon counts steps from 0 and wants the number of the last one that was seen.
        target = f"/v1/jobs/{job}/trace?after={seen - 1}&wait={wait}"
        return self._several(Step.from_json, self._client.get(target, QUICK + wait))

    def release(self, job: str, printer: str, changes: dict[str, str], *, again: bool) -> Job:
        body: dict[str, object] = {"printer": printer, "changes": changes, "again": again}
        return self._one(Job.from_json, self._client.post(f"/v1/jobs/{job}/release", body))

    def settle(self, job: str) -> Job:
        return self._one(Job.from_json, self._client.post(f"/v1/jobs/{job}/settle", {}))

    def cancel(self, job: str) -> Job:
        return self._one(Job.from_json, self._client.delete(f"/v1/jobs/{job}"))

    def join(self, cloud: str, code: str, authority: str) -> Status:
        body: dict[str, object] = {"cloud": cloud, "code": code, "authority": authority}
        return self._one(Status.from_json, self._client.post("/v1/join", body))

    def sleep(self) -> Slept:
        """Lend this host's votes to the cloud (root)."""
        return self._one(Slept.from_json, self._client.post("/v1/sleep", {}))

    def wake(self) -> Slept:
        """Take them back (root)."""
        return self._one(Slept.from_json, self._client.post("/v1/wake", {}))

    def login(self) -> Login:
        """Begin one for the account that runs this command."""
        return self._one(Login.from_json, self._client.post("/v1/login", {}))

    def login_state(self, wait: int) -> Login:
        """How it stands; waits up to *wait* seconds for an answer on the page."""
        return self._one(Login.from_json, self._client.get(f"/v1/login?wait={wait}", QUICK + wait))

    def withdraw_login(self) -> Login:
        return self._one(Login.from_json, self._client.delete("/v1/login", QUICK))

    def _one(self, read: Callable[[object], Answer], value: object) -> Answer:
        try:
            return answers.one(read, value)
        except answers.Malformed as error:
            raise BrokenAnswer(path=self._client.path, reason=error) from None

    def _several(self, read: Callable[[object], Answer], value: object) -> list[Answer]:
        try:
            return answers.several(read, value)
        except answers.Malformed as error:
            raise BrokenAnswer(path=self._client.path, reason=error) from None
