"""The solutions in float64, whatever the process computes in."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies.pinn.problems import Equation


def solve(equation: Equation, points: np.ndarray) -> np.ndarray:
  """The solution at points, shape ``(N, K)``, in float64."""
  with jax.enable_x64(True):
    return np.asarray(equation.solution(jnp.asarray(points)))


def first_output(equation: Equation) -> np.ndarray:
  """The first output over `Equation.picture`, shape ``(P, P)``."""
  points = equation.picture()
  flat = points.reshape(-1, points.shape[-1])
  return solve(equation, flat)[:, 0].reshape(points.shape[:2])
