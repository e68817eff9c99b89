"""Methods on the losses of physics-informed networks.

  python -m experiments.pinn

A network u(x, t) is trained so that the residual of a differential equation,
and those of its boundary and initial conditions, vanish at points drawn anew at
every step: two or three tasks, which share all parameters. What it has learnt
is compared with a closed form or a spectral solution. To ``--out`` go
``config.json``, ``runs/<problem>.<method>/seed_<k>/``, ``results.csv``,
``summary.json`` and ``report.html`` with the relative L2 errors, the verdicts
on the claims of ConFIG, and the fields beside the truth. The same command again
goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.console

import mtljax as mtl
from experiments.lab import command, identity, methods, presets, study
from experiments.lab.options import (
  Options,
  between_runs,
  check_counts,
  flag,
  free,
)
from experiments.lab.runs import RunSpec
from experiments.studies.pinn import networks
from experiments.studies.pinn.claims import NAME, WEIGHTS
from experiments.studies.pinn.points import PointBatches
from experiments.studies.pinn.problems import EQUATIONS, Equation
from experiments.studies.pinn.truth import solve
from mtljax import _validate
from mtljax.models import layers
from mtljax.training import TrainState, make_train_step
from mtljax.training.step import sweep

METHODS = (
  'sum_losses',
  f'{WEIGHTS}10',
  f'{WEIGHTS}100',
  'conflict_free',
  'm_config',
  'pcgrad',
  'imtl_g',
  'upgrad',
  'uw_o',
  'lr_annealing',
  'relobralo',
)
#: Of `METHODS` those that the claims are about, and M-ConFIG.
QUICK_METHODS = tuple(x for x in METHODS if x not in ('upgrad', 'uw_o'))


@dataclasses.dataclass(frozen=True)
class PinnConfig(Options):
  """Compares methods on the losses of physics-informed networks."""

  preset: str = free('quick')
  """quick (smooth solutions, minutes on two cores), long (Burgers too, every
  method, five times the steps) or paper. Other options override it."""
  out: pathlib.Path = free(pathlib.Path('results/pinn'))
  """Folder for everything this run writes."""
  problems: tuple[str, ...] = free(('kovasznay', 'helmholtz'))
  """burgers, schroedinger, kovasznay, beltrami, helmholtz and poisson,
  separated by spaces."""
  methods: tuple[str, ...] = free(QUICK_METHODS)
  """Methods of the library, separated by spaces. weights_X is the sum with the
  boundary and initial losses times X."""
  network: str = 'tanh'
  """tanh or fourier."""
  hidden_sizes: tuple[int, ...] = (50, 50, 50)
  """Units of its layers."""
  steps: int = 3000
  """Steps of training."""
  learning_rate: float = 2e-3
  """Of Adam; it falls to zero along a cosine."""
  interior_points: int = 300
  """Points a step at which the residual is taken."""
  edge_points: int = 100
  """Points a step for each of the other losses."""
  evaluate_every: int = 500
  """Steps between comparisons with the solution."""
  sweep: str = between_runs('auto')
  """How the seeds of a method run: loop trains them after one another; vmap,
  map and unroll together in one program. auto takes loop on CPU, vmap
  elsewhere."""
  min_seeds: int = free(3)
  """With fewer seeds no claim is decided."""
  log_every: int = 50
  """Steps between lines of metrics."""


PRESETS = {
  'quick': PinnConfig(),
  'long': PinnConfig(
    preset='long',
    problems=('burgers', 'kovasznay', 'helmholtz'),
    methods=METHODS,
    steps=15_000,
    evaluate_every=2500,
    log_every=250,
  ),
  'paper': PinnConfig(
    preset='paper',
    problems=('burgers', 'schroedinger', 'kovasznay', 'beltrami'),
    methods=METHODS,
    hidden_sizes=(50, 50, 50, 50, 50),
    steps=30_000,
    learning_rate=1e-3,
    interior_points=10_000,
    edge_points=250,
    evaluate_every=2500,
    log_every=500,
  ),
}


def check(config: PinnConfig) -> None:
  """Raises ValueError for options that no study could be made of."""
  for option in ('problems', 'methods', 'hidden_sizes'):
    value = getattr(config, option)
    if not value:
      raise ValueError(f'{flag(option)} is empty: name at least one.')
  for option in ('problems', 'methods'):
    value = getattr(config, option)
    twice = [x for x in value if value.count(x) > 1]
    if twice:
      raise ValueError(f'{flag(option)} names {twice[0]} twice: name it once.')
  for name in config.problems:
    _validate.one_of('--problems', name, EQUATIONS)
  for name in config.methods:
    if not name.startswith(WEIGHTS):
      methods.check_names([name])
      if name in methods.plain_names() and name not in whole_batch_names():
        raise ValueError(
          f'--methods={name} compares batches or is an optimizer of its own: '
          'this study takes methods that make one update for Adam.'
        )
    else:
      weight_of(name)
  _validate.one_of('--network', config.network, networks.NETWORKS)
  _validate.one_of('--sweep', config.sweep, sweep.MODES)
  for size in config.hidden_sizes:
    _validate.in_range('--hidden-sizes', size, 1)
  check_counts(
    config,
    (
      'seeds',
      'steps',
      'interior_points',
      'edge_points',
      'evaluate_every',
      'min_seeds',
      'log_every',
    ),
  )
  _validate.in_range('--learning-rate', config.learning_rate, 0, open_low=True)


def whole_batch_names() -> tuple[str, ...]:
  """The methods that make an update of one batch, for any optimizer."""
  return methods.wrappable_names()


def weight_of(name: str) -> float:
  """The X of ``weights_X``.

  Raises:
    ValueError: it is no positive number.
  """
  text = name.removeprefix(WEIGHTS)
  try:
    weight = float(text)
  except ValueError:
    raise ValueError(
      f'--methods={name}: {text!r} is no number; write {WEIGHTS}10, say.'
    ) from None
  _validate.in_range(f'--methods={name}', weight, 0, open_low=True)
  return weight


def make_method(name: str, num_tasks: int) -> mtl.Aggregator:
  """A method by its name in this study; all parameters are shared."""
  if name.startswith(WEIGHTS):
    weights = (1.0, *(weight_of(name),) * (num_tasks - 1))
    return methods.make_method(
      'fixed', num_tasks, None, rho=0.05, weights=weights
    )
  return methods.make_method(name, num_tasks, None, rho=0.05)


@dataclasses.dataclass(frozen=True)
class PinnSetting:
  """An equation, the network for it, and the truth.

  Attributes:
    equation: the equation.
    network: from points to values.
    losses: a loss a task, each of its own points.
    truth: the solution on the grid of the errors, float64.
  """

  equation: Equation
  network: Any
  losses: tuple[Callable[..., jax.Array], ...]
  truth: np.ndarray

  def start(self, key: jax.Array) -> Any:
    """Parameters."""
    dimensions = len(self.equation.coordinates)
    return self.network.init(key, jnp.zeros((1, dimensions)))

  @functools.cached_property
  def field(self) -> Callable[..., jax.Array]:
    """From parameters and points to values, jitted."""
    return jax.jit(self.network.apply)

  def errors(self, state: TrainState) -> Mapping[str, float]:
    """The relative L2 error, over all outputs and of each."""
    points = jnp.asarray(self.equation.grid(), float)
    gap = np.asarray(self.field(state.params, points), float) - self.truth
    found = {'relative_l2': _size(gap) / _size(self.truth)}
    if len(self.equation.outputs) > 1:
      for i, name in enumerate(self.equation.outputs):
        size = _size(self.truth[:, i])
        found[f'relative_l2_of_{name}'] = _size(gap[:, i]) / size
    return found

  def drawn(self, state: TrainState) -> tuple[dict[str, Any], dict[str, Any]]:
    """The field over the picture, as an array that is kept."""
    points = self.equation.picture()
    flat = jnp.asarray(points.reshape(-1, points.shape[-1]), float)
    values = np.asarray(self.field(state.params, flat), np.float32)
    return {}, {'field': values.reshape(*points.shape[:2], -1)}


def _size(values: np.ndarray) -> float:
  return float(np.sqrt(np.mean(values**2)))


def make_setting(config: PinnConfig, name: str) -> PinnSetting:
  """A problem of a study."""
  equation = EQUATIONS[name]
  network = networks.make_network(config.network, equation, config.hidden_sizes)

  def loss_of(term):
    return lambda params, points: term.loss(
      functools.partial(network.apply, params), points
    )

  return PinnSetting(
    equation,
    network,
    tuple(loss_of(term) for term in equation.terms),
    solve(equation, equation.grid()),
  )


def make_specs(
  config: PinnConfig, setting: PinnSetting, name: str
) -> list[RunSpec]:
  """The runs of a method on a problem, all seeds sharing the compiled step."""
  equation = setting.equation
  num_tasks = len(equation.tasks)
  method = make_method(name, num_tasks)
  schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
  # A loss a task: each term is differentiated at its own points only.
  step = make_train_step(method, optax.adam(schedule), setting.losses)
  counts = [config.interior_points, *[config.edge_points] * (num_tasks - 1)]

  def start(seed):
    init_key, key = jax.random.split(jax.random.key(seed))
    return step.init(setting.start(init_key), key=key)

  return [
    RunSpec(
      method=f'{equation.name}.{name}',
      seed=seed,
      tasks=equation.tasks,
      step=step,
      init_fn=functools.partial(start, seed),
      batches_fn=functools.partial(PointBatches, equation, counts, seed),
      validate_fn=setting.errors,
      test_fn=setting.errors,
      measure_fn=setting.drawn,
    )
    for seed in range(config.seeds)
  ]


def prepare(config: PinnConfig, console: rich.console.Console) -> study.Study:
  """Everything that can be refused, before anything is written or trained."""
  del console
  check(config)
  settings = [make_setting(config, name) for name in config.problems]
  mode = config.sweep
  if mode == 'auto':
    mode = layers.default_sweep_mode(jax.default_backend())
  groups = [
    tuple(make_specs(config, setting, name))
    for setting in settings
    for name in config.methods
  ]
  if mode == 'loop':
    groups = [(spec,) for group in groups for spec in group]
  return study.Study(
    name=NAME,
    tasks=tuple(dict.fromkeys(t for x in settings for t in x.equation.tasks)),
    groups=tuple(groups),
    facts={'compared': list(config.methods)},
    growing=('tasks', 'methods', 'compared'),
    options={
      'num_steps': config.steps,
      'steps_per_epoch': config.evaluate_every,
      'log_every': config.log_every,
      'batch_size': config.interior_points,
      'tensorboard': False,
    },
    sweep=mode,
    kept=identity.kept(dataclasses.replace(config, sweep=mode)),
  )


def main() -> None:
  """The command line."""
  command.run_command(
    lambda: presets.parse(
      PinnConfig, PRESETS, prog='python -m experiments.pinn'
    ),
    prepare,
    study.run,
  )
