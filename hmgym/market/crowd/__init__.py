"""The default scenario: a crowd of investors around the learners, in cohorts."""

from __future__ import annotations

from hmgym.market.crowd.scenario import CrowdScenario, CrowdState

__all__ = ["CrowdScenario", "CrowdState"]
