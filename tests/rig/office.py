"""A whole office on one machine: cloud, node, private cupsd and printers, each a real process with its own files."""

import base64
import getpass
import http.client
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.rig.cups import PPD, PrivateCups
from tests.rig.processes import Process, free_port, wait_until

from pullprint.vault.upload import seal_upload

BIN = Path(sys.executable).parent
REPOSITORY = Path(__file__).resolve().parents[2]
FACTS = REPOSITORY / "filters" / "pullprint-facts"
CONVERT = REPOSITORY / "filters" / "pullprint-convert"
ORGANISATION = "demo"
SITE = "office"
RULE = "{user}@example.com"
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


class CommandFailed(Exception):
    """A command ended with a status other than 0; its output is the message."""

    def __init__(self, status: int, output: str) -> None:
        super().__init__(f"exit status {status}: {output}")
        self.status = status
        self.output = output


def run(*argv: str | Path, env: Mapping[str, str] | None = None, data: str | None = None, timeout: float = 60.0) -> str:
    """What a command printed; raises CommandFailed."""
    done = subprocess.run(
        [str(word) for word in argv],
        env={**ENVIRONMENT, **(env or {})},
        input=data,
        stdin=None if data is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        raise CommandFailed(done.returncode, done.stdout)
    return done.stdout


class Cloud:
    """A real ``pullprint-cloud serve`` with a private CA, on a port that stays the same when it is restarted."""

    def __init__(self, root: Path, port: int = 0, database: str = "") -> None:
        self.root = root / "cloud"
        self.root.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.config = self.root / "cloud.toml"
        certificates = self.root / "certificates"
        run(BIN / "pullprint-cloud", "certificate", "--host", "localhost", "--host", "127.0.0.1", "--out", certificates)
        self.authority = certificates / "ca.pem"
        lines = {
            "host": "127.0.0.1",
            "certificate": str(certificates / "server.pem"),
            "key": str(certificates / "server.key"),
            "public_url": self.url,
            "state_dir": str(self.root / "state"),
        }
        if database:
            lines["database"] = database
        text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in lines.items())
        self.config.write_text(f"port = {self.port}\n{text}")
        self.process = Process(
            [BIN / "pullprint-cloud", "serve", "--config", self.config], self.root / "log", env=ENVIRONMENT
        )

    @property
    def url(self) -> str:
        """Where people and nodes find it."""
        return f"https://localhost:{self.port}"

    @property
    def state(self) -> Path:
        """Its database and files."""
        return self.root / "state"

    def start(self, kill_at: str = "") -> None:
        """Start it, and wait until it answers; it dies of SIGKILL at the checkpoint *kill_at*."""
        self.process.env = {**ENVIRONMENT, "PULLPRINT_KILL_AT": kill_at}
        self.process.start(ready=("127.0.0.1", self.port), timeout=30)

    def admin(self, *words: str, data: str | None = None) -> str:
        """``pullprint-cloud …`` as the admin runs it."""
        return run(BIN / "pullprint-cloud", *words, "--config", str(self.config), data=data)

    def person(self, name: str, password: str) -> "Person":
        """Someone signed in."""
        return Person(self, name, password)


class Answer(Exception):
    """A refusal of the API: status, code and sentence."""

    def __init__(self, status: int, body: Any) -> None:
        self.status = status
        self.code = body.get("code", "") if isinstance(body, dict) else ""
        self.sentence = body.get("sentence", "") if isinstance(body, dict) else ""
        super().__init__(f"{status} {self.code}: {self.sentence}")


class Person:
    """A user of the web API with a session of their own."""

    def __init__(self, cloud: Cloud, name: str, password: str) -> None:
        self._port = cloud.port
        self._tls = ssl.create_default_context(cafile=str(cloud.authority))
        self.name = name
        self._token = ""
        self._token = self.post("/api/v1/session", {"name": name, "password": password})["token"]

    def get(self, path: str) -> Any:
        """The answer to GET. Raises Answer."""
        return self._request("GET", path, None)

    def post(self, path: str, body: Any) -> Any:
        """The answer to POST. Raises Answer."""
        return self._request("POST", path, body)

    def delete(self, path: str) -> Any:
        """The answer to DELETE. Raises Answer."""
        return self._request("DELETE", path, {})

    def upload(self, title: str, document: bytes, content_type: str = "application/pdf", **wanted: str) -> Any:
        """The job that an uploaded *document*, sealed as a browser seals it, became. Raises Answer."""
        request = {"title": title, "content_type": content_type, "size": len(document), **wanted}
        offer = self.post("/api/v1/uploads", request)
        sealed = b"".join(seal_upload(document, base64.b64decode(offer["public"]), offer["id"]))
        return self._request("PUT", f"/api/v1/uploads/{offer['id']}", sealed)

    def jobs(self) -> list[dict[str, Any]]:
        """My jobs, newest first."""
        jobs: list[dict[str, Any]] = self.get("/api/v1/jobs")["jobs"]
        return jobs

    def job(self, title: str) -> dict[str, Any] | None:
        """My newest job of that title."""
        return next((job for job in self.jobs() if job["title"] == title), None)

    def wait_job(self, title: str, state: str = "", timeout: float = 20.0) -> dict[str, Any]:
        """My job of that title, once it is in *state*."""

        def there() -> bool:
            job = self.job(title)
            return job is not None and state in ("", job["state"])

        try:
            wait_until(f"job {title!r} {state}", there, timeout, every=0.05)
        except TimeoutError as error:
            job = self.job(title)
            trace = self.trace(job["id"]) if job else []
            raise TimeoutError(f"{error}; it is {job}, its trace {trace}") from None
        job = self.job(title)
        assert job is not None
        return job

    def trace(self, job: str) -> list[dict[str, Any]]:
        """The steps of a job."""
        steps: list[dict[str, Any]] = self.get(f"/api/v1/jobs/{job}/trace")
        return steps

    def printer(self, name: str) -> str:
        """The id of the printer with that name."""
        return str(next(p["id"] for p in self.get("/api/v1/printers") if p["name"] == name))

    def release(self, job: str, printer: str, **more: Any) -> Any:
        """Print *job* at the printer named *printer*."""
        return self.post(f"/api/v1/jobs/{job}/release", {"printer": self.printer(printer), **more})

    def _request(self, method: str, path: str, body: Any) -> Any:
        """*body* is octets, or what becomes JSON."""
        octets = isinstance(body, bytes)
        connection = http.client.HTTPSConnection("localhost", self._port, context=self._tls, timeout=150)
        headers = {"Content-Type": "application/octet-stream" if octets else "application/json"} | (
            {"Authorization": f"Bearer {self._token}"} if self._token else {}
        )
        try:
            connection.request(method, path, body if octets or body is None else json.dumps(body), headers)
            response = connection.getresponse()
            raw = response.read()
        finally:
            connection.close()
        try:
            answer = json.loads(raw) if raw else None
        except ValueError:
            answer = None
        if response.status >= 300:
            raise Answer(response.status, answer)
        return answer


class Node:
    """A real ``pullprintd`` and the ``pullprint`` command beside it."""

    def __init__(self, root: Path, name: str = "node1", settings: Mapping[str, str | int] | None = None) -> None:
        self.root = root / name
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o755)
        # On a tmpfs, as /run is: lpd spools there.
        self.runtime = Path(tempfile.mkdtemp(prefix="pullprint-run-", dir="/dev/shm"))
        self.runtime.chmod(0o755)
        self.state = self.root / "state"
        self.intake = self.runtime / "intake.sock"
        self.control = self.runtime / "control.sock"
        self.config = self.root / "pullprint.toml"
        self._settings: dict[str, str | int] = {
            "name": name,
            "state_dir": str(self.state),
            "runtime_dir": str(self.runtime),
            "intake_socket": str(self.intake),
            "control_socket": str(self.control),
            "facts_program": str(FACTS),
            "convert_program": str(CONVERT),
        }
        self.configure(settings or {})
        self.process = Process([BIN / "pullprintd", "--config", self.config], self.root / "log", env=ENVIRONMENT)

    def configure(self, settings: Mapping[str, str | int]) -> None:
        """Write its configuration anew with *settings*; it is read at the next start."""
        self._settings |= settings
        self.config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in self._settings.items()))

    def start(self, kill_at: str = "") -> None:
        """Start it, and wait until it takes jobs; it dies of SIGKILL at the checkpoint *kill_at*
        (`base.checkpoint`)."""
        self.process.env = {**ENVIRONMENT, "PULLPRINT_KILL_AT": kill_at}
        self.process.start(ready=self.intake, timeout=30)

    def command(self, *words: str, uid: int | None = None) -> tuple[list[str], dict[str, str]]:
        """``pullprint …`` as the account that runs this or (for root) another one: its argv and environment."""
        env = {**ENVIRONMENT, "PULLPRINT_SOCKET": str(self.control), "NO_COLOR": "1"}
        if uid is None:
            return [str(BIN / "pullprint"), *words], env
        env["PYTHONPATH"] = str(REPOSITORY)
        return [sys.executable, "-m", "tests.rig.as_account", str(uid), *words], env

    def pullprint(self, *words: str, uid: int | None = None) -> str:
        """What ``pullprint …`` prints, as the account that runs this or (for root) another one."""
        argv, env = self.command(*words, uid=uid)
        return run(*argv, env=env)

    def wait_connected(self, timeout: float = 20.0) -> None:
        """Until it has reached its cloud."""

        def connected() -> bool:
            return bool(json.loads(self.pullprint("status", "--json"))["connected"])

        wait_until("the node's connection to the cloud", connected, timeout, every=0.1)

    def close(self) -> None:
        """End it and its sockets."""
        self.process.stop()
        shutil.rmtree(self.runtime, ignore_errors=True)


def cups_paths(cups: PrivateCups) -> dict[str, str]:
    """A node's settings for where that cupsd has its files."""
    return {"backend_dir": str(cups.root / "lib" / "backend"), "cupsd_conf": str(cups.root / "etc" / "cupsd.conf")}


class Office:
    """Cloud, node and cupsd, joined and with a user; printers are added by URI. A context manager."""

    def __init__(
        self, *, hold: str = "24h", node_settings: Mapping[str, str | int] | None = None, managed: bool = True
    ) -> None:
        # Open to lp, which backends run as, unlike pytest's tmp_path.
        self.root = Path(tempfile.mkdtemp(prefix="pullprint-office-"))
        self.root.chmod(0o755)
        self.account = getpass.getuser()
        self.user = RULE.replace("{user}", self.account)
        self._hold = hold
        self._managed = managed
        self._stack = ExitStack()
        self._node_settings = dict(node_settings or {})

    def __enter__(self) -> Self:
        self._stack.callback(shutil.rmtree, self.root, ignore_errors=True)
        with ExitStack() as undo:
            undo.push(self._stack)
            self._set_up()
            undo.pop_all()
        return self

    def _set_up(self) -> None:
        self.cloud = Cloud(self.root)
        self._stack.callback(self.cloud.process.stop)
        self.cloud.admin("organisation", "add", ORGANISATION, "Demo Office")
        self.cloud.admin(
            "site", "add", ORGANISATION, SITE, "--network", "127.0.0.0/8", "--network", "::1/128",
            "--owner-rule", RULE, "--hold", self._hold,
        )  # fmt: skip
        self.password = self.add_user(self.user)
        self.cloud.start()
        self.node = Node(self.root, settings=self._node_settings)
        self._stack.callback(self.node.close)
        self.cups = self._stack.enter_context(PrivateCups({"PULLPRINT_INTAKE": str(self.node.intake)}))
        self.node.configure({"cups_server": "127.0.0.1", "cups_port": self.cups.port, **cups_paths(self.cups)})
        self.node.start()
        managed = () if self._managed else ("--unmanaged",)
        code = json.loads(self.cloud.admin("join-code", ORGANISATION, SITE, "--json", *managed))["code"]
        self.node.pullprint("join", self.cloud.url, code, "--no-queue", "--ca", str(self.cloud.authority))
        self.node.wait_connected()
        self.cups.add_queue("pullprint", "pullprint:/", PPD)

    def add_user(self, name: str) -> str:
        """A new user's password."""
        return str(json.loads(self.cloud.admin("user", "add", ORGANISATION, name, "--json"))["password"])

    def add_printer(self, name: str, uri: str) -> None:
        """Put a printer into the site's inventory, and wait until the node knows it."""
        self.cloud.admin("printer", "add", ORGANISATION, SITE, name, uri)

        def known() -> bool:
            return any(p["name"] == name for p in json.loads(self.node.pullprint("printers", "--json")))

        wait_until(f"printer {name} at the node", known, 15, every=0.1)

    def person(self) -> Person:
        """The user, signed in."""
        return self.cloud.person(self.user, self.password)

    def disks(self) -> list[Path]:
        """Everything that cloud and node keep."""
        return [self.cloud.state, self.node.state, self.node.runtime]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and os.environ.get("PULLPRINT_SHOW_LOGS"):
            for process in (self.cloud.process, self.node.process):
                print(process.log_tail(), file=sys.stderr)
        self._stack.close()
