"""Beliefs of every kind of background investor, and populations of them."""

from __future__ import annotations

from hmgym.investors.population import LearnerTraits, Population, PopulationConfig, Traits

__all__ = ["LearnerTraits", "Population", "PopulationConfig", "Traits"]
