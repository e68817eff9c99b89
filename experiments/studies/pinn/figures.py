"""Fields beside the truth, and errors over training."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.report import files
from experiments.report.plots import (
  Curve,
  Section,
  average,
  draw,
  picture,
  style_of,
)
from experiments.report.results import Results
from experiments.studies.pinn.problems import Equation

SIZE = 3.0, 2.5
CURVE = 'validation/relative_l2'


def fields(
  equation: Equation,
  truth: np.ndarray,
  found: Mapping[str, np.ndarray],
) -> Section:
  """The truth, and of each method what it makes of it and where it is off.

  Args:
    equation: what is solved.
    truth: one output over `Equation.picture`, shape ``(P, P)``.
    found: the same of a run of each method.
  """
  names = [x for x in equation.coordinates if x in equation.shown]
  ends = {
    name: (low, high)
    for name, low, high in zip(
      equation.coordinates, equation.low, equation.high, strict=True
    )
  }
  turned = list(equation.shown) != names

  def panel(title, values, ident, **options):
    image = values if turned else values.T

    def plot(axes):
      shown = axes.imshow(
        image,
        origin='lower',
        aspect='auto',
        extent=(*ends[equation.shown[0]], *ends[equation.shown[1]]),
        **options,
      )
      axes.set_xlabel(equation.shown[0])
      axes.set_ylabel(equation.shown[1])
      axes.figure.colorbar(shown, ax=axes)

    return picture(title, plot, ident=f'{equation.name}-{ident}-', size=SIZE)

  limits = {'vmin': truth.min(), 'vmax': truth.max(), 'cmap': 'viridis'}
  panels = [panel('truth', truth, 'truth', **limits)]
  for method, values in found.items():
    gap = np.abs(values - truth)
    panels += [
      panel(method, values, method, **limits),
      panel(f'{method}: off by', gap, f'{method}-off', cmap='magma', vmin=0),
    ]
  still = [
    f'{name} = {(low + high) / 2:g}'
    for name, (low, high) in ends.items()
    if name not in equation.shown
  ]
  text = (
    f'{equation.title}. {equation.outputs[0]} of the first seed, colours as '
    f'in the truth{", at " + ", ".join(still) if still else ""}.'
  )
  return Section(f'Fields: {equation.name}', text, [], panels)


def read_field(
  directory: pathlib.Path, method: str, seed: str
) -> np.ndarray | None:
  """What a run has kept of its first output, or None."""
  path = directory / 'runs' / method / f'seed_{seed}' / files.ARTIFACTS
  try:
    return np.asarray(
      files.read_arrays(path, name=f'{method}/{seed}')['field']
    )[..., 0]
  except (OSError, ValueError, KeyError):
    return None


def errors(results: Results, problem: str, methods: Sequence[str]) -> Section:
  """The relative error of each method over training."""
  curves, legend = [], []
  for i, method in enumerate(methods):
    series = [
      run.curves[CURVE]
      for run in results.runs
      if run.method == f'{problem}.{method}' and CURVE in run.curves
    ]
    if series:
      style = style_of(i)
      curves.append(Curve(style, *average(series), method))
      legend.append((method, style))
  panels = []
  if curves:
    panels = [
      draw(
        f'{problem}: relative L2 error',
        curves,
        ident=f'{problem}-error-',
        log=True,
      )
    ]
  text = 'Mean over seeds; the band is one standard error.'
  return Section(f'Errors: {problem}', text, legend, panels)
