"""One of several methods, with the conventions of each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax as mtl

LABELS = {'trunk': 'shared', 'heads': [0, 1]}
PARAMS = {'trunk': jnp.ones(3), 'heads': [jnp.ones(2)] * 2}
GRADS = {
  'trunk': jnp.array([[3.0, 1.0, 0.0], [-1.0, 2.0, 1.0]]),
  'heads': [jnp.full(2, 3.0), jnp.full(2, -1.0)],
}
LOSSES = jnp.array([1.0, 4.0])
# All that can differ: heads, scale, a bound, the key.
METHODS = [
  mtl.fixed(2, weights=[0.3, 0.9], labels=LABELS),
  mtl.slw(2, labels=LABELS, scale=2.0, weight_heads=False),
  mtl.sum_losses(2, labels=LABELS, max_norm=0.5),
  mtl.rlw(2, labels=LABELS, key=7),
  mtl.famo(2, labels=LABELS, key=8),
]


def run(tx):
  state = tx.init(PARAMS)
  for _ in range(2):
    update, state = tx.update(GRADS, state, PARAMS, losses=LOSSES)
  return update, mtl.get_weights(state)


def test_each_is_the_method_alone():
  found = jax.jit(jax.vmap(lambda i: run(mtl.select(METHODS, i))))(
    jnp.arange(len(METHODS))
  )
  for i, method in enumerate(METHODS):
    jax.tree.map(
      lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-4),
      found,
      run(method),
    )
  # Conventions that differ are seen in the updates.
  heads = np.asarray(found[0]['heads'][0])
  np.testing.assert_allclose(heads[:2, 0], [0.9, 3.0], rtol=1e-6)
  assert np.linalg.norm(found[0]['trunk'][2]) < 0.51


def test_a_scale_that_all_share_stays_a_number():
  tx = mtl.select([mtl.mgda(2), mtl.cagrad(2)], 0)
  assert tx.conventions == mtl.mgda(2).conventions
  assert isinstance(tx, mtl.Aggregator)


def test_other_wrappers_go_around_it():
  tx = mtl.every_k(mtl.select(METHODS, jnp.int32(0)), 2)
  update, _ = run(tx)
  expected, _ = run(mtl.every_k(METHODS[0], 2))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), update, expected
  )


def test_weightings_give_a_weighting():
  rules = [mtl.weightings.mgda(), mtl.weightings.cagrad()]
  assert isinstance(mtl.select(rules, 0), mtl.Weighting)


def test_heads_that_are_chosen_stay_refused_for_signed_methods():
  rules = [mtl.weightings.imtl_g(), mtl.weightings.mgda()]
  with pytest.raises(ValueError, match='weight_heads=True'):
    mtl.aggregate(mtl.select(rules, 0), 2, weight_heads=True)


@pytest.mark.parametrize(
  'methods, error, message',
  [
    ([], ValueError, 'methods is empty'),
    ([mtl.mgda(2), mtl.mean(3)], ValueError, 'differ in num_tasks: mgda and'),
    ([mtl.mgda(2), METHODS[0]], ValueError, 'differ in labels'),
    (
      [mtl.mgda(2), mtl.cagrad(2, gramian_labels={'a': True})],
      ValueError,
      'differ in gramian_labels',
    ),
    (
      [mtl.mgda(2), mtl.mgda(2, nonfinite='drop_task')],
      ValueError,
      'differ in nonfinite',
    ),
    ([mtl.mgda(2), mtl.modo(2)], ValueError, 'compare two batches'),
    ([mtl.mgda(2), mtl.weightings.mgda()], TypeError, 'Weighting among'),
    ([mtl.sam(mtl.mgda(2))], TypeError, 'select the method inside'),
    ([mtl.graddrop(2)], TypeError, 'graddrop as built here is more'),
  ],
)
def test_bad_input(methods, error, message):
  with pytest.raises(error, match=message):
    mtl.select(methods, 0)
  with pytest.raises(ValueError, match='index=5'):
    mtl.select(METHODS, 5)
