"""A whole office on one machine: cloud, nodes, private cupsd and printers, each a real process with its own files."""

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
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from tests.rig.cups import BACKEND, PPD, PrivateCups
from tests.rig.namespaces import inside
from tests.rig.processes import Process, free_port, wait_until

from pullprint.vault.upload import seal_upload

BIN = Path(sys.executable).parent
REPOSITORY = Path(__file__).resolve().parents[2]
FACTS = REPOSITORY / "filters" / "pullprint-facts"
CONVERT = REPOSITORY / "filters" / "pullprint-convert"
ORGANISATION = "demo"
SITE = "office"
RULE = "{user}@example.com"
NODES = ("reception", "workshop", "accounting", "warehouse")
"""What the nodes are called where there are several."""
DAEMON = [str(BIN / "pullprintd")]
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
    """A real ``pullprint-cloud serve`` with a private CA, on a port that stays the same when it is restarted.

    *host* is its name or address in the network *namespace*.
    """

    def __init__(
        self, root: Path, port: int = 0, database: str = "", host: str = "localhost", namespace: str = ""
    ) -> None:
        self.host = host
        self.namespace = namespace
        self._address = "127.0.0.1" if host == "localhost" else host
        self.root = root / "cloud"
        self.root.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.config = self.root / "cloud.toml"
        certificates = self.root / "certificates"
        run(BIN / "pullprint-cloud", "certificate", "--host", host, "--host", self._address, "--out", certificates)
        self.authority = certificates / "ca.pem"
        lines = {
            "host": self._address,
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
            [BIN / "pullprint-cloud", "serve", "--config", self.config], self.root / "log", env=ENVIRONMENT,
            namespace=namespace,
        )  # fmt: skip

    @property
    def url(self) -> str:
        """Where people and nodes find it."""
        return f"https://{self.host}:{self.port}"

    @property
    def state(self) -> Path:
        """Its database and files."""
        return self.root / "state"

    def start(self, kill_at: str = "") -> None:
        """Start it, and wait until it answers; it dies of SIGKILL at the checkpoint *kill_at*."""
        self.process.env = {**ENVIRONMENT, "PULLPRINT_KILL_AT": kill_at}
        self.process.start(ready=(self._address, self.port), timeout=30)

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
        self._cloud = cloud
        self._tls = ssl.create_default_context(cafile=str(cloud.authority))
        self.name = name
        self.timeout = 150.0
        """Seconds for an answer."""
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
        connection = http.client.HTTPSConnection(
            self._cloud.host, self._cloud.port, context=self._tls, timeout=self.timeout
        )  # fmt: skip
        headers = {"Content-Type": "application/octet-stream" if octets else "application/json"} | (
            {"Authorization": f"Bearer {self._token}"} if self._token else {}
        )
        try:
            # From the server's own host: people are elsewhere, and no cut within the office stops them.
            with inside(self._cloud.namespace):
                connection.connect()
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
    """A real ``pullprintd`` and the ``pullprint`` command beside it; its mesh listens at *address* of *namespace*."""

    def __init__(
        self,
        root: Path,
        name: str = "node1",
        settings: Mapping[str, str | int] | None = None,
        address: str = "127.0.0.1",
        namespace: str = "",
    ) -> None:
        self.name = name
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
            "mesh_listen": f"{address}:{free_port()}",
        }
        self.submitted = 0
        self.configure(settings or {})
        self._usual: list[str] = []
        """How it is started when nothing about it is altered."""
        self.process = Process(self._argv(DAEMON), self.root / "log", env=ENVIRONMENT, namespace=namespace)

    def configure(self, settings: Mapping[str, str | int]) -> None:
        """Write its configuration anew with *settings*; it is read at the next start."""
        self._settings |= settings
        self.config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in self._settings.items()))

    def start(self, kill_at: str = "", stop_at: str = "", clock: float = 0.0) -> None:
        """Start it, and wait until it takes jobs; it dies of SIGKILL at the checkpoint *kill_at* (`base.checkpoint`),
        or stands still (SIGSTOP) at *stop_at*; its clock is *clock* seconds ahead."""
        self.process.env = {**ENVIRONMENT, "PULLPRINT_KILL_AT": kill_at or stop_at}
        if self._usual:
            self.process.argv, self._usual = self._usual, []
        if stop_at or clock:
            self.process.env["PYTHONPATH"] = str(REPOSITORY)
            program = [sys.executable, "-m", "tests.rig.altered", "stop" if stop_at else "kill", str(clock)]
            self._usual, self.process.argv = self.process.argv, self._argv(program)
        self.process.start(ready=self.intake, timeout=30)

    def _argv(self, program: Sequence[str]) -> list[str]:
        return [*program, "--config", str(self.config)]

    def command(self, *words: str, uid: int | None = None) -> tuple[list[str], dict[str, str]]:
        """``pullprint …`` as the account that runs this or (for root) another one: its argv and environment."""
        env = {**ENVIRONMENT, "PULLPRINT_SOCKET": str(self.control), "NO_COLOR": "1"}
        if uid is None:
            return [str(BIN / "pullprint"), *words], env
        env["PYTHONPATH"] = str(REPOSITORY)
        return [sys.executable, "-m", "tests.rig.as_account", str(uid), *words], env

    def pullprint(self, *words: str, uid: int | None = None, timeout: float = 60.0) -> str:
        """What ``pullprint …`` prints, as the account that runs this or (for root) another one."""
        argv, env = self.command(*words, uid=uid)
        return run(*argv, env=env, timeout=timeout)

    def wait_connected(self, timeout: float = 20.0) -> None:
        """Until it has reached its cloud."""

        def connected() -> bool:
            return bool(json.loads(self.pullprint("status", "--json"))["connected"])

        wait_until("the node's connection to the cloud", connected, timeout, every=0.1)

    @property
    def mesh(self) -> str:
        """Where its mesh listens, ``ADDRESS:PORT``."""
        return str(self._settings["mesh_listen"])

    @property
    def id(self) -> str:
        """What the mesh knows it by."""
        return str(json.loads(self.pullprint("status", "--json"))["node"])

    def submit(
        self, title: str, document: Path, user: str = "", uuid: str = "", content_type: str = "application/octet-stream"
    ) -> None:
        """Hand *document* over with the backend, as cupsd would; the same *uuid* is the same job.

        Raises CommandFailed when it was not stored.
        """
        self.submitted += 1
        environment = {
            "DEVICE_URI": "pullprint:/", "PRINTER": "pullprint", "FINAL_CONTENT_TYPE": content_type,
            "PULLPRINT_INTAKE": str(self.intake), "PULLPRINT_WAIT": "10",
        }  # fmt: skip
        options = f"job-uuid=urn:uuid:{uuid or uuid4()}"
        run(BACKEND, str(self.submitted), user or getpass.getuser(), title, "1", options, document, env=environment)

    def close(self) -> None:
        """End it and its sockets."""
        self.process.stop()
        shutil.rmtree(self.runtime, ignore_errors=True)


def cups_paths(cups: PrivateCups) -> dict[str, str]:
    """A node's settings for where that cupsd has its files."""
    return {"backend_dir": str(cups.root / "lib" / "backend"), "cupsd_conf": str(cups.root / "etc" / "cupsd.conf")}


class Premises:
    """One site: a cloud, its nodes, a user. What stands where is the business of those that are made of it."""

    cloud: Cloud
    password: str

    def __init__(self) -> None:
        # Open to lp, which backends run as, unlike pytest's tmp_path.
        self.root = Path(tempfile.mkdtemp(prefix="pullprint-office-"))
        self.root.chmod(0o755)
        self.account = getpass.getuser()
        self.user = RULE.replace("{user}", self.account)
        self.nodes: list[Node] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.callback(shutil.rmtree, self.root, ignore_errors=True)
        with ExitStack() as undo:
            undo.push(self._stack)
            undo.push(self._show_logs)
            self._set_up()
            undo.pop_all()
        return self

    def _show_logs(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and os.environ.get("PULLPRINT_SHOW_LOGS"):
            for process in (self.cloud.process, *(node.process for node in self.nodes)):
                print(f"--- {process.log}\n{process.log_tail()}", file=sys.stderr)

    def _set_up(self) -> None:
        raise NotImplementedError

    def _open_cloud(self, cloud: Cloud, hold: str, *networks: str) -> None:
        """Start *cloud* with the site, its *networks* and the user."""
        self.cloud = cloud
        self._stack.callback(cloud.process.stop)
        cloud.admin("organisation", "add", ORGANISATION, "Demo Office")
        words = [word for network in networks for word in ("--network", network)]
        cloud.admin("site", "add", ORGANISATION, SITE, *words, "--owner-rule", RULE, "--hold", hold)
        self.password = self.add_user(self.user)
        cloud.start()

    def _join(self, node: Node, *, managed: bool = True) -> None:
        """Start *node* and let it join; it need not be connected yet."""
        node.start()
        unmanaged = () if managed else ("--unmanaged",)
        code = json.loads(self.cloud.admin("join-code", ORGANISATION, SITE, "--json", *unmanaged))["code"]
        node.pullprint("join", self.cloud.url, code, "--no-queue", "--ca", str(self.cloud.authority))

    def add_user(self, name: str) -> str:
        """A new user's password."""
        return str(json.loads(self.cloud.admin("user", "add", ORGANISATION, name, "--json"))["password"])

    def add_printer(self, name: str, uri: str) -> None:
        """Put a printer into the site's inventory, and wait until all nodes know it."""
        self.cloud.admin("printer", "add", ORGANISATION, SITE, name, uri)

        def known(node: Node) -> bool:
            return any(p["name"] == name for p in json.loads(node.pullprint("printers", "--json")))

        for node in self.nodes:
            wait_until(f"printer {name} at {node.name}", partial(known, node), 15, every=0.1)

    def wait_mesh(self, timeout: float = 20.0) -> None:
        """Until every node has reached every other."""

        def awake(node: Node) -> bool:
            try:
                said = node.pullprint("mesh", "--json")
            except CommandFailed as error:
                if error.status != 1:  # 1: jobs lack copies
                    raise
                said = error.output
            peers = json.loads(said)["nodes"]
            return len(peers) == len(self.nodes) and all(peer["here"] or peer["awake"] for peer in peers)

        for node in self.nodes if len(self.nodes) > 1 else ():
            wait_until(f"{node.name}'s mesh", partial(awake, node), timeout, every=0.2)

    def wait_copies(self, title: str, copies: int = 3, timeout: float = 30.0) -> dict[str, Any]:
        """The user's job of that title, once it is held by so many nodes."""
        me = self.person()

        def placed() -> bool:
            job = me.job(title)
            return job is not None and job.get("copies", 0) >= copies

        try:
            wait_until(f"{copies} copies of {title!r}", placed, timeout, every=0.1)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it is {me.job(title)}") from None
        return me.wait_job(title)

    def person(self) -> Person:
        """The user, signed in."""
        return self.cloud.person(self.user, self.password)

    def disks(self) -> list[Path]:
        """Everything that cloud and nodes keep."""
        return [self.cloud.state, *(path for node in self.nodes for path in (node.state, node.runtime))]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show_logs(kind)
        self._stack.close()


class Office(Premises):
    """Cloud, nodes and cupsd, joined and with a user; printers are added by URI. A context manager.

    *nodes* are how many, or their names; the first is `node`, and has the cupsd.
    """

    def __init__(
        self,
        *,
        hold: str = "24h",
        node_settings: Mapping[str, str | int] | None = None,
        managed: bool = True,
        nodes: int | Sequence[str] = 1,
    ) -> None:
        super().__init__()
        self._hold = hold
        self._managed = managed
        self._node_settings = dict(node_settings or {})
        if isinstance(nodes, int):
            nodes = ("node1",) if nodes == 1 else NODES[:nodes]
        self._names = tuple(nodes)

    @property
    def node(self) -> Node:
        """The first one."""
        return self.nodes[0]

    def _set_up(self) -> None:
        self._open_cloud(Cloud(self.root), self._hold, "127.0.0.0/8", "::1/128")
        for name in self._names:
            node = Node(self.root, name, settings=self._node_settings)
            self._stack.callback(node.close)
            self.nodes.append(node)
        self.cups = self._stack.enter_context(PrivateCups({"PULLPRINT_INTAKE": str(self.node.intake)}))
        self.node.configure({"cups_server": "127.0.0.1", "cups_port": self.cups.port, **cups_paths(self.cups)})
        for node in self.nodes:
            self._join(node, managed=self._managed)
        for node in self.nodes:
            node.wait_connected()
        self.wait_mesh()
        self.cups.add_queue("pullprint", "pullprint:/", PPD)
