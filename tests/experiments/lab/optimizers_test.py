"""The learning rates of a run."""

import functools

import jax
import jax.numpy as jnp
import noise
import numpy as np
import optax
import pytest

import mtljax as mtl
from experiments.lab import optimizers, runs
from experiments.lab.optimizers import ScheduleOptions, make_schedule
from mtljax.training import Checkpointer, make_train_step


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    ('cosine', {0: 0.4, 100: 0.2, 200: 0.0}),
    ('constant', {0: 0.4, 100: 0.4, 200: 0.4}),
    ('step', {0: 0.4, 79: 0.4, 80: 0.1, 159: 0.1, 160: 0.025}),
  ],
)
def test_schedule(name, expected):
  rate = make_schedule(name, 0.4, 200, every=80, factor=0.25)
  for step, value in expected.items():
    assert float(rate(step)) == pytest.approx(value, abs=1e-7), step


def plateau(patience=2, least=0.1):
  options = ScheduleOptions(
    schedule='plateau',
    decay_factor=0.5,
    patience=patience,
    min_learning_rate=least,
  )
  return optimizers.make_plateau(options, 0.5)


def task_losses(w, x):
  return jnp.stack([jnp.mean((x @ w) ** 2), jnp.mean((x @ w - 1) ** 2)])


def step_of(rule):
  make = rule.scaled(optax.sgd)
  return make_train_step(mtl.mean(2), make(0.5), task_losses)


@pytest.mark.parametrize(
  'scores',
  [
    # The third epoch in a row that is no better acts; 8.9995 and 9.0005 are not
    # better by a ten-thousandth.
    (-10, -9, -9, -8.9995, -9.5, -9, -9, -8, *[-9] * 6),
    (8, 9, 9, 9.0005, 8.5, 9, 9, 10, *[9] * 6),
  ],
  ids=['min', 'max'],
)
def test_a_plateau_lets_as_many_epochs_pass_as_pytorch(scores):
  """Worked by hand from the rule of torch.optim's ReduceLROnPlateau."""
  rule = plateau()
  state = step_of(rule).init(jnp.ones(3), key=jax.random.key(0))
  scales = []
  for score in scores:
    state = rule.after(state, score)
    scales.append(float(state.opt_state[1].scale))
  # At last 0.1 / 0.5 of the rate, and not an eighth.
  assert scales == pytest.approx([1] * 4 + [0.5] * 6 + [0.25] * 3 + [0.2])


def test_the_scale_is_that_of_the_update():
  rule = plateau(patience=0)
  params, grads = jnp.ones(3), jnp.arange(3.0)
  tx = rule.scaled(optax.sgd)(0.5)
  state = tx.init(params)
  for scale in (1.0, 0.5):
    update, state = tx.update(grads, state, params)
    np.testing.assert_allclose(update, -0.5 * scale * grads)
    state = (state[0], state[1]._replace(scale=jnp.float32(0.5)))


def test_a_run_on_a_plateau_goes_on_as_it_was(tmp_path):
  """What it waited for and its rate are in the checkpoint."""
  rule = plateau(patience=1, least=1e-3)
  step = step_of(rule)

  def norm(state):
    return {'norm': jnp.linalg.norm(state.params)}

  spec = runs.RunSpec(
    method='mean',
    seed=0,
    tasks=('a', 'b'),
    step=step,
    init_fn=functools.partial(step.init, jnp.ones(3), key=jax.random.key(0)),
    batches_fn=functools.partial(noise.Batches, 0),
    validate_fn=norm,
    test_fn=norm,
    adapt_fn=rule.after,
  )

  def run(name, callback=None):
    return runs.run_spec(
      tmp_path / name,
      spec,
      num_steps=10,
      steps_per_epoch=2,
      log_every=5,
      batch_size=8,
      # The best is the first, so that the rate falls every other epoch.
      select=lambda found: 1.0,
      tensorboard=False,
      callback=callback,
    )

  def last(name):
    path = spec.folder(tmp_path / name) / 'checkpoints'
    with Checkpointer(path) as checkpointer:
      return checkpointer.restore(spec.init_fn())[0]

  class Stop(Exception):
    pass

  def stop(step):
    if step == 7:  # one epoch into the second wait
      raise Stop

  expected = run('whole')
  assert step.step._cache_size() == 1
  with pytest.raises(Stop):
    run('cut', stop)
  assert float(last('cut').opt_state[1].scale) == 0.5
  found = run('cut')
  assert found['resumed_from'] == 6
  assert found['test/norm'] == expected['test/norm']
  whole, cut = last('whole'), last('cut')
  assert float(whole.opt_state[1].scale) == 0.25
  same = jax.tree.map(
    np.array_equal, (whole.params, whole.opt_state), (cut.params, cut.opt_state)
  )
  assert all(jax.tree.leaves(same))


def test_methods_that_are_optimizers_have_no_plateau():
  method = mtl.adatask(2, learning_rate=0.1)
  with pytest.raises(ValueError, match='--schedule plateau and the method ada'):
    optimizers.check_takes(method, 'adatask', 'plateau')
  optimizers.check_takes(method, 'adatask', 'cosine')
