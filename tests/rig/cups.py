"""A private, real cupsd: its own folders, port and socket; the system's CUPS is neither read nor touched.

Started by root it runs its filters and backends as ``lp``, as an installed cupsd does; started by an ordinary
user it runs wholly as that user.
"""

import grp
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cups
from tests.rig.processes import Process, free_port

REPOSITORY = Path(__file__).resolve().parents[2]
BACKEND = REPOSITORY / "backend" / "pullprint"
PPD = REPOSITORY / "ppd" / "pullprint.ppd"

SYSTEM_CUPSD = Path("/usr/sbin/cupsd")
SYSTEM_SERVERBIN = Path("/usr/lib/cups")
# Those that reach a printer; cups-deviced would start the rest for every `lpinfo -v`, and wait for them.
BACKENDS = ("http", "https", "ipp", "ipps", "lpd", "socket")
CLIENT_TIMEOUT = 60.0

JOB_STATES = {
    3: "pending",
    4: "held",
    5: "processing",
    6: "stopped",
    7: "canceled",
    8: "aborted",
    9: "completed",
}
"""RFC 8011 section 5.3.7."""
ENDED = frozenset({"canceled", "aborted", "completed"})

CUPSD_CONF = """\
Listen 127.0.0.1:{port}
Listen {socket}
LogLevel debug
LogTimeFormat usecs
PageLogFormat
MaxLogSize 0
Browsing No
WebInterface No
DefaultShared No
DefaultAuthType None
PreserveJobFiles No
PreserveJobHistory Yes
DirtyCleanInterval 0
ErrorPolicy retry-job
JobRetryInterval {retry_interval}
JobRetryLimit {retry_limit}
<Location />
  Order allow,deny
  Allow all
</Location>
<Policy default>
  JobPrivateAccess all
  JobPrivateValues none
  SubscriptionPrivateAccess all
  SubscriptionPrivateValues none
  <Limit All>
    Order deny,allow
  </Limit>
</Policy>
"""

CUPS_FILES_CONF = """\
User {user}
Group {group}
SystemGroup {system_group}
FileDevice Yes
Sandboxing Relaxed
SyncOnClose No
ServerRoot {root}/etc
ServerBin {root}/lib
DataDir /usr/share/cups
DocumentRoot /usr/share/cups/doc-root
StateDir {root}/run
CacheDir {root}/cache
RequestRoot {root}/spool
TempDir {root}/tmp
AccessLog {root}/log/access_log
ErrorLog {root}/log/error_log
PageLog {root}/log/page_log
"""


class PrivateCups:
    """A cupsd with our backend in a real copy, as a context manager.

    *environment* reaches every filter and backend (``SetEnv``). *retry_interval* (seconds) and *retry_limit* are
    cupsd's JobRetryInterval and JobRetryLimit (0: for ever; cupsd's default is 5, and then it drops the job).
    """

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        retry_interval: int = 1,
        retry_limit: int = 5,
        backend: Path = BACKEND,
        settings: str = "",
    ) -> None:
        # Not under pytest's tmp_path: that is 0700, and lp has to get through.
        self.root = Path(tempfile.mkdtemp(prefix="pullprint-cups-"))
        self.port = free_port()
        self.socket = self.root / "run" / "cups.sock"
        self._lay_out(backend)
        as_root = os.geteuid() == 0
        user = "lp" if as_root else pwd.getpwuid(os.geteuid()).pw_name
        group = "lp" if as_root else grp.getgrgid(os.getegid()).gr_name
        self._write_files_conf(user, group, dict(environment or {}))
        cupsd_conf = CUPSD_CONF.format(
            port=self.port, socket=self.socket, retry_interval=retry_interval, retry_limit=retry_limit
        )
        (self.root / "etc" / "cupsd.conf").write_text(cupsd_conf + settings)
        self._process = Process(
            [
                self.root / "sbin" / "cupsd",
                "-f",
                "-c",
                self.root / "etc" / "cupsd.conf",
                "-s",
                self.root / "etc" / "cups-files.conf",
            ],
            self.root / "log" / "cupsd.out",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        )

    def _lay_out(self, backend: Path) -> None:
        self.root.chmod(0o755)
        for name in ("etc", "lib/backend", "run", "cache", "spool", "tmp", "log", "home", "sbin"):
            (self.root / name).mkdir(parents=True, mode=0o755)
        # A copy, because an AppArmor profile is attached to the path /usr/sbin/cupsd.
        shutil.copy(SYSTEM_CUPSD, self.root / "sbin" / "cupsd")
        for name in ("cgi-bin", "daemon", "driver", "filter", "monitor", "notifier"):
            (self.root / "lib" / name).symlink_to(SYSTEM_SERVERBIN / name)
        for name in BACKENDS:
            (self.root / "lib" / "backend" / name).symlink_to(SYSTEM_SERVERBIN / "backend" / name)
        # Filters run as lp and need it: gstopdf writes what it reads from a pipe.
        (self.root / "tmp").chmod(0o1777)
        installed = self.root / "lib" / "backend" / "pullprint"
        shutil.copyfile(backend, installed)
        installed.chmod(0o755)
        # What Debian's cups package writes into /etc/cups.
        (self.root / "etc" / "raw.types").write_text("application/octet-stream\n")
        (self.root / "etc" / "raw.convs").write_text("application/octet-stream application/vnd.cups-raw 0 -\n")

    def _write_files_conf(self, user: str, group: str, environment: dict[str, str]) -> None:
        system_group = grp.getgrgid(os.getegid()).gr_name
        files = CUPS_FILES_CONF.format(root=self.root, user=user, group=group, system_group=system_group)
        files += "".join(f"SetEnv {name} {value}\n" for name, value in environment.items())
        (self.root / "etc" / "cups-files.conf").write_text(files)

    @property
    def error_log(self) -> str:
        """cupsd's error_log so far."""
        path = self.root / "log" / "error_log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    @property
    def spool(self) -> Path:
        """RequestRoot: control files ``c…``, documents ``d…``."""
        return self.root / "spool"

    @property
    def pid(self) -> int:
        """cupsd's process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether cupsd was started and lives."""
        return self._process.running

    def start(self) -> None:
        """Start cupsd and wait until it answers."""
        self._process.start(ready=self.socket)

    def stop(self) -> None:
        """End cupsd in order; its folders stay, `start` may follow."""
        self._process.stop()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send cupsd a signal; SIGKILL is a crash, after which `start` may follow.

        Filters and backends of a killed cupsd go on until they notice.
        """
        self._process.kill(number)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def environment(self, user: str | None = None) -> dict[str, str]:
        """What a CUPS client needs in its environment to talk to this cupsd and to no other."""
        kept = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": str(self.root / "home")}
        return kept | {"CUPS_SERVER": str(self.socket)} | ({"CUPS_USER": user} if user else {})

    def run(self, *argv: str, data: bytes | None = None, user: str | None = None) -> str:
        """Run a CUPS client program; its stdout. RuntimeError with its stderr when it fails."""
        done = subprocess.run(
            argv,
            input=data or b"",
            capture_output=True,
            env=self.environment(user),
            timeout=CLIENT_TIMEOUT,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{argv[0]}: exit {done.returncode}: {done.stderr.decode('utf-8', 'replace').strip()}")
        return done.stdout.decode("utf-8", "replace")

    def add_queue(self, name: str, uri: str, ppd: Path | None = None, **options: str) -> None:
        """Make a queue that accepts jobs; without *ppd* a raw one. *options* as for ``lpadmin -o``, _ for -."""
        model = ["-P", str(ppd)] if ppd else ["-m", "raw"]
        extra = [part for key, value in options.items() for part in ("-o", f"{key.replace('_', '-')}={value}")]
        self.run("lpadmin", "-p", name, "-E", "-v", uri, *model, "-o", "printer-error-policy=retry-job", *extra)

    def lp(
        self,
        queue: str,
        document: bytes | Path,
        *options: str,
        user: str | None = None,
        title: str | None = None,
        copies: int | None = None,
    ) -> int:
        """Print with ``lp``; *options* are the words after ``-o``. Returns the CUPS job id."""
        argv = ["lp", "-d", queue, *(part for option in options for part in ("-o", option))]
        argv += ["-t", title] if title is not None else []
        argv += ["-n", str(copies)] if copies is not None else []
        argv += ["--", str(document)] if isinstance(document, Path) else []
        answer = self.run(*argv, data=document if isinstance(document, bytes) else None, user=user)
        found = re.search(r"-(\d+) \(", answer)
        if found is None:
            raise RuntimeError(f"lp said: {answer}")
        return int(found[1])

    def connection(self) -> Any:
        """A pycups connection to this cupsd; for one thread, and for as long as this cupsd lives."""
        return cups.Connection(host=str(self.socket))

    def job_states(self) -> dict[int, str]:
        """Every job that cupsd remembers, with its state's word (`JOB_STATES`)."""
        jobs = self.connection().getJobs(which_jobs="all", requested_attributes=["job-id", "job-state"])
        return {job: JOB_STATES[attributes["job-state"]] for job, attributes in jobs.items()}

    def job(self, job: int) -> dict[str, Any]:
        """All IPP attributes of one job."""
        attributes: dict[str, Any] = self.connection().getJobAttributes(job)
        return attributes

    def printer(self, queue: str) -> dict[str, Any]:
        """All IPP attributes of one queue."""
        attributes: dict[str, Any] = self.connection().getPrinterAttributes(queue)
        return attributes

    def wait_job(self, job: int, timeout: float = 30.0) -> str:
        """Wait until the job has ended: ``completed``, ``canceled`` or ``aborted``."""
        deadline = time.monotonic() + timeout
        state = "unknown"
        while time.monotonic() < deadline:
            state = self.job_states().get(job, "unknown")
            if state in ENDED:
                return state
            time.sleep(0.02)
        raise TimeoutError(f"job {job} is {state} after {timeout:g} s:\n{self.error_log[-2_000:]}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.root, ignore_errors=True)
