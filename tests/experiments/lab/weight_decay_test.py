"""Penalties on the size of parameters, and options that make no run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.lab import comparison, optimizers
from experiments.lab.comparison import ComparisonConfig
from experiments.suites import find


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
    ({'schedule': 'step', 'decay_factor': 0.0}, '--decay-factor=0.0'),
    ({'decay_every': 0}, '--decay-every=0'),
    ({'weight_decay': -1.0}, '--weight-decay=-1.0'),
    ({'schedule': 'plateau', 'decay_factor': 1.0}, '--decay-factor=1.0'),
    ({'schedule': 'plateau', 'min_learning_rate': 1.0}, '--min-learning-rate'),
    ({'schedule': 'plateau', 'last_epochs': 1}, '--last-epochs 1: the rate'),
  ],
)
def test_options_that_make_no_run_are_refused(options, said):
  suite = find('digits')
  config = comparison.complete(ComparisonConfig(**options), suite)
  with pytest.raises(ValueError, match=said):
    comparison.check(config, suite)
