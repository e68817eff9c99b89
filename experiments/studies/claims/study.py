"""Do single claims hold that papers make of their methods?

  python -m experiments.claims

Claims on SLAW, FairGrad, Nash-MTL, CAGrad, BMTL and EMTL, each with a rule of
decision that stands in `claims.py`. To ``--out`` go ``config.json``,
``runs/<problem>.<arm>/seed_<k>/``, ``results.csv``, ``summary.json`` and
``report.html`` with the verdicts. The same command again goes on where it was
stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
import rich.console

import mtljax as mtl
from experiments import suites
from experiments.lab import command, presets, study
from experiments.lab.options import (
  DataOptions,
  Options,
  check_counts,
  check_distinct,
  free,
)
from experiments.lab.problem import Problem, make_problem
from experiments.lab.runs import RunSpec
from experiments.studies.claims import arms, planted, points
from experiments.studies.claims.rules import (
  COSTS,
  COUNTS,
  GAP,
  NAME,
  NOISY,
  QUADRATICS,
  RARE,
  TRAIN_LOSS,
)
from experiments.suites import Data, Suite, Widths
from mtljax import _validate
from mtljax.training import make_train_step

MLP = 'multi_mlp'
PLANTED: dict[str, Callable[[], Suite]] = {
  'regression': planted.regressions,
  NOISY: functools.partial(planted.regressions, noisy=True),
  RARE: planted.rare,
}
#: Problems that are no network on a suite.
OTHERS = (COSTS, QUADRATICS)


@dataclasses.dataclass(frozen=True)
class ClaimsConfig(Options):
  """Checks claims that papers make of their methods."""

  preset: str = free('quick')
  """quick (about ten minutes on two cores) or long. Other options override
  it."""
  out: pathlib.Path = free(pathlib.Path('results/claims'))
  """Folder for everything this run writes."""
  problems: tuple[str, ...] = free(
    ('regression', 'digits@100', NOISY, RARE, COSTS, QUADRATICS)
  )
  """regression, noisy, rare (drawn); costs, quadratics; and suites with dense
  layers. digits@100: the last loss is 100 times as large as the first, those
  between by the same steps."""
  arms: tuple[str, ...] = free(tuple(arms.ARMS))
  """What is trained on regression and on suites."""
  hidden_sizes: tuple[int, ...] = (64, 32)
  """Layers of the shared trunk."""
  steps: int = 600
  """Steps of a run."""
  learning_rate: float = 2e-3
  """Of Adam; it falls to zero along a cosine."""
  batch_size: int = 64
  """Examples a step."""
  probe_every: int = 20
  """Steps between measurements of the gradients."""
  seeds: int = free(5)
  """Number of seeds: 0, 1, ..."""
  min_seeds: int = free(3)
  """With fewer seeds no claim is decided."""
  log_every: int = 100
  """Steps between lines of metrics."""
  data: DataOptions = dataclasses.field(
    default_factory=lambda: DataOptions(
      num_train=2000, num_validation=500, num_test=2000
    )
  )
  """The data."""


PRESETS = {
  'quick': ClaimsConfig(),
  'long': ClaimsConfig(
    preset='long',
    seeds=12,
    steps=3000,
    data=DataOptions(num_train=10_000, num_validation=1000, num_test=5000),
  ),
}


def split_name(problem: str) -> tuple[str, float]:
  """The suite of a problem, and the gap of its losses."""
  name, _, gap = problem.partition(GAP)
  try:
    return name, float(gap) if gap else 1.0
  except ValueError:
    raise ValueError(
      f'--problems={problem!r}: after {GAP} stands a number, as in '
      f'digits{GAP}100.'
    ) from None


def find_suite(problem: str) -> tuple[Suite, float]:
  """The suite of a problem, and the factor on the loss of its last task."""
  name, gap = split_name(problem)
  _validate.in_range('the gap of --problems', gap, 0, open_low=True)
  if name in PLANTED:
    return PLANTED[name](), gap
  if name not in suites.available():
    raise ValueError(
      f'--problems={problem!r} is none of {", ".join((*PLANTED, *OTHERS))} and '
      f'no suite: {", ".join(suites.available())}.'
    )
  suite = suites.find(name, '--problems')
  suite = suite.with_tasks(suite.default_tasks)
  suite.network(MLP, '--problems')
  if len(suite.tasks) < 2:
    raise ValueError(f'--problems={problem!r} has one task only.')
  return suite, gap


def factors_of(suite: Suite, gap: float) -> np.ndarray:
  """On the losses of the tasks, from 1 to the gap."""
  return np.geomspace(1, gap, len(suite.tasks))


def check(config: ClaimsConfig) -> None:
  """Raises ValueError for options that no study could be made of."""
  for option in ('problems', 'arms'):
    values = getattr(config, option)
    check_distinct(option, values)
  for name in config.arms:
    _validate.one_of('--arms', name, arms.ARMS)
  for name in config.problems:
    if name not in OTHERS:
      find_suite(name)[0].check_data(config.data)
  if not config.hidden_sizes:
    raise ValueError('--hidden-sizes is empty: the trunk needs a layer.')
  for size in config.hidden_sizes:
    _validate.in_range('--hidden-sizes', size, 1)
  check_counts(
    config,
    (
      'seeds',
      'steps',
      'batch_size',
      'probe_every',
      'min_seeds',
      'log_every',
    ),
  )
  _validate.in_range('--learning-rate', config.learning_rate, 0, open_low=True)


def make_probe(
  problem: Problem, widths: Widths
) -> Callable[[Any, Any], dict[str, jax.Array]]:
  """``probe(state, batch)``: losses, norms and weights, each ``(T,)``.

  The norms are those of the gradients on the last shared layer.
  """
  layer = f'trunk/fc{len(widths.hidden_sizes)}/.*'
  marked = mtl.match_params(problem.labels, layer)
  gramian_fn = mtl.value_and_gramian(
    problem.loss,
    labels=problem.labels,
    gramian_labels=marked,
    has_aux=True,
  )

  @jax.jit
  def measure(params, batch, model_state, key):
    (losses, _), gramian = gramian_fn(params, batch, model_state, key)
    return {'losses': losses, 'norms': jax.numpy.sqrt(jax.numpy.diag(gramian))}

  def probe(state, batch):
    key = jax.random.fold_in(state.key, state.step)
    found = measure(state.params, batch, state.model_state, key)
    return found | {'weights': mtl.get_weights(state.method_state)}

  return probe


def train_loss(problem: Problem, state: Any) -> dict[str, float]:
  """The unweighted losses of the tasks over the training data."""
  found = problem.evaluate(state, 'train')
  return {
    f'{TRAIN_LOSS}/{task}': float(found[f'loss/{task}'])
    for task in problem.tasks
  }


def make_groups(
  config: ClaimsConfig, name: str, say: Callable[[str], Any]
) -> tuple[Suite, Data, list[list[RunSpec]]]:
  """The runs of a problem on a suite, by arm."""
  suite, gap = find_suite(name)
  data = suite.read(config.data, config.batch_size, say)
  widths = Widths(hidden_sizes=config.hidden_sizes)
  factors = dict(zip(suite.task_names, factors_of(suite, gap), strict=True))

  def problem_of(log):
    return make_problem(
      suite,
      data,
      suite.network(MLP),
      widths,
      loss_of=lambda task: arms.loss_of(float(factors[task.name]), log)(task),
    )

  problems = {log: problem_of(log) for log in (False, True)}
  probe = make_probe(problems[False], widths)
  names = arms.ROBUST if name in (NOISY, RARE) else config.arms
  names = [x for x in names if len(suite.tasks) >= arms.ARMS[x].min_tasks]
  return (
    suite,
    data,
    [
      make_specs(config, suite, name, arm, data, problems, probe)
      for arm in names
    ],
  )


def make_specs(
  config: ClaimsConfig,
  suite: Suite,
  name: str,
  arm: str,
  data: Data,
  problems: dict[bool, Problem],
  probe: Callable[..., Any],
) -> list[RunSpec]:
  """The runs of an arm, all seeds sharing the compiled step."""
  found = arms.ARMS[arm]
  problem = problems[found.log]
  method = found.make(len(problem.tasks), labels=problem.labels)
  rate = found.rate * config.learning_rate
  step = make_train_step(
    method,
    optax.adam(optax.cosine_decay_schedule(rate, config.steps)),
    problem.loss,
    has_state=True,
    route=found.route,
    mode=suite.network(MLP).mode_of('auto'),
  )
  return [
    RunSpec(
      method=f'{name}.{arm}',
      seed=seed,
      tasks=problem.tasks,
      step=step,
      init_fn=functools.partial(problem.start, step, jax.random.key(seed)),
      batches_fn=functools.partial(data.batches, config.batch_size, seed),
      validate_fn=lambda state: problem.evaluate(state, 'validation'),
      test_fn=lambda state: problem.evaluate(state, 'test'),
      measure_fn=lambda state: (train_loss(problems[False], state), {}),
      probe_fn=probe if arm in arms.MEASURED else None,
      probe_every=config.probe_every,
      select=suite.score_of,
      num_steps=config.steps,
      # One evaluation: no state is selected.
      steps_per_epoch=config.steps,
    )
    for seed in range(config.seeds)
  ]


def cost_specs(config: ClaimsConfig) -> list[list[RunSpec]]:
  """Single steps, of which the operations are counted."""
  groups = []
  for count in COUNTS:
    suite = planted.regressions(count)
    data = suite.read(
      DataOptions(num_train=config.batch_size, num_validation=1, num_test=1),
      config.batch_size,
      lambda text: None,
    )
    problem = make_problem(
      suite, data, suite.network(MLP), Widths(hidden_sizes=config.hidden_sizes)
    )
    for name in ('sum_losses', 'slaw', 'gradnorm', 'pcgrad'):
      groups.append([_cost_spec(config, problem, data, count, name)])
  return groups


def _cost_spec(config, problem, data, count, name) -> RunSpec:
  method = mtl.get_method(name)(count, labels=problem.labels)
  step = make_train_step(
    method,
    optax.sgd(0.0),
    problem.loss,
    has_state=True,
    # A loop's body would be counted once.
    route='jacobian' if method.needs - {'losses'} else 'losses',
    mode='unroll',
  )

  def measure(state):
    batch = next(data.batches(config.batch_size, 0))
    compiled = jax.jit(step.step).lower(state, batch).compile()
    found = compiled.cost_analysis()
    found = found[0] if isinstance(found, list) else found
    return {'operations': found['flops']}, {}

  return RunSpec(
    method=f'{COSTS}.{name}_{count}',
    seed=0,
    tasks=problem.tasks,
    step=step,
    init_fn=functools.partial(problem.start, step, jax.random.key(0)),
    batches_fn=functools.partial(data.batches, config.batch_size, 0),
    validate_fn=lambda state: {'none': 0.0},
    test_fn=lambda state: {},
    measure_fn=measure,
    select=lambda metrics: 0.0,
    num_steps=1,
    steps_per_epoch=1,
  )


def quadratic_specs(config: ClaimsConfig) -> list[list[RunSpec]]:
  """The runs on quadratics, by arm."""
  groups = []
  for arm in points.ARMS:
    step = points.make_step(arm)
    groups.append(
      [
        RunSpec(
          method=f'{QUADRATICS}.{arm}',
          seed=seed,
          tasks=tuple(f'q{t}' for t in range(points.NUM_TASKS)),
          step=step,
          init_fn=functools.partial(points.start, step, seed),
          batches_fn=functools.partial(points.batches, seed),
          validate_fn=functools.partial(points.measure, seed),
          test_fn=functools.partial(points.measure, seed),
          select=lambda metrics: 0.0,
          num_steps=points.STEPS,
          steps_per_epoch=points.STEPS,
          batch_size=1,
        )
        for seed in range(config.seeds)
      ]
    )
  return groups


def prepare(config: ClaimsConfig, console: rich.console.Console) -> study.Study:
  """Everything that can be refused, before anything is written or trained."""
  check(config)
  groups: list[Sequence[RunSpec]] = []
  digests: dict[str, Any] = {}
  facts: dict[str, Any] = {'suites': {}}
  for name in config.problems:
    if name == COSTS:
      groups += cost_specs(config)
    elif name == QUADRATICS:
      groups += quadratic_specs(config)
    else:
      suite, data, found = make_groups(
        config, name, lambda text: console.print(text, markup=False)
      )
      groups += found
      digests[name] = suite.digests(data)
      facts['suites'][name] = {
        'scores': [f'{x.score.name}/{x.name}' for x in suite.tasks],
        'tasks': list(suite.task_names),
        'factors': factors_of(suite, find_suite(name)[1]).tolist(),
      }
  return study.Study(
    name=NAME,
    tasks=('all',),
    groups=tuple((spec,) for group in groups for spec in group),
    facts=facts,
    growing=('methods', 'suites'),
    data=digests,
    options={
      'log_every': config.log_every,
      'batch_size': config.batch_size,
      'tensorboard': False,
    },
  )


def main() -> None:
  """The command line."""
  command.run_command(
    lambda: presets.parse(
      ClaimsConfig, PRESETS, prog='python -m experiments.claims'
    ),
    prepare,
    study.run,
  )
