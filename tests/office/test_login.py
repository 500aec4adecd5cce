"""``pullprint login`` on a host that is not managed: real accounts, a real node and cloud, the answer over the web API."""

import json
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.rig.documents import pdf
from tests.rig.office import Answer, CommandFailed, Office, Person
from tests.rig.printers import IppPrinter
from tests.rig.processes import wait_until

USER = "ada@example.com"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several accounts")


@pytest.fixture(scope="module")
def office() -> Iterator[Office]:
    with Office(managed=False) as office:
        yield office


@pytest.fixture(scope="module")
def ada(office: Office) -> Person:
    return office.cloud.person(USER, office.add_user(USER))


@pytest.fixture(scope="module")
def lobby(office: Office) -> Iterator[IppPrinter]:
    with IppPrinter("Lobby") as printer:
        office.add_printer("Lobby", printer.uri)
        yield printer


class Login:
    """A ``pullprint login --json`` that runs."""

    def __init__(self, office: Office, account: str = "") -> None:
        argv, env = office.node.command("login", "--json", uid=uid_of(account) if account else None)
        self.process = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def code(self) -> str:
        """The code that it shows."""
        assert self.process.stdout is not None
        return str(json.loads(self.process.stdout.readline())["user_code"])

    def end(self, timeout: float = 20.0) -> tuple[int, str, str]:
        """Exit code, the rest of standard output, standard error."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err

    def __enter__(self) -> "Login":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def uid_of(account: str) -> int:
    return pwd.getpwnam(account).pw_uid


def allow(person: Person, code: str, *, answer: bool = True) -> None:
    person.post(f"/api/v1/logins/{code}", {"allow": answer})


def accounts(person: Person) -> list[str]:
    return sorted(s["name"] for s in person.get("/api/v1/sessions") if s["kind"] == "account")


def test_account_that_logs_in_owns_and_releases_what_it_prints(office: Office, ada: Person, lobby: IppPrinter) -> None:
    office.cups.lp("pullprint", pdf(), user="games", title="before.pdf")
    wait_until("the job", lambda: "before.pdf" in office.node.pullprint("jobs", uid=uid_of("games")))
    with pytest.raises(CommandFailed, match="Nobody owns this job yet"):
        office.node.pullprint("release", uid=uid_of("games"))
    with Login(office, "games") as login:
        code = login.code()
        shown = ada.get(f"/api/v1/logins/{code}")
        assert (shown["account"], shown["host"], shown["site"]) == ("games", "node1", "office")
        allow(ada, code)
        status, out, err = login.end()
    assert (status, err) == (0, "")
    assert json.loads(out)["state"] == "allowed" and json.loads(out)["user"] == USER
    assert accounts(ada) == ["games on node1"]
    document = pdf(2)
    office.cups.lp("pullprint", document, user="games", title="after.pdf")
    office.cups.lp("pullprint", pdf(), user="sys", title="not-mine.pdf")
    job = ada.wait_job("after.pdf", "held")
    assert (job["owner"], job["submitter"]) == (USER, "games")
    with pytest.raises(CommandFailed, match="no such job"):
        office.node.pullprint("release", job["id"], uid=uid_of("sys"))
    office.node.pullprint("release", job["id"], uid=uid_of("games"))
    assert [p.document for p in lobby.wait_documents(1)] == [document]
    ada.wait_job("after.pdf", "done")
    assert [job["title"] for job in ada.jobs()] == ["after.pdf"], "what other accounts print is not hers"


def test_account_that_was_taken_back_is_nobody_again(office: Office, ada: Person) -> None:
    with Login(office, "bin") as login:
        allow(ada, login.code())
        assert login.end()[0] == 0
    which = next(s["id"] for s in ada.get("/api/v1/sessions") if s["name"] == "bin on node1")
    ada.delete(f"/api/v1/sessions/{which}")
    assert "bin on node1" not in accounts(ada)

    def unowned() -> bool:
        title = f"{time.monotonic()}.pdf"
        office.cups.lp("pullprint", pdf(), user="bin", title=title)
        wait_until(title, lambda: title in office.node.pullprint("jobs", uid=uid_of("bin")))
        jobs = json.loads(office.node.pullprint("jobs", "--json", uid=uid_of("bin")))
        return next(job for job in jobs if job["title"] == title)["owner"] == ""

    wait_until("the node to know", unowned, 10, every=0.5)


def test_denied_login_says_so_and_binds_nothing(office: Office, ada: Person) -> None:
    with Login(office, "sync") as login:
        allow(ada, login.code(), answer=False)
        status, out, err = login.end()
    assert status == 4 and json.loads(out)["state"] == "denied"
    assert json.loads(err)["code"] == "login-denied"
    assert "sync on node1" not in accounts(ada)


def test_interrupted_login_leaves_nothing_behind(office: Office, ada: Person) -> None:
    with Login(office, "man") as login:
        code = login.code()
        login.process.send_signal(signal.SIGINT)
        assert login.end()[0] == 130
    with pytest.raises(Answer) as refused:
        allow(ada, code)
    assert refused.value.code == "login-refused"
    assert "man on node1" not in accounts(ada)


def test_two_terminals_of_one_account_show_one_code_and_accounts_do_not_share(office: Office, ada: Person) -> None:
    with Login(office, "mail") as first, Login(office, "mail") as second, Login(office, "news") as other:
        code, same, another = first.code(), second.code(), other.code()
        assert code == same != another
        allow(ada, code)
        assert first.end()[0] == second.end()[0] == 0
        assert other.process.poll() is None
        allow(ada, another, answer=False)
        assert other.end()[0] == 4


def test_root_may_be_somebody_too(office: Office, ada: Person) -> None:
    with Login(office) as login:
        code = login.code()
        assert ada.get(f"/api/v1/logins/{code}")["account"] == "root"
        allow(ada, code)
        assert login.end()[0] == 0


def test_login_survives_a_cloud_that_is_away_for_a_while(office: Office, ada: Person) -> None:
    with Login(office, "uucp") as login:
        code = login.code()
        allow(ada, code)
        office.cloud.process.kill()
        time.sleep(4)
        assert login.process.poll() is None
        office.cloud.start()
        status, out, _ = login.end(60)
    office.node.wait_connected()
    assert status == 0 and json.loads(out)["user"] == USER


def test_uid_without_an_account_is_refused(office: Office) -> None:
    uid = 54_321
    with pytest.raises(KeyError):
        pwd.getpwuid(uid)
    with pytest.raises(CommandFailed) as refused:
        office.node.pullprint("login", uid=uid)
    assert refused.value.status == 4
    assert "has no name" in refused.value.output and "Traceback" not in refused.value.output


def test_no_code_is_in_a_log_or_on_the_nodes_disk(office: Office, ada: Person) -> None:
    with Login(office, "list") as login:
        code = login.code()
        files = [path for path in office.node.state.rglob("*") if path.is_file()]
        logs: list[Path] = [office.node.process.log, office.cloud.process.log]
        found = [path for path in files + logs if code.encode() in path.read_bytes()]
        assert files and found == []
        allow(ada, code, answer=False)
        login.end()
