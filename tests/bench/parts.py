"""What several benchmarks are built from: an office with a cupsd as Debian configures one, and its control socket."""

import http.client
import json
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.rig.cups import PrivateCups
from tests.rig.office import Office
from tests.rig.processes import wait_until

DEBIAN = "LogLevel warn\nDirtyCleanInterval 30\nMaxJobs 0\n"
"""The rig logs all and saves at once, so that tests can look; that would slow the baseline down. MaxJobs only keeps
cupsd from refusing the jobs of a long run."""


class Control:
    """A kept connection to a node's control socket."""

    def __init__(self, path: Path) -> None:
        self._connection = http.client.HTTPConnection("localhost", timeout=60)
        self._connection.sock = socket.socket(socket.AF_UNIX)
        self._connection.sock.settimeout(60)
        self._connection.sock.connect(str(path))

    def request(self, method: str, target: str, body: dict[str, object] | None = None) -> Any:
        """The JSON answer. Raises RuntimeError with a refusal."""
        headers = {"Content-Type": "application/json"}
        self._connection.request(method, target, None if body is None else json.dumps(body), headers)
        response = self._connection.getresponse()
        answer = json.loads(response.read())
        if response.status >= 300:
            raise RuntimeError(f"{method} {target}: {response.status} {answer}")
        return answer

    def jobs(self) -> list[dict[str, Any]]:
        """Every job of the node."""
        jobs: list[dict[str, Any]] = self.request("GET", "/v1/jobs?all=1")
        return jobs

    def held(self) -> int:
        """How many jobs are held."""
        return int(self.request("GET", "/v1/status")["held"])

    def wait_quiet(self, timeout: float = 300.0) -> None:
        """Until every document's facts are counted and the cloud knows all."""

        def quiet() -> bool:
            counted = all(job["facts"] or job["state"] != "held" for job in self.jobs())
            return counted and self.request("GET", "/v1/status")["unreported"] == 0

        wait_until("a quiet node", quiet, timeout, every=0.1)

    def delete_all(self) -> None:
        """Leave no job."""
        for job in self.jobs():
            if job["state"] == "held":
                self.request("DELETE", f"/v1/jobs/{job['id']}")
        self.wait_quiet()

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


@contextmanager
def debian_cups(office: Office) -> Iterator[PrivateCups]:
    """A second cupsd of *office*, with Debian's own settings."""
    with PrivateCups({"PULLPRINT_INTAKE": str(office.node.intake)}, settings=DEBIAN) as cups:
        yield cups


def submit(cups: PrivateCups, queues: Sequence[str], document: bytes, jobs: int, *, content_type: str) -> None:
    """Print *document* *jobs* times, spread over *queues*, by IPP through libcups: a client for each queue."""

    def client(number: int) -> None:
        connection, queue = cups.connection(), queues[number]
        for _ in range(number, jobs, len(queues)):
            job = connection.createJob(queue, "bench", {})
            connection.startDocument(queue, job, "bench", content_type, 1)
            connection.writeRequestData(document, len(document))
            connection.finishDocument(queue)

    with ThreadPoolExecutor(len(queues)) as pool:
        list(pool.map(client, range(len(queues))))
