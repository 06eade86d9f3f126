"""Beliefs and demand of every kind of investor: cohorts, the default population among them."""

from __future__ import annotations

from hmgym.investors.cohort import Cohort, CohortConfig, Optimisers, Orders, Setting, View
from hmgym.investors.draws import Draws, Layout
from hmgym.investors.g_learning import GPolicy, GProblem, as_demand, g_recursion
from hmgym.investors.population import LearnerTraits, Population, PopulationConfig, Traits
from hmgym.investors.signals import SIGNALS, OrnsteinUhlenbeck
from hmgym.investors.styles import STYLES

__all__ = [
    "SIGNALS",
    "STYLES",
    "Cohort",
    "CohortConfig",
    "Draws",
    "GPolicy",
    "GProblem",
    "Layout",
    "LearnerTraits",
    "Optimisers",
    "Orders",
    "OrnsteinUhlenbeck",
    "Population",
    "PopulationConfig",
    "Setting",
    "Traits",
    "View",
    "as_demand",
    "g_recursion",
]
