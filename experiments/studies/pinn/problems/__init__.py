"""Differential equations to be solved by a network, one family a file."""

from __future__ import annotations

from experiments.studies.pinn.problems.burgers import BURGERS
from experiments.studies.pinn.problems.elliptic import HELMHOLTZ, POISSON
from experiments.studies.pinn.problems.equation import Equation, Term
from experiments.studies.pinn.problems.flows import BELTRAMI, KOVASZNAY
from experiments.studies.pinn.problems.schroedinger import SCHROEDINGER

__all__ = ['EQUATIONS', 'Equation', 'Term']

#: By name.
EQUATIONS: dict[str, Equation] = {
  x.name: x
  for x in (BURGERS, SCHROEDINGER, KOVASZNAY, BELTRAMI, HELMHOLTZ, POISSON)
}
