"""Cells of a study, one by one and as the members of one sweep."""

import dataclasses
import functools
import io

import jax
import jax.numpy as jnp
import noise
import numpy as np
import optax
import pytest
import rich.console

import mtljax as mtl
from experiments.lab import runs
from experiments.report import files as run_files
from mtljax.training import Checkpointer, make_train_step

OPTIONS = {
  'num_steps': 6,
  'steps_per_epoch': 3,
  'log_every': 2,
  'batch_size': 8,
  'select': lambda metrics: metrics['norm'],
  'tensorboard': False,
}


class Batches(noise.Batches):
  """One seed's fifth batch is bad."""

  def __next__(self):
    x = super().__next__()
    return x * np.nan if (self.seed, self.position) == (9, 5) else x


def task_losses(w, x):
  return jnp.stack([jnp.mean((x @ w) ** 2), jnp.mean((x @ w - 1) ** 2)])


STEP = make_train_step(
  mtl.weightings.dwa(window=2), optax.adam(0.05), task_losses, num_tasks=2
)


def specs(seeds):
  def norm(state):
    return {'norm': jnp.linalg.norm(state.params)}

  return [
    runs.RunSpec(
      method='dwa',
      seed=seed,
      tasks=('a', 'b'),
      step=STEP,
      init_fn=functools.partial(
        STEP.init, jnp.ones(3), key=jax.random.key(seed)
      ),
      batches_fn=functools.partial(Batches, seed),
      validate_fn=norm,
      test_fn=norm,
    )
    for seed in seeds
  ]


def assert_same_row(row, expected):
  """But for the times, which no two runs share."""
  assert list(row) == list(expected)
  times = {'wall_time', 'steps_per_second', 'resumed_from'}
  for name in row.keys() - times - {'status'}:  # that may name the folder
    value = expected[name]
    if isinstance(value, float):
      value = pytest.approx(value, rel=1e-4)
    assert row[name] == value, name


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  out = tmp_path_factory.mktemp('alone')
  return out, [runs.run_spec(out, c, **OPTIONS) for c in specs([0, 1, 9])]


def test_a_sweep_of_cells_has_the_rows_of_each(alone, tmp_path):
  rows = runs.run_specs(tmp_path, specs([0, 1, 9]), mode='vmap', **OPTIONS)
  for row, expected in zip(rows, alone[1], strict=True):
    assert_same_row(row, expected)
  assert [row['status'] == runs.OK for row in rows] == [True, True, False]
  assert "task 'a' is nan at step 5" in rows[2]['status']
  assert 'last good checkpoint is step 3' in rows[2]['status']
  for seed in (0, 1, 9):
    folders = [
      out / 'runs' / 'dwa' / f'seed_{seed}' for out in (tmp_path, alone[0])
    ]
    found = [
      sorted(p.name for p in [*f.glob('*'), *f.glob('checkpoints/*')])
      for f in folders
    ]
    assert found[0] == found[1]
    row, files = run_files.read_result(folders[0], 'dwa', seed)
    assert list(files) == ['metrics.jsonl']
    assert row == rows[(0, 1, 9).index(seed)]
  assert rows[0]['wall_time'] > 0
  assert rows[0]['steps_per_second'] > 0


def test_a_killed_sweep_goes_on(alone, tmp_path):
  # The first spec saved its third step, the second did not come so far.
  runs.run_specs(
    tmp_path, specs([0, 1])[:1], mode='vmap', **OPTIONS | {'num_steps': 3}
  )
  rows = runs.run_specs(tmp_path, specs([0, 1]), mode='vmap', **OPTIONS)
  assert [row['resumed_from'] for row in rows] == [3, None]
  for row, expected in zip(rows, alone[1][:2], strict=True):
    assert_same_row(row, expected)
  # And what it saved is what a run alone goes on from.
  with Checkpointer(tmp_path / 'runs/dwa/seed_1/checkpoints') as checkpointer:
    state = checkpointer.restore(specs([1])[0].init_fn())[0]
  assert int(state.step) == 6


def test_the_mean_over_the_last_epochs_also_after_a_kill(tmp_path):
  seen = {}

  def norm(state):
    seen[int(state.step)] = float(jnp.linalg.norm(state.params))
    return {'norm': seen[int(state.step)]}

  def spec():
    return dataclasses.replace(specs([0])[0], test_fn=norm, last_epochs=2)

  options = OPTIONS | {'steps_per_epoch': 2}
  row = runs.run_spec(tmp_path / 'whole', spec(), **options)
  assert seen.keys() == {4, 6} and seen[4] != seen[6]
  assert row['test/norm'] == pytest.approx((seen[4] + seen[6]) / 2)
  assert row['best_step'] is None and row['validation/score'] is None

  def kill(step):
    if step == 5:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    runs.run_spec(tmp_path / 'killed', spec(), **options, callback=kill)
  again = runs.run_spec(tmp_path / 'killed', spec(), **options)
  assert again['resumed_from'] == 4
  assert_same_row(again, row)


def test_only_runs_of_all_tasks_compete_for_the_best(tmp_path):
  """The score of a network for one task is of one task."""
  single_step = make_train_step(
    mtl.weightings.mean(),
    optax.adam(0.05),
    lambda w, x: task_losses(w, x)[:1],
    num_tasks=1,
  )
  methods = [
    dataclasses.replace(x, select=lambda _: 0.5) for x in specs([0, 1])
  ]
  single = dataclasses.replace(
    methods[0],
    method='single_a',
    tasks=('a',),
    step=single_step,
    init_fn=functools.partial(
      single_step.init, jnp.ones(3), key=jax.random.key(0)
    ),
    select=lambda _: 9.0,
  )
  text = io.StringIO()
  console = rich.console.Console(file=text, width=200)
  groups = [[run] for run in (single, *methods)]
  options = OPTIONS | {'progress': True}
  assert runs.run_grid(tmp_path, groups, console, mode='loop', **options) == 0
  lines = text.getvalue().splitlines()
  assert lines[1].startswith('[2/3] dwa, seed 0 (') and 'best' not in lines[1]
  assert 'best dwa, seed 0: 0.5, ' in lines[2]
