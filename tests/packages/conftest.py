"""The packages, a signed repository of them, and an office of booted machines."""

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.packages.machines import RUNNING, Machine, base_root, cannot_boot, network, run

HERE = Path(__file__).resolve().parents[2]
WORK = HERE / "build" / "test-deb"
SUITE = platform.freedesktop_os_release()["VERSION_CODENAME"]
"""Packages are for the Debian that they were built on."""
WANTED = (
    "bubblewrap", "cups", "cups-client", "cups-filters", "cups-ipp-utils", "curl", "fonts-dejavu-core", "ghostscript",
    "poppler-utils", "python3", "unattended-upgrades",
)  # fmt: skip
"""What apt will want in a machine: the dependencies of our packages, and what the tests use there."""
OLD, NEW = "0.1.0", "0.1.1"


@pytest.fixture(scope="session", autouse=True)
def _bootable() -> None:
    if why := cannot_boot():
        pytest.skip(f"No system can be booted on this host: {why}.")


def build(out: Path, version: str = "") -> Path:
    """`make deb` into *out*, of this tree or of one that only calls itself *version*; the folder.

    What is there already of just this tree is taken as it is.
    """
    files = [name for name in run("git", "-C", HERE, "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
             if (HERE / name).is_file()]  # fmt: skip
    digest = hashlib.sha256(version.encode())
    for name in files:
        digest.update(name.encode() + hashlib.sha256((HERE / name).read_bytes()).digest())
    made = out / "made-of"
    if made.is_file() and made.read_text() == digest.hexdigest():
        return out
    tree = _renamed(out.with_suffix(".tree"), files, version) if version else HERE
    shutil.rmtree(out, ignore_errors=True)
    run(tree / "packaging" / "make-deb", out)
    made.write_text(digest.hexdigest())
    return out


def _renamed(tree: Path, files: list[str], version: str) -> Path:
    """A copy of this tree at *tree* that calls itself *version*."""
    shutil.rmtree(tree, ignore_errors=True)
    for name in files:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(HERE / name, tree / name)
    for name in ("setup.cfg", "daemon/pullprint/__init__.py", "packaging/debian/changelog", "backend/pullprint"):
        path = tree / name
        path.write_text(path.read_text().replace(OLD, version))
    run("git", "-C", tree, "init", "-q")
    return tree


@dataclass(frozen=True)
class Repository:
    """A signed apt repository, and how to add to it."""

    folder: Path
    gnupg: Path
    key: str

    def add(self, debs: Path) -> None:
        """`make repo` with what is in *debs*."""
        run(HERE / "packaging" / "make-repo", debs, self.folder, self.key,
            env={**os.environ, "GNUPGHOME": str(self.gnupg)})  # fmt: skip


@pytest.fixture(scope="session")
def debs() -> Path:
    """This tree's packages."""
    return build(WORK / "debs")


@pytest.fixture(scope="session")
def newer_debs(debs: Path) -> Path:
    """The same of the version that comes after."""
    return build(WORK / "debs-new", NEW)


@pytest.fixture(scope="session")
def repository(debs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """With this tree's packages, signed by a key that was made for it."""
    gnupg = tmp_path_factory.mktemp("gnupg", numbered=False)
    gnupg.chmod(0o700)
    env = {**os.environ, "GNUPGHOME": str(gnupg)}
    who = "packages@pullprint.invalid"
    run("gpg", "--batch", "--pinentry-mode", "loopback", "--passphrase", "", "--quick-generate-key", who, "ed25519",
        "sign", "1y", env=env)  # fmt: skip
    made = Repository(tmp_path_factory.mktemp("repo", numbered=False), gnupg, who)
    made.add(debs)
    yield made
    subprocess.run(["gpgconf", "--kill", "all"], env=env, check=False)


@dataclass(frozen=True)
class Site:
    """A network that machines can be plugged into."""

    lan: str
    repository: Repository
    folder: Path

    def machine(self, name: str, number: int) -> Machine:
        """A fresh Debian at 10.77.0.*number* that knows the repository, ready to boot."""
        base, archive = base_root(WORK, SUITE, WANTED)
        root = self.folder / name
        run("cp", "-a", "--reflink=auto", base, root)
        (root / "etc/hosts").write_text(
            "127.0.0.1 localhost\n10.77.0.1 print.example.com print\n"
            "10.77.0.2 front\n10.77.0.3 back\n"
        )  # fmt: skip
        shutil.copy(self.repository.folder / "pullprint-archive-keyring.gpg", root / "usr/share/keyrings/")
        (root / "etc/apt/sources.list.d/pullprint.list").write_text(
            "deb [signed-by=/usr/share/keyrings/pullprint-archive-keyring.gpg] file:/srv/pullprint stable main\n"
        )
        (root / "etc/hostname").write_text(f"{name}\n")
        (root / "etc/machine-id").unlink(missing_ok=True)
        for target in ("srv/pullprint", "srv/debian"):
            (root / target).mkdir(parents=True)
        run("chroot", root, "useradd", "--create-home", "ada")
        return Machine(name, f"10.77.0.{number}", self.lan, root,
                       {self.repository.folder: "/srv/pullprint", archive: "/srv/debian"})  # fmt: skip


@pytest.fixture(scope="session")
def site(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Its machines are thrown away at the end, the base they are made of is kept."""
    folder = tmp_path_factory.mktemp("machines", numbered=False)
    with network(f"pp{os.getpid()}") as lan:
        yield Site(lan, repository, folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """What failed is not there to be looked at afterwards: its machines' journals are added to the report."""
    report = yield
    if report.failed:
        for machine in list(RUNNING):
            report.sections.append((f"journal of {machine.name}", machine.journal()))
    return report
