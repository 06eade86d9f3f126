"""Beliefs and demand of every kind of investor: cohorts, the default population among them."""

from __future__ import annotations

from hmgym.investors.cohort import Cohort, CohortConfig, Optimisers, Orders, Setting, View
from hmgym.investors.draws import Draws, Layout
from hmgym.investors.population import LearnerTraits, Population, PopulationConfig, Traits

__all__ = [
    "Cohort",
    "CohortConfig",
    "Draws",
    "Layout",
    "LearnerTraits",
    "Optimisers",
    "Orders",
    "Population",
    "PopulationConfig",
    "Setting",
    "Traits",
    "View",
]
