from __future__ import annotations

import pytest

import hmgym  # noqa: F401  registers the environments
from hmgym.envs import ENVIRONMENTS

SMALL = {"n_assets": 2, "n_investors": 8}


@pytest.fixture(params=sorted(ENVIRONMENTS))
def env_id(request: pytest.FixtureRequest) -> str:
    return str(request.param)
