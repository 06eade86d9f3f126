from __future__ import annotations

import pytest

from tests.envs.faces import FACES, MARKET_IDS, Face


@pytest.fixture(params=MARKET_IDS)
def env_id(request: pytest.FixtureRequest) -> str:
    """An id of the market."""
    return str(request.param)


@pytest.fixture(params=FACES, ids=lambda face: face.env_id)
def face(request: pytest.FixtureRequest) -> Face:
    """An id of any simulator."""
    found: Face = request.param
    return found
