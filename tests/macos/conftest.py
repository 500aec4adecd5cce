"""The macOS functions that this system lacks, as libraries that can be called."""

import ctypes.util
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def libbsd() -> str:
    """getpeereid(3), Debian package libbsd0."""
    name = ctypes.util.find_library("bsd")
    assert name, "make test installs libbsd0"
    return name


@pytest.fixture(scope="session")
def launchd(tmp_path_factory: pytest.TempPathFactory) -> str:
    """launch_activate_socket(3)."""
    library = tmp_path_factory.mktemp("launchd") / "launchd.so"
    subprocess.run(["cc", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, HERE / "launchd.c"], check=True)
    return str(library)


@pytest.fixture(scope="session")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make macos-layout` makes."""
    out = tmp_path_factory.mktemp("macos")
    subprocess.run([HERE.parents[1] / "packaging" / "macos" / "build-pkg", "--layout", out], check=True)
    return out
