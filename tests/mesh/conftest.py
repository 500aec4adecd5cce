from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.mesh.site import Node, Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
async def pair(site: Site) -> AsyncIterator[tuple[Node, Node]]:
    """Two nodes that know each other."""
    async with site.node("anna") as anna, site.node("bert") as bert:
        await site.introduce()
        yield anna, bert
