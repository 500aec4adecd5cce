"""An office from nothing: a server and two hosts, one of them with a printer beside it, installed as an admin would.

The tests are one story and run in the order in which they stand here; what is destroyed is destroyed at the end.
"""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.packages.conftest import NEW, OLD, Repository, Site
from tests.packages.machines import Machine
from tests.rig import documents
from tests.rig.processes import wait_until

PRINTER = "ipp://10.77.0.2:8631/ipp/print"
PRINTED = "/srv/printed"
CA = "/etc/pullprint/cloud/ca.pem"
PASSWORD = "a sentence that only ada knows"
UNITS = ("pullprintd.service", "pullprint-sandbox@.service", "pullprint-cloud.service")


@dataclass(frozen=True)
class Office:
    """The server, the host with the printer beside it, another host."""

    cloud: Machine
    front: Machine
    back: Machine
    link: str
    """Ada's first sign-in."""

    def printed(self) -> list[str]:
        """The text of everything that came out of the printer, in no order."""
        said = self.front.shell(f"for f in {PRINTED}/*.pdf; do [ -e $f ] && pdftotext -q $f - | head -1; done; true")
        return [line.strip() for line in said.splitlines() if line.strip()]

    def web(self, method: str, path: str, body: object = None, token: str = "") -> tuple[int, str]:
        """A request to the server's API, from a host of the office."""
        command = [f"curl -s --cacert /root/ca.pem -X {method} -w '\\n%{{http_code}}'"]
        if token:
            command.append(f"-H 'Authorization: Bearer {token}'")
        if body is not None:
            command.append("-H 'Content-Type: application/json' --data-binary @-")
        said = self.front.shell(f"{' '.join(command)} https://print.example.com{path}", typed=json.dumps(body))
        answer, _, status = said.rpartition("\n")
        return int(status), answer


def lp(machine: Machine, text: str) -> None:
    """Print *text* as Ada, the way any program does."""
    (machine.root / "srv/document.pdf").write_bytes(documents.letter(text))
    machine.shell("lp -d pullprint -t 'A letter' /srv/document.pdf", user="ada")


def jobs(machine: Machine) -> list[dict[str, object]]:
    """Ada's held jobs there."""
    found: list[dict[str, object]] = json.loads(machine.shell("pullprint jobs --json", user="ada"))
    return found


def status(machine: Machine) -> dict[str, object]:
    """How the daemon there says it is."""
    said: dict[str, object] = json.loads(machine.shell("pullprint status --json"))
    return said


def wait_held(machine: Machine, count: int) -> None:
    wait_until(f"{count} jobs are held at {machine.name}", lambda: len(jobs(machine)) == count, 60, 0.2)


def install(machine: Machine, package: str) -> str:
    machine.shell("apt-get -q update")
    return machine.shell(f"apt-get -q -y --no-install-recommends install {package}", timeout=600)


def join(machine: Machine, command: str) -> str:
    return machine.shell(f"{command} --yes")


@pytest.fixture(scope="module")
def cloud(site: Site) -> Iterator[Machine]:
    with site.machine("print", 1) as machine:
        yield machine


@pytest.fixture(scope="module")
def office(site: Site, cloud: Machine) -> Iterator[Office]:
    assert "idle until it is set up: pullprint-cloud setup" in install(cloud, "pullprint-cloud")
    assert cloud.status_of("systemctl is-active pullprint-cloud")[1].strip() == "inactive"
    said = cloud.shell(
        "pullprint-cloud setup --yes --url https://print.example.com --organisation 'Acme Ltd' --site hq"
        " --network 10.77.0.0/24 --owner-rule '{user}@example.com' --user ada@example.com"
    )
    link = re.search(r"https://print\.example\.com/welcome#\S+", said)
    command = re.search(r"pullprint join https://print\.example\.com \S+", said)
    assert link and command, said
    cloud.shell(f"pullprint-cloud printer add acme-ltd hq Foyer {PRINTER}")
    authority = cloud.shell(f"cat {CA}")
    with site.machine("front", 2) as front, site.machine("back", 3) as back:
        for machine in (front, back):
            machine.shell("cat > /root/ca.pem", typed=authority)
            install(machine, "pullprint cups-ipp-utils poppler-utils curl")
        front.shell(f"mkdir {PRINTED} && systemd-run -q --unit=printer ippeveprinter -r off -c /bin/true -p 8631"
                    f" -f application/pdf -k -d {PRINTED} Foyer")  # fmt: skip
        another = cloud.shell("pullprint-cloud join-code acme-ltd hq --json")
        join(front, f"{command[0]} --ca /root/ca.pem")
        join(back, f"pullprint join https://print.example.com {json.loads(another)['code']} --ca /root/ca.pem")
        yield Office(cloud, front, back, link[0])


def test_installing_starts_what_waits_and_touches_nothing_of_cups(site: Site) -> None:
    with site.machine("fresh", 9) as machine:
        machine.shell("apt-get -q update && apt-get -q -y --no-install-recommends install cups", timeout=600)
        before = machine.shell("md5sum /etc/cups/*; lpstat -v 2>&1; lpstat -a 2>&1; true")
        said = install(machine, "pullprint")
        assert "idle until this host is joined: pullprint join https://CLOUD CODE" in said
        assert machine.shell("md5sum /etc/cups/*; lpstat -v 2>&1; lpstat -a 2>&1; true") == before
        for unit in (
            "pullprintd.socket",
            "pullprintd-control.socket",
            "pullprint-sandbox.socket",
            "pullprintd.service",
        ):
            assert machine.shell(f"systemctl is-enabled {unit} && systemctl is-active {unit}").split() == [
                "enabled", "active"], unit  # fmt: skip
        assert "pullprint" in machine.shell("lpinfo -v")
        status, said = machine.status_of("pullprint doctor")
        assert status == 1 and "pullprint join" in said
        status, said = machine.status_of("pullprint join https://print.example.com 7KQ2-M9XD")
        assert status and "print.example.com" in said and "Traceback" not in said
        machine.shell("apt-get -q -y purge pullprint pullprint-runtime")
        assert nothing_left(machine) == ""


@pytest.mark.long
def test_a_full_disk_while_installing_leaves_a_system_on_which_it_can_be_repeated(site: Site) -> None:
    with site.machine("full", 8) as machine:
        machine.shell("apt-get -q update && apt-get -q -y --no-install-recommends install python3 cups", timeout=600)
        machine.shell("mkdir -p /usr/lib/pullprint && mount -t tmpfs -o size=30m tmpfs /usr/lib/pullprint")
        status, said = machine.status_of("apt-get -q -y --no-install-recommends install pullprint")
        assert status and "No space left on device" in said
        assert machine.shell("ls -A /usr/lib/pullprint") == "", "what was unpacked so far is taken back"
        assert machine.status_of("systemctl is-active pullprintd")[1].strip() == "inactive"
        assert "fix-broken" in machine.status_of("apt-get -q -y install pullprint")[1], "apt says what to do"
        machine.shell("umount /usr/lib/pullprint && apt-get -q -y --no-install-recommends --fix-broken install")
        machine.shell("systemctl is-active pullprintd")
        assert machine.shell("dpkg --audit") == ""


def test_units_are_hardened(office: Office) -> None:
    for machine, units in ((office.front, UNITS[:2]), (office.cloud, UNITS[2:])):
        for unit in units:
            name = unit.replace("@", "@1")
            said = machine.shell(f"systemd-analyze security --no-pager {name}")
            exposure = float(re.findall(r"Overall exposure level for \S+: ([0-9.]+)", said)[0])
            assert exposure <= 1.5, said


def test_the_doctor_is_content(office: Office) -> None:
    for machine in (office.front, office.back):
        status, said = machine.status_of("pullprint doctor")
        assert status == 0, said


def test_a_document_is_counted_held_and_released_from_the_terminal_of_its_host(office: Office) -> None:
    lp(office.front, "From the front")
    wait_held(office.front, 1)
    wait_until("its pages are counted", lambda: "1" in str(jobs(office.front)[0].get("facts")), 60, 0.2)
    assert office.front.status_of(
        "grep -rl 'Name (A letter)\\|%PDF\\|Helvetica' /var/lib/pullprint /run/pullprint"
    ) == (1, "")
    office.front.shell("pullprint release --all -P Foyer", user="ada")
    assert office.printed() == ["From the front"]


def test_it_is_released_on_the_web_page_by_who_signed_in_with_the_first_link(office: Office) -> None:
    token = office.link.partition("#")[2]
    status, answer = office.web("POST", "/api/v1/welcome/accept", {"token": token, "password": PASSWORD})
    assert status == 201, answer
    session = json.loads(answer)["token"]
    lp(office.back, "From the back")
    held: list[str] = []

    def arrived() -> bool:
        found = json.loads(office.web("GET", "/api/v1/jobs", token=session)[1])["jobs"]
        held[:] = [job["id"] for job in found if job["state"] == "held"]
        return bool(held)

    wait_until("the page shows it", arrived, 60, 0.3)
    status, answer = office.web("POST", f"/api/v1/jobs/{held[0]}/release", {"printer": "Foyer"}, session)
    assert status == 202, answer
    wait_until("it is printed", lambda: "From the back" in office.printed(), 60, 0.3)


def test_a_job_outlives_a_reboot_of_its_host(office: Office) -> None:
    lp(office.back, "From before the reboot")
    wait_held(office.back, 1)
    office.back.reboot()
    wait_until("the host is back", lambda: office.back.status_of("pullprint jobs", user="ada")[0] == 0, 60, 0.3)
    wait_held(office.back, 1)
    wait_until("it is connected", lambda: status(office.back)["connected"], 60, 0.3)
    office.back.shell("pullprint release --all -P Foyer", user="ada")
    assert office.printed().count("From before the reboot") == 1


def test_what_is_printed_while_the_daemon_is_down_waits_at_its_socket(office: Office) -> None:
    office.front.shell("systemctl stop pullprintd")
    lp(office.front, "While it was down")
    wait_held(office.front, 1)  # its socket has started it again
    office.front.shell("pullprint cancel " + str(jobs(office.front)[0]["id"]), user="ada")


def test_a_broken_configuration_is_told_with_its_line_and_the_last_good_one_serves(office: Office) -> None:
    office.front.shell("printf 'name = \"front\"\\nlog-level = 7\\n' > /etc/pullprint/pullprint.toml")
    office.front.shell("systemctl restart pullprintd")
    status, said = office.front.status_of("pullprint doctor")
    assert status == 1 and "line 2" in said
    lp(office.front, "All the same")
    wait_held(office.front, 1)
    office.front.shell("pullprint cancel " + str(jobs(office.front)[0]["id"]), user="ada")
    office.front.shell("rm /etc/pullprint/pullprint.toml && systemctl restart pullprintd && pullprint doctor")


@pytest.mark.long
def test_an_upgrade_under_load_loses_nothing_and_prints_nothing_twice(
    office: Office, repository: Repository, newer_debs: object
) -> None:
    repository.add(newer_debs)  # type: ignore[arg-type]
    front = office.front
    already = len(office.printed())
    for number in range(1, 2_000):
        (front.root / f"srv/{number}.pdf").write_bytes(documents.letter(f"Letter {number}."))
    printing = front.start(
        "i=0; while [ ! -e /tmp/enough ]; do i=$((i+1)); lp -d pullprint /srv/$i.pdf || exit 1;"
        " sleep 0.3; done; echo $i > /tmp/count", user="ada")  # fmt: skip
    releasing = front.start(
        "while [ ! -e /tmp/enough ]; do pullprint release --all -P Foyer; sleep 0.2; done", user="ada"
    )
    try:
        time.sleep(3)
        front.shell("cp /usr/share/doc/pullprint/examples/52pullprint-unattended-upgrades /etc/apt/apt.conf.d/"
                    " && apt-get -q update")  # fmt: skip
        install(front, "unattended-upgrades")
        front.shell("unattended-upgrade -v", timeout=600)
        time.sleep(3)
    finally:
        front.shell("touch /tmp/enough; chmod 666 /tmp/enough")
        said = printing.communicate(timeout=120)[0]
        releasing.communicate(timeout=300)
    assert printing.returncode == 0, said
    assert front.shell("pullprintd --version").split()[-1] == NEW
    assert status(front)["version"] == NEW, "the one that runs is the new one"
    count = int(front.shell("cat /tmp/count"))
    assert count >= 10

    def through() -> bool:
        front.status_of("pullprint release --all -P Foyer", user="ada")
        return len(office.printed()) - already >= count

    wait_until("every letter is printed", through, 300, 0.5)
    wait_until("nothing is under way", lambda: not jobs(front), 60, 0.5)
    time.sleep(5)  # whatever would print one again has tried by now
    letters = [text for text in office.printed() if text.startswith("Letter ")]
    assert sorted(letters) == sorted(f"Letter {number}." for number in range(1, count + 1))


@pytest.mark.long
def test_hosts_before_and_behind_their_cloud_go_on_printing(office: Office) -> None:
    shown = office.cloud.shell("pullprint-cloud node list acme-ltd --json")
    assert {line["name"]: line["version"] for line in json.loads(shown)} == {"front": NEW, "back": OLD}
    for machine in (office.front, office.back):
        lp(machine, f"Version of {machine.name}, old cloud")
        wait_held(machine, 1)
        machine.shell("pullprint release --all -P Foyer", user="ada")
    assert status(office.front)["cloud_version"] == OLD
    install(office.cloud, "pullprint-cloud")
    for machine in (office.front, office.back):
        wait_until("it knows the new one", lambda m=machine: status(m)["cloud_version"] == NEW, 90, 0.5)  # type: ignore[misc]
        lp(machine, f"Version of {machine.name}, new cloud")
        wait_held(machine, 1)
        machine.shell("pullprint release --all -P Foyer", user="ada")
    letters = [text for text in office.printed() if text.startswith("Version of")]
    assert sorted(letters) == sorted(
        f"Version of {host}, {age} cloud" for host in ("front", "back") for age in ("old", "new")
    )


def test_removing_keeps_what_is_held_and_purging_shreds_it(office: Office) -> None:
    back = office.back
    lp(back, "To be kept")
    wait_held(back, 1)
    said = back.shell("apt-get -q -y remove pullprint")
    assert "pullprint" in said and "lpadmin -x" in said
    back.shell("test -d /var/lib/pullprint/keys")
    lp(back, "Printed while it was away")
    install(back, "pullprint")
    wait_held(back, 2)
    back.shell("lpadmin -x pullprint")
    back.shell("apt-get -q -y purge pullprint pullprint-runtime")
    assert nothing_left(back) == ""
    office.cloud.shell("apt-get -q -y purge pullprint-cloud pullprint-runtime")
    assert nothing_left(office.cloud) == ""


def nothing_left(machine: Machine) -> str:
    """Every trace of the packages, but for the logs of apt and dpkg, what the test itself brought, and what
    is CUPS's: its settings as `pullprint doctor --repair` was asked to change them, and its cache."""
    files = machine.shell(
        "find / -xdev \\( -path /proc -o -path /sys -o -path /srv -o -path /var/log -o -path /var/cache/apt"
        " -o -path /var/lib/apt -o -path /etc/apt -o -path /etc/cups -o -path /var/cache/cups -o -path /usr/share/keyrings \\) -prune -o -name '*pullprint*' -print;"
        " getent passwd | grep pullprint; systemctl list-units --all --plain --no-legend 'pullprint*';"
        " ls -d /run/*pullprint* 2>/dev/null; ps -e -o comm= | grep pullprint; true"
    )
    return files.strip()
