"""What `make macos-layout` lays out: files, modes, launchd's list, and the scripts that Installer runs.

The scripts run here in a folder that stands for the volume, with stand-ins for the Mac's own commands that write down
how they were called.
"""

import os
import plistlib
import re
import stat
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.macos.test_platform import paths

from pullprint.node.app import GRACE

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGING = REPOSITORY / "packaging" / "macos"
HOME = "Library/Pullprint"
JOB = "Library/LaunchDaemons/org.pullprint.pullprintd.plist"
SHELL_SCRIPTS = ["build-pkg", "uninstall", "scripts/preinstall", "scripts/postinstall"]
PYTHON = "/Library/Frameworks/Python.framework/Versions/3.12/bin/python3.12"

# launchd.plist(5), of launchd's last published source (man/launchd.plist.5) and of macOS 10.14.
KEYS: dict[str, type | tuple[type, ...]] = {
    "Label": str, "Disabled": bool, "UserName": str, "GroupName": str, "Program": str, "ProgramArguments": list,
    "EnableTransactions": bool, "KeepAlive": (bool, dict), "RunAtLoad": bool, "WorkingDirectory": str,
    "EnvironmentVariables": dict, "Umask": int, "ExitTimeOut": int, "ThrottleInterval": int, "InitGroups": bool,
    "StandardOutPath": str, "StandardErrorPath": str, "SoftResourceLimits": dict, "HardResourceLimits": dict,
    "Nice": int, "ProcessType": str, "AbandonProcessGroup": bool, "Sockets": dict,
}  # fmt: skip
SOCKET_KEYS = {"SockType": str, "SockPassive": bool, "SockPathName": str, "SockPathMode": int, "SockFamily": str}
LIMITS = {"Core", "CPU", "Data", "FileSize", "MemoryLock", "NumberOfFiles", "NumberOfProcesses", "ResidentSetSize",
          "Stack"}  # fmt: skip


@pytest.fixture(scope="module")
def root(layout: Path) -> Path:
    return layout / "root"


@pytest.fixture(scope="module")
def job(root: Path) -> dict[str, Any]:
    with (root / JOB).open("rb") as file:
        return plistlib.load(file)


def test_every_key_is_one_of_launchds(job: dict[str, Any]) -> None:
    for key, value in job.items():
        assert isinstance(value, KEYS[key]), key
        assert KEYS[key] is not int or not isinstance(value, bool), key
    for name, described in job["Sockets"].items():
        for key, value in described.items():
            assert isinstance(value, SOCKET_KEYS[key]), f"{name}: {key}"
    for kind in ("SoftResourceLimits", "HardResourceLimits"):
        assert set(job[kind]) <= LIMITS


def test_the_job_is_what_the_daemon_expects(job: dict[str, Any], root: Path) -> None:
    told = paths("darwin")
    assert f"{job['Label']}.plist" == Path(JOB).name
    assert told["STOP_DAEMON"].endswith(f"system/{job['Label']}")
    assert {name: described["SockPathName"] for name, described in job["Sockets"].items()} == {
        "intake": told["INTAKE_SOCKET"], "control": told["CONTROL_SOCKET"],
    }  # fmt: skip
    app = (REPOSITORY / "daemon/pullprint/node/app.py").read_text()
    assert 'launchd_sockets("intake", "control")' in app
    assert [described["SockPathMode"] for described in job["Sockets"].values()] == [0o666, 0o666]
    assert job["Umask"] == 0o077
    assert job["UserName"] == job["GroupName"] == "_pullprint" and job["KeepAlive"] is True
    assert job["ExitTimeOut"] > GRACE, "deliveries get that long to end"
    [program] = job["ProgramArguments"]
    assert os.access(root / program.lstrip("/"), os.X_OK)


def test_the_layout_is_this_and_nothing_else(root: Path) -> None:
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_symlink() or path.is_file()}
    code = f"{HOME}/lib/python3.12/site-packages/pullprint/"
    assert {path for path in found if not path.startswith(code)} == {
        f"{HOME}/bin/python3", f"{HOME}/bin/pullprint", f"{HOME}/bin/pullprintd", f"{HOME}/pyvenv.cfg",
        f"{HOME}/uninstall", f"{HOME}/LICENSE", JOB, "usr/local/bin/pullprint",
        "usr/libexec/cups/backend/pullprint", "Library/Printers/PPDs/Contents/Resources/pullprint.ppd",
    }  # fmt: skip
    ours = {str(path.relative_to(REPOSITORY / "daemon/pullprint")) for path in
            (REPOSITORY / "daemon/pullprint").rglob("*") if path.is_file() and "__pycache__" not in path.parts}  # fmt: skip
    assert {path.removeprefix(code) for path in found if path.startswith(code)} == ours
    told = paths("darwin")
    assert (root / told["QUEUE_DESCRIPTION"].lstrip("/")).read_bytes() == (
        REPOSITORY / "ppd/pullprint.ppd"
    ).read_bytes()
    assert (root / told["BACKENDS"].lstrip("/") / "pullprint").is_file()


def test_modes_are_what_cupsd_and_launchd_demand(root: Path) -> None:
    """cupsd runs no program that others than root may write, nor from such a folder; 0755, not 0700, which would run
    it as root (scheduler/util.c, cupsd's _cupsFileCheck). launchd refuses lists that others may write."""
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            assert not stat.S_IMODE(path.stat().st_mode) & 0o7022, path
    assert stat.S_IMODE((root / "usr/libexec/cups/backend/pullprint").stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "usr/libexec/cups/backend").stat().st_mode) == 0o755
    for path in (JOB, "Library/Printers/PPDs/Contents/Resources/pullprint.ppd"):
        assert stat.S_IMODE((root / path).stat().st_mode) == 0o644


def test_the_backend_is_ours_with_an_interpreter_that_cupsds_sandbox_may_read(root: Path) -> None:
    first, rest = (root / "usr/libexec/cups/backend/pullprint").read_text().split("\n", 1)
    assert first == "#!/Library/Pullprint/bin/python3 -ISXutf8"
    assert rest == (REPOSITORY / "backend/pullprint").read_text().split("\n", 1)[1]
    for path in (f"{HOME}/bin/pullprint", f"{HOME}/bin/pullprintd"):
        assert (root / path).read_text().startswith("#!/Library/Pullprint/bin/python3 -I\n")
    assert os.readlink(root / f"{HOME}/bin/python3") == PYTHON
    assert (root / "usr/local/bin/pullprint").readlink() == Path("/Library/Pullprint/bin/pullprint")


def test_the_environment_and_its_commands_work_with_the_interpreter_in_place(layout: Path, tmp_path: Path) -> None:
    """Laid out with this system's interpreter, whose libraries are lent to it."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(sys.base_prefix) / "bin" / f"python{version}"
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(base)}
    subprocess.run([PACKAGING / "build-pkg", "--layout", tmp_path], check=True, env=environment)
    home = tmp_path / "root" / HOME
    site = home / "lib" / f"python{version}" / "site-packages"
    [libraries] = Path(sys.prefix).glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(f"{libraries}\n")
    for name, says in (("pullprintd", "pullprintd 0."), ("pullprint", "")):
        done = subprocess.run(
            [home / "bin" / "python3", "-I", home / "bin" / name, "--version"], capture_output=True, text=True
        )
        assert done.returncode == 0 and says in done.stdout, done.stderr
    where = "import pullprint, sys; print(pullprint.__file__, sys.prefix)"
    told = subprocess.check_output([home / "bin" / "python3", "-I", "-c", where], text=True).split()
    assert told == [str(site / "pullprint/__init__.py"), str(home)]


def test_a_package_is_not_pretended_where_none_can_be_built(tmp_path: Path) -> None:
    done = subprocess.run([PACKAGING / "build-pkg", tmp_path], capture_output=True, text=True)
    assert done.returncode == 2 and "need a Mac" in done.stderr
    assert not list(tmp_path.glob("*.pkg"))
    for name in ("/usr/bin/python3", "/usr/bin/perl"):
        done = subprocess.run(
            [PACKAGING / "build-pkg", tmp_path], capture_output=True, text=True, env={**os.environ, "PYTHON": name}
        )
        assert done.returncode == 2 and "does not end in the version" in done.stderr


@pytest.mark.parametrize("name", SHELL_SCRIPTS)
def test_scripts_are_sound(name: str) -> None:
    path = PACKAGING / name
    assert os.access(path, os.X_OK)
    assert path.read_text().startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", path], check=True)
    subprocess.run(["shellcheck", "--severity=style", path], check=True)


def test_the_folders_that_scripts_name_are_the_layouts_and_the_daemons(root: Path) -> None:
    told = paths("darwin")
    text = "".join((PACKAGING / name).read_text() for name in ("uninstall", "scripts/postinstall"))
    named = set(re.findall(r"\$volume(/[^\"$\n]*?)(?:\"|\s*\\?$|(?<!Application) (?!Support))", text, re.MULTILINE))
    installed = {f"/{path.relative_to(root)}" for path in root.rglob("*")}
    elsewhere = {told["STATE"], told["INTAKE_SOCKET"], told["CONTROL_SOCKET"], "/Library/Logs/Pullprint",
                 "/private/etc/pullprint"}  # fmt: skip
    assert named - installed == elsewhere
    assert {f"/{JOB}", f"/{HOME}"} <= named


class Volume:
    """A folder in place of the volume that is installed to, and commands of a Mac that keep a list of their calls."""

    def __init__(self, folder: Path, scripts: Path) -> None:
        self.path, self._scripts, self._bin, self._calls = folder / "vol ume", scripts, folder / "bin", folder / "calls"
        self._accounts = folder / "accounts"
        for made in (self.path, self._bin, self._accounts / "Users", self._accounts / "Groups"):
            made.mkdir(parents=True)
        self._calls.touch()
        for name in ("launchctl", "tmutil", "pkgutil"):
            self._stand_in(name, "")
        # dscl(1): one file for each property of each record.
        self._stand_in("dscl", f"""
            cd "{self._accounts}"
            case $2 in
            -list) for record in .$3/*/; do [ -e "$record$4" ] && echo "$(basename "$record")  $(cat "$record$4")"; done; true ;;
            -read) [ -e ".$3/$4" ] || exit 56; cat ".$3/$4" ;;
            -create) mkdir -p ".$3"; [ -z "${{4:-}}" ] || echo "${{5:-}}" >".$3/$4" ;;
            -delete) [ -d ".$3" ] || exit 56; rm -r ".$3" ;;
            esac
        """)  # fmt: skip
        # This system knows no account _pullprint.
        self._stand_in("chown", "")

    def _stand_in(self, name: str, script: str) -> None:
        path = self._bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self._calls}"\n{textwrap.dedent(script)}')
        path.chmod(0o755)

    def run(self, script: str | Path, *words: str, volume: str | None = None) -> subprocess.CompletedProcess[str]:
        path = script if isinstance(script, Path) else self._scripts / script
        given = ["package.pkg", "/", volume or f"{self.path}/", "/"] if not isinstance(script, Path) else []
        return subprocess.run(
            [path, *given, *words], env={"PATH": f"{self._bin}:/usr/bin:/bin"}, capture_output=True, text=True
        )

    def account(self, kind: str, name: str) -> Mapping[str, str]:
        folder = self._accounts / kind / name
        return {path.name: path.read_text().strip() for path in folder.iterdir()} if folder.is_dir() else {}

    def add(self, kind: str, name: str, number: int) -> None:
        record = self._accounts / kind / name
        record.mkdir()
        (record / ("UniqueID" if kind == "Users" else "PrimaryGroupID")).write_text(f"{number}\n")

    def calls(self, name: str) -> list[str]:
        return [line for line in self._calls.read_text().splitlines() if line.split(" ", 1)[0] == name]


@pytest.fixture
def volume(tmp_path: Path, layout: Path) -> Volume:
    return Volume(tmp_path, layout / "scripts")


def test_without_its_interpreter_nothing_is_installed(volume: Volume) -> None:
    done = volume.run("preinstall")
    assert done.returncode == 1 and PYTHON in done.stderr and "nothing was changed" in done.stderr
    assert volume.calls("launchctl") == []
    python = volume.path / PYTHON.lstrip("/")
    python.parent.mkdir(parents=True)
    python.touch(0o755)
    assert volume.run("preinstall").returncode == 0
    assert volume.calls("launchctl") == ["launchctl bootout system/org.pullprint.pullprintd"]


def test_an_account_is_made_with_a_number_that_neither_users_nor_groups_have(volume: Volume) -> None:
    volume.add("Users", "_other", 400)
    volume.add("Groups", "_more", 399)
    volume.add("Groups", "staff", 20)
    done = volume.run("postinstall")
    assert done.returncode == 0, done.stderr
    user, group = volume.account("Users", "_pullprint"), volume.account("Groups", "_pullprint")
    assert user["UniqueID"] == user["PrimaryGroupID"] == group["PrimaryGroupID"] == "398"
    assert user["UserShell"] == "/usr/bin/false" and user["Password"] == "*" and user["IsHidden"] == "1"
    state = volume.path / "Library/Application Support/Pullprint"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((volume.path / "Library/Logs/Pullprint").stat().st_mode) == 0o750
    assert volume.calls("chown") == [f"chown _pullprint:_pullprint {state} {volume.path}/Library/Logs/Pullprint"]
    assert volume.calls("tmutil") == [f"tmutil addexclusion -p {state}"]
    assert volume.calls("launchctl") == [], "another volume's daemon is not started in this system"


def test_an_upgrade_keeps_account_and_state(volume: Volume) -> None:
    assert volume.run("postinstall").returncode == 0
    before = volume.account("Users", "_pullprint")
    held = volume.path / "Library/Application Support/Pullprint/jobs"
    held.write_text("sealed")
    assert volume.run("postinstall").returncode == 0
    assert volume.account("Users", "_pullprint") == before and held.read_text() == "sealed"
    assert len([call for call in volume.calls("dscl") if "-create /Users/_pullprint UniqueID" in call]) == 1


def test_without_a_free_number_the_installation_ends_with_a_sentence(volume: Volume) -> None:
    for number in range(200, 401):
        volume.add("Users", f"_u{number}", number)
    done = volume.run("postinstall")
    assert done.returncode != 0 and "no free number" in done.stderr
    assert not volume.account("Users", "_pullprint") and not volume.account("Groups", "_pullprint")


def fill(volume: Volume, root: Path) -> None:
    subprocess.run(["cp", "-a", f"{root}/.", volume.path], check=True)
    assert volume.run("postinstall").returncode == 0
    state = volume.path / "Library/Application Support/Pullprint"
    (state / "keys").mkdir()
    (state / "keys" / "identity").write_text("secret")
    (volume.path / "private/etc/pullprint").mkdir(parents=True)
    (volume.path / "usr/libexec/cups/backend/ipp").touch()


def left(volume: Volume) -> set[str]:
    return {str(path.relative_to(volume.path)) for path in volume.path.rglob("*") if not path.is_dir()}


def test_uninstalling_takes_what_was_installed_and_keeps_what_is_held(volume: Volume, root: Path) -> None:
    fill(volume, root)
    done = volume.run(volume.path / HOME / "uninstall", f"{volume.path}/")
    assert done.returncode == 0, done.stderr
    assert left(volume) == {"usr/libexec/cups/backend/ipp", "Library/Application Support/Pullprint/keys/identity"}
    assert volume.account("Users", "_pullprint")
    assert volume.calls("pkgutil") == [f"pkgutil --volume {volume.path} --forget org.pullprint.pullprint"]


def test_purging_leaves_nothing_of_ours(volume: Volume, root: Path) -> None:
    fill(volume, root)
    done = volume.run(volume.path / HOME / "uninstall", "--purge", f"{volume.path}/")
    assert done.returncode == 0, done.stderr
    assert left(volume) == {"usr/libexec/cups/backend/ipp"}
    assert not any("ullprint" in path.name for path in volume.path.rglob("*"))
    assert not volume.account("Users", "_pullprint") and not volume.account("Groups", "_pullprint")


def test_somebody_elses_command_of_that_name_stays(volume: Volume, root: Path) -> None:
    fill(volume, root)
    command = volume.path / "usr/local/bin/pullprint"
    command.unlink()
    command.symlink_to("/opt/homebrew/bin/pullprint")
    assert volume.run(volume.path / HOME / "uninstall", f"{volume.path}/").returncode == 0
    assert command.is_symlink()
