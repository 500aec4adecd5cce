from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.cli.standin import Standin, serve


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.fixture
async def daemon(socket: Path) -> AsyncIterator[Standin]:
    standin = Standin()
    runner = await serve(standin.app(), socket)
    yield standin
    await runner.cleanup()
