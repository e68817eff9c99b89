"""Learning rates by the step, and penalties on the size of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.lab import comparison, optimizers, schedules
from experiments.lab.comparison import ComparisonConfig


def rates(steps, **options):
  found = schedules.make_schedule(
    ComparisonConfig(**options), 0.4, epochs=3, per_epoch=5
  )
  return [float(found(step)) for step in steps]


def test_schedules_by_hand():
  np.testing.assert_allclose(rates((0, 7, 14), schedule='constant'), 0.4)
  np.testing.assert_allclose(
    rates((0, 4, 5, 9, 10, 14), schedule='step', decay_epochs=1),
    [0.4, 0.4, 0.2, 0.2, 0.1, 0.1],
    rtol=1e-6,
  )
  np.testing.assert_allclose(
    rates((0, 9, 10, 14), schedule='step', decay_epochs=2, decay=0.85),
    [0.4, 0.4, 0.34, 0.34],
    rtol=1e-6,
  )
  np.testing.assert_allclose(
    rates((0, 5, 15)), [0.4, 0.4 * (1 + np.cos(np.pi / 3)) / 2, 0], atol=1e-7
  )


@pytest.mark.parametrize('name', ['adam', 'sgd', 'adamw'])
def test_weight_decay_is_a_penalty_or_a_shrinking(name):
  """With adamw it is apart from the gradient, which is zero here."""
  params = {'w': jnp.array([2.0, -3.0])}
  grads = jax.tree.map(jnp.zeros_like, params)
  tx = optimizers.with_weight_decay(name, 0.5)(0.1)
  updates, _ = tx.update(grads, tx.init(params), params)
  wanted = {'adam': [-0.1, 0.1], 'sgd': [-0.1, 0.15], 'adamw': [-0.1, 0.15]}
  np.testing.assert_allclose(updates['w'], wanted[name], rtol=1e-5)


def test_without_weight_decay_the_optimizer_is_the_one_of_its_name():
  assert optimizers.with_weight_decay('adam', 0.0) is optax.adam


@pytest.mark.parametrize(
  ('options', 'said'),
  [
    ({'schedule': 'cosin'}, "--schedule='cosin'.*mean 'cosine'"),
    ({'schedule': 'step', 'decay': 0.0}, '--decay=0.0'),
    ({'decay_epochs': 0}, '--decay-epochs=0'),
    ({'weight_decay': -1.0}, '--weight-decay=-1.0'),
  ],
)
def test_options_that_make_no_run_are_refused(options, said):
  from experiments.suites.digits import SUITE

  config = comparison.complete(ComparisonConfig(**options), SUITE)
  with pytest.raises(ValueError, match=said):
    comparison.check(config, SUITE)
