"""What is in the packages: the same bytes each time, what Debian's own checker says, where everything lies."""

import re
import subprocess
from pathlib import Path

import pytest
from tests.packages.conftest import build
from tests.packages.machines import run


@pytest.mark.long
def test_a_second_build_has_the_same_bytes(debs: Path, tmp_path: Path) -> None:
    again = build(tmp_path / "again")
    names = sorted(path.name for path in debs.glob("*.deb"))
    assert len(names) == 3
    for name in names:
        assert (debs / name).read_bytes() == (again / name).read_bytes(), name


@pytest.mark.long
def test_lintian_finds_no_error_and_nothing_that_is_not_explained_by_name(debs: Path) -> None:
    done = subprocess.run(["lintian", "--allow-root", "--tag-display-limit", "0", *sorted(debs.glob("*.deb"))],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert (done.stdout, done.returncode) == ("", 0), done.stderr


@pytest.mark.parametrize("package", ["pullprint", "pullprint-cloud", "pullprint-runtime"])
def test_every_file_belongs_to_root_and_only_root_may_change_it(debs: Path, package: str) -> None:
    (deb,) = debs.glob(f"{package}_*.deb")
    for line in run("dpkg-deb", "--contents", deb).splitlines():
        mode, owner, *_, name = line.split()
        assert owner == "root/root" and (mode[0] == "l" or mode[5] == mode[8] == "-"), name


def test_an_upgrade_restarts_the_daemon_and_leaves_its_sockets_open(debs: Path, tmp_path: Path) -> None:
    (deb,) = debs.glob("pullprint_*.deb")
    run("dpkg-deb", "--control", deb, tmp_path / "control")
    postinst = (tmp_path / "control/postinst").read_text()
    actions = re.findall(r"deb-systemd-invoke (\S+) (.+?) >/dev/null", postinst)
    restarted = {unit.strip("'") for action, units in actions if action == "$_dh_action" for unit in units.split()}
    started = {unit.strip("'") for action, units in actions if action == "start" for unit in units.split()}
    assert restarted == {"pullprintd.service"}
    assert started == {
        "pullprintd.socket", "pullprintd-control.socket", "pullprint-sandbox.socket", "pullprint-sleep.service"
    }  # fmt: skip


def test_what_cups_runs_are_files_of_their_own_with_the_mode_that_it_asks_for(debs: Path) -> None:
    (deb,) = debs.glob("pullprint_*.deb")
    lines = run("dpkg-deb", "--contents", deb).splitlines()
    found = {line.split()[5]: line.split()[0] for line in lines}
    for name in ("backend/pullprint", "filter/pullprint-facts", "filter/pullprint-convert"):
        assert found[f"./usr/lib/cups/{name}"] == "-rwxr-xr-x", name
