"""The report of the study of physics-informed networks."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rich.console

from experiments.report import verdicts as verdicts_
from experiments.report.plots import Section
from experiments.report.results import Results, read_results
from experiments.report.statistics import interval
from experiments.report.tables import MISSING, Cell, Column
from experiments.studies.pinn import figures
from experiments.studies.pinn.claims import ADAM, NAME, OURS, claims, tuned
from experiments.studies.pinn.problems import EQUATIONS
from experiments.studies.pinn.truth import first_output

TUNED = 'weights, tuned'


def write_report(directory: pathlib.Path) -> dict[str, Any]:
  """Writes ``summary.json`` and ``report.html`` of the study.

  Args:
    directory: folder that the study wrote; it need not be finished.

  Returns:
    The content of ``summary.json``: ``errors`` (a row a problem and method:
    the geometric mean of the relative L2 error with its interval, its factor
    to that of Adam on the sum, and the time of a step relative to that),
    ``verdicts``, ``failures`` and ``notes``.

  Raises:
    ReportError: the folder holds no results.
  """
  results = read_results(directory)
  config = results.config
  found = errors_of(results)
  lines = [
    line for problem in found for line in _lines(results, problem, found)
  ]
  summary = {
    'experiment': NAME,
    'preset': config['preset'],
    'tasks': results.tasks,
    'errors': lines,
    'failures': results.failures,
    'notes': results.notes,
  }
  return verdicts_.write_claims(
    directory,
    summary,
    claims(found, config['min_seeds']),
    title='physics-informed networks',
    lead=f'{results.finished} Preset: {config["preset"]}.',
    how=_how(config),
    tables=[
      {
        'title': f'Relative L2 error: {problem}',
        'text': f'{EQUATIONS[problem].title}. Losses: '
        f'{", ".join(EQUATIONS[problem].tasks)}.',
        'columns': _columns([x for x in lines if x['problem'] == problem]),
      }
      for problem in found
    ],
    sections=_sections(directory, results, found),
    config=config,
  )


def errors_of(results: Results) -> dict[str, dict[str, dict[int, float]]]:
  """The errors of the finished runs, by problem, method and seed."""
  found: dict[str, dict[str, dict[int, float]]] = {}
  for run in results.runs:
    problem, _, method = run.method.partition('.')
    value = run.values.get('test/relative_l2')
    if run.problem or value is None or problem not in EQUATIONS:
      continue
    found.setdefault(problem, {}).setdefault(method, {})[int(run.seed)] = value
  return found


def _lines(
  results: Results, problem: str, found: Mapping[str, Any]
) -> list[dict[str, Any]]:
  """The rows of a problem: the methods in order, and tuned weights."""
  runs = dict(found[problem])
  speeds = {
    method: [
      run.values['steps_per_second']
      for run in results.runs
      if run.method == f'{problem}.{method}'
      and 'steps_per_second' in run.values
    ]
    for method in runs
  }
  chosen = tuned(runs)
  if chosen:
    runs[TUNED] = chosen
  lines = []
  for method, values in runs.items():
    factor = [
      np.log10(values[seed] / runs[ADAM][seed])
      for seed in values
      if seed in runs.get(ADAM, {})
    ]
    speed, plain = speeds.get(method), speeds.get(ADAM)
    lines.append(
      {
        'problem': problem,
        'method': method,
        'error': _geometric(list(values.values())),
        'factor': float(10 ** np.mean(factor)) if factor else None,
        'time_ratio': float(np.median(plain) / np.median(speed))
        if speed and plain
        else None,
      }
    )
  return lines


def _geometric(values: Sequence[float]) -> dict[str, Any]:
  """Geometric mean, and the interval of the mean of logarithms."""
  found = interval(np.log10(values))
  return {
    'mean': 10**found.mean,
    'low': verdicts_.finite(10**found.low),
    'high': verdicts_.finite(10**found.high),
    'n': found.n,
  }


def _columns(lines: Sequence[Mapping[str, Any]]) -> list[Column]:
  rivals = [x['error']['mean'] for x in lines if x['method'] != TUNED]
  best = min(rivals) if len(rivals) > 1 else None

  def text(value, form):
    return MISSING if value is None else form.format(value)

  def ends(error):
    if error['low'] is None:
      return MISSING
    return f'[{error["low"]:.2g}, {error["high"]:.2g}]'

  return [
    Column('method', [Cell(x['method']) for x in lines]),
    Column('seeds', [Cell(str(x['error']['n'])) for x in lines]),
    Column(
      'relative L2 error',
      [
        Cell(
          f'{x["error"]["mean"]:.3g}',
          x['error']['mean'] == best and x['method'] != TUNED,
        )
        for x in lines
      ],
    ),
    Column('95 % interval', [Cell(ends(x['error'])) for x in lines]),
    Column(
      f'error ÷ {ADAM}', [Cell(text(x['factor'], '{:.2f}x')) for x in lines]
    ),
    Column(
      f'time ÷ {ADAM}', [Cell(text(x['time_ratio'], '{:.2f}x')) for x in lines]
    ),
  ]


def _sections(
  directory: pathlib.Path, results: Results, found: Mapping[str, Any]
) -> list[Section]:
  """The errors over training, and the fields of ConFIG, Adam and the best."""
  sections = []
  for problem, runs in found.items():
    sections.append(figures.errors(results, problem, list(runs)))
    means = {
      name: np.mean(np.log(list(x.values()))) for name, x in runs.items()
    }
    best = min(means, key=lambda name: means[name])
    wanted = [x for x in dict.fromkeys((ADAM, OURS, best)) if x in runs]
    kept = {
      x: figures.read_field(directory, f'{problem}.{x}', str(min(runs[x])))
      for x in wanted
    }
    drawn = {name: x for name, x in kept.items() if x is not None}
    equation = EQUATIONS[problem]
    sections.append(figures.fields(equation, first_output(equation), drawn))
  return [x for x in sections if x.panels]


def _how(config: Mapping[str, Any]) -> list[str]:
  """How the numbers are to be read, in sentences."""
  return [
    'The error is the L2 norm, over a grid and all outputs, of what the '
    'network is off, by that of the solution, after the last step: no state is '
    'chosen by it. Below 0.01 a field looks right.',
    f'Every method trains the same networks from the same starts on the same '
    f'points, drawn anew at each of {config["steps"]:,} steps, by Adam with '
    'one learning rate. What a method scales its update by, Adam takes back.',
    f'{TUNED}: of the sum and the weights in the table, a seed gets what is '
    'best on the other seeds. Means and intervals are those of the logarithm '
    'of the error. An interval is the wider of the percentile bootstrap over '
    "seeds and Student's t, both of 95 %.",
    "The paper's code has, for Burgers, five layers of 50 units, 30,000 steps "
    'and 10,000 points, draws Latin hypercubes and warms the learning rate up; '
    '--preset paper has its layers, steps and points, for all problems.',
  ]


def print_tables(
  summary: Mapping[str, Any], console: rich.console.Console
) -> None:
  """Prints the errors of each problem, and the verdicts."""
  verdicts_.print_by_problem(
    'relative L2 error: {}', summary['errors'], _columns, console
  )
  verdicts_.print_verdicts(summary['verdicts'], console)
