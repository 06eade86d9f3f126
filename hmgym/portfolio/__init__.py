"""Portfolios by gradient flow: the problem, its exact solution, trajectories, Ising machines for its binary form."""

from __future__ import annotations

from hmgym.portfolio.box_machine import BoxResult, box_machine
from hmgym.portfolio.ising import IsingProblem, IsingResult, encode, ising_machine
from hmgym.portfolio.penalty import penalty_flow, penalty_solution
from hmgym.portfolio.problem import PortfolioProblem
from hmgym.portfolio.solve import PortfolioSolution, project, solve
from hmgym.portfolio.trajectory import Trajectory, integrate

__all__ = [
    "BoxResult",
    "IsingProblem",
    "IsingResult",
    "PortfolioProblem",
    "PortfolioSolution",
    "Trajectory",
    "box_machine",
    "encode",
    "integrate",
    "ising_machine",
    "penalty_flow",
    "penalty_solution",
    "project",
    "solve",
]
