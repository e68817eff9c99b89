"""Times a whole training step by each route, and says what memory it takes.

python -m benchmarks.routes [--quick] [--memory | --exact] [CASE ...]

The cases are those of `benchmarks._models`, `benchmarks._encoders` and
`benchmarks._networks`; the method is CAGrad and the optimizer Adam. ``plain``
is the step on the sum of the losses. A backward pass is taken as twice a
forward pass, so T of them make (1 + 2 T) / 3 plain steps: the floor below which
no route that forms T gradients can get. ``parts`` is the T backward passes, the
Gramian and the combination, each timed alone, and their sum; the step adds the
solve and the optimizer.

All programs of a case take turns in one process, in an order that changes from
round to round; times are medians, ratios are medians of the ratios within each
round. Memory is what the compiled program asks for besides its arguments
(``memory_analysis().temp_size_in_bytes``), and ``compile`` the seconds that the
compiler took, by those of the plain step. Below each table stands how much
slower ``auto`` is than the fastest exact route. --exact times only the plain
step, the exact routes and ``auto``. --memory prints memory alone, and counts
multiplications of the step's products and convolutions, in loops as often as
they run, both beside those of the plain step.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jax.interpreters import partial_eval

import mtljax as mtl
from benchmarks import _encoders, _models, _networks
from benchmarks._cases import make_case
from mtljax.gradients import _work
from mtljax.training import make_train_step
from mtljax.training.step._turns import take_turns

ROUTES = (
  ('plain', {}),
  ('auto', {}),
  ('jacobian', {'route': 'jacobian', 'mode': 'unroll'}),
  ('jacobian vmap', {'route': 'jacobian', 'mode': 'vmap'}),
  ('gramian', {'route': 'gramian', 'mode': 'unroll'}),
  ('gramian vmap', {'route': 'gramian', 'mode': 'vmap'}),
  ('layerwise', {'route': 'layerwise', 'mode': 'unroll'}),
  ('layerwise vmap', {'route': 'layerwise', 'mode': 'vmap'}),
  ('layerwise map', {'route': 'layerwise', 'mode': 'map'}),
  ('features', {'route': 'features'}),
  ('jacobian every 10', {'route': 'jacobian', 'every': 10}),
)
MEMORY_ONLY = (
  ('gramian chunk 2', {'route': 'gramian', 'mode': 'vmap', 'chunk_size': 2}),
  (
    'layerwise chunk 2',
    {'route': 'layerwise', 'mode': 'vmap', 'chunk_size': 2},
  ),
)
# Rounds, and steps a turn.
TURNS = {
  'multi_lenet': (5, 10),
  'mlp_8': (9, 10),
  'mlp_40': (5, 2),
  'resnet18_40': (3, 1),
  'segnet': (5, 5),
  'encoder': (5, 2),
  'encoder_scan': (5, 2),
  'encoder_remat': (5, 2),
  'lstm': (5, 2),
  'mixer': (5, 2),
  'recommender': (5, 3),
  'pinn': (7, 10),
  'message_passing': (5, 5),
}
NAMES = (*_models.NAMES, *_encoders.NAMES, *_networks.NAMES)
# What `auto` may take: all but the approximation, and what skips steps.
EXACT = ('jacobian', 'gramian', 'layerwise')
# With forty tasks the others compile for minutes.
FEW = (
  'plain',
  'auto',
  'jacobian',
  'layerwise',
  'layerwise vmap',
  'layerwise map',
  'features',
)


class Runner(NamedTuple):
  """A program that is timed."""

  name: str
  run: Callable[[int], None]
  temporary: int | None
  work: int | None = None
  seconds: float | None = None


def step_runner(case: _models.Case, name: str, options: dict[str, Any]):
  """A training step, as users build it."""
  params, model_state, labels = case.init()
  num_tasks = case.num_tasks
  build = mtl.sum_losses if name == 'plain' else mtl.cagrad
  train = make_train_step(
    build(num_tasks, labels=labels),
    optax.adam(1e-3),
    case.loss,
    has_state=True,
    **options,
  )
  state = train.init(params, key=jax.random.key(1), model_state=model_state)
  traced = train.step.trace(state, case.batch)
  lowered = traced.lower()
  start = time.perf_counter()
  compiled = lowered.compile()
  seconds = time.perf_counter() - start

  def run(steps):
    nonlocal state
    for _ in range(steps):
      state, _ = compiled(state, case.batch)
    jax.block_until_ready(state)

  temporary = compiled.memory_analysis().temp_size_in_bytes
  work = _multiplications(traced.jaxpr.jaxpr)
  return Runner(name, run, temporary, work, seconds)


def _multiplications(jaxpr) -> int:
  """Of a step, without what is not read."""
  used = [True] * len(jaxpr.outvars)
  work = _work.of_equations(partial_eval.dce_jaxpr(jaxpr, used)[0].eqns)
  assert work is not None
  return work.forward


def part_runners(case: _models.Case) -> list[Runner]:
  """What a step of the jacobian route is made of."""
  params, model_state, labels = case.init()
  weights = jax.numpy.ones(case.num_tasks)
  passes = jax.jit(
    mtl.value_and_task_grads(case.loss, labels=labels, has_aux=True)
  )
  args = (params, case.batch, model_state, jax.random.key(0))
  grads = passes(*args)[1]
  gramian = jax.jit(lambda g: mtl.gramian(g, labels=labels))
  combine = jax.jit(lambda g, w: mtl.combine(g, w, labels=labels))

  def runner(name, fun, *args):
    def run(steps):
      for _ in range(steps):
        jax.block_until_ready(fun(*args))

    return Runner(name, run, None)

  return [
    runner('part: passes', passes, *args),
    runner('part: Gramian', gramian, grads),
    runner('part: combination', combine, grads, weights),
  ]


def measure(runners: list[Runner], rounds: int, steps: int):
  """Milliseconds a step of every program in every round."""
  for runner in runners:
    runner.run(2)
  return take_turns(
    {runner.name: runner.run for runner in runners},
    rounds,
    lambda name: 10 if 'every' in name else steps,
  )


def _median_ratio(ms: list[float], other: list[float]) -> float:
  return statistics.median(a / b for a, b in zip(ms, other, strict=True))


def report(case: _models.Case, runners: list[Runner], times) -> None:
  """Prints the table of a case."""
  floor = (1 + 2 * case.num_tasks) / 3
  print(f'{"":<20}{"ms":>9}{"/ plain":>9}{"/ floor":>9}{"MB":>9}{"compile":>9}')
  plain = runners[0]
  for runner in runners:
    ms = times[runner.name]
    ratio = _median_ratio(ms, times['plain'])
    line = f'{runner.name:<20}{statistics.median(ms):9.2f}{ratio:9.2f}'
    line += f'{ratio / floor:9.2f}'
    if runner.temporary is not None:
      line += f'{runner.temporary / 1e6:9.1f}'
      line += f'{runner.seconds / plain.seconds:9.2f}'
    print(line)
  others = {k: v for k, v in times.items() if k.split()[0] in EXACT}
  others = {k: v for k, v in others.items() if 'every' not in k}
  best = min(others, key=lambda k: _median_ratio(others[k], times['plain']))
  print(
    f'auto / best exact route ({best}): '
    f'{_median_ratio(times["auto"], times[best]):.2f}'
  )
  parts = list(zip(*(v for k, v in times.items() if 'part' in k), strict=True))
  if not parts:
    return
  over = statistics.median(
    whole / sum(part)
    for whole, part in zip(times['jacobian'], parts, strict=True)
  )
  print(f'jacobian / sum of its parts: {over:.2f}')


def print_counts(case: _models.Case) -> None:
  """Prints the memory and the multiplications of a case's routes."""
  print(f'{"":<20}{"MB":>9}{"/ plain":>9}{"1e9 mul":>9}{"/ plain":>9}')
  plain = None
  for label, options in ROUTES + MEMORY_ONLY:
    one = step_runner(case, label, options)
    plain = plain or one
    print(
      f'{label:<20}{one.temporary / 1e6:9.1f}'
      f'{one.temporary / plain.temporary:9.2f}'
      f'{one.work / 1e9:9.2f}{one.work / plain.work:9.2f}',
      flush=True,
    )


def main() -> None:
  """The command line."""
  flags = {a for a in sys.argv[1:] if a.startswith('--')}
  names = [a for a in sys.argv[1:] if a not in flags] or list(NAMES)
  known = {'--quick', '--memory', '--exact'}
  if flags - known or set(names) - set(NAMES):
    raise SystemExit(__doc__)
  quick = '--quick' in flags
  print(f'jax {jax.__version__}, {jax.devices()}')
  for name in names:
    case = make_case(name, quick)
    num_tasks = case.num_tasks
    print(f'\n{name}: T = {num_tasks}, floor {(1 + 2 * num_tasks) / 3:.2f}')
    if '--memory' in flags:
      print_counts(case)
      continue
    routes = [r for r in ROUTES if num_tasks < 40 or r[0] in FEW]
    if '--exact' in flags or not isinstance(case.loss, mtl.Staged):
      routes = [r for r in routes if r[0] != 'features']
    if '--exact' in flags:
      routes = [r for r in routes if 'every' not in r[0]]
    runners = [step_runner(case, *route) for route in routes]
    if '--exact' not in flags:
      runners += part_runners(case)
    rounds, steps = (2, 1) if quick else TURNS.get(name, (5, 2))
    report(case, runners, measure(runners, rounds, steps))


if __name__ == '__main__':
  main()
