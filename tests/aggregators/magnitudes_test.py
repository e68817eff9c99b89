"""MetaBalance and learning-rate annealing against numpy, by their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax as mtl

RNG = np.random.default_rng(0)
STEPS = [
  {
    'a': RNG.normal(size=(3, 2, 4)) * [[[1.0]], [[30.0]], [[0.1]]],
    'b': RNG.normal(size=(3, 5)) * [[2.0], [0.01], [1.0]],
  }
  for _ in range(4)
]
PARAMS = {'a': np.zeros((2, 4)), 'b': np.zeros(5)}


def run(tx, steps=STEPS, masks=None):
  state, out = tx.init(jax.tree.map(jnp.asarray, PARAMS)), []
  update = jax.jit(tx.update)
  for k, grads in enumerate(steps):
    mask = None if masks is None else jnp.asarray(masks[k])
    grads = jax.tree.map(jnp.asarray, grads)
    updates, state = update(grads, state, task_mask=mask)
    out.append(jax.tree.map(np.asarray, updates))
  return out, state


@pytest.mark.parametrize('primary', [0, 2])
def test_meta_balance_by_the_formula(primary, x64):
  relax, beta = 0.6, 0.8
  tx = mtl.meta_balance(3, primary=primary, relax_factor=relax, decay=beta)
  found, _ = run(tx)
  for name in PARAMS:
    m = np.zeros(3)
    for grads, updates in zip(STEPS, found, strict=True):
      g = grads[name].reshape(3, -1)
      m = beta * m + (1 - beta) * np.linalg.norm(g, axis=1)
      factor = relax * m[primary] / m + 1 - relax
      np.testing.assert_allclose(updates[name].ravel(), factor @ g, rtol=1e-10)


def test_meta_balance_at_its_ends(x64):
  total = jax.tree.map(lambda g: g.sum(0), STEPS[0])
  found, _ = run(mtl.meta_balance(3, relax_factor=0.0), STEPS[:1])
  for name in PARAMS:
    np.testing.assert_allclose(found[0][name], total[name], rtol=1e-12)
  found, _ = run(mtl.meta_balance(3, relax_factor=1.0, decay=0.0), STEPS[:1])
  for name in PARAMS:
    g = STEPS[0][name].reshape(3, -1)
    norms = np.linalg.norm(g, axis=1)
    np.testing.assert_allclose(
      found[0][name].ravel(), (norms[0] / norms) @ g, rtol=1e-10
    )


def test_meta_balance_absent_tasks(x64):
  mask = np.array([True, False, True])
  poisoned = [
    jax.tree.map(
      lambda g: np.where(mask.reshape(-1, *[1] * (g.ndim - 1)), g, np.nan), s
    )
    for s in STEPS
  ]
  found, state = run(mtl.meta_balance(3), poisoned, [mask] * 4)
  small = [jax.tree.map(lambda g: g[mask], s) for s in STEPS]
  expected, _ = run(mtl.meta_balance(2), small)
  for name in PARAMS:
    np.testing.assert_allclose(found[-1][name], expected[-1][name], rtol=1e-12)
  assert state.method_state.averaged[1] == 0
  # Nothing is known of a primary task that was never there.
  found, _ = run(mtl.meta_balance(3, primary=1), poisoned, [mask] * 4)
  plain = jax.tree.map(lambda g: g.sum(0), small[-1])
  for name in PARAMS:
    np.testing.assert_allclose(found[-1][name], plain[name], rtol=1e-12)


def test_meta_balance_state_is_not_poisoned():
  bad = jax.tree.map(np.copy, STEPS[1])
  bad['b'][1, 0] = np.inf
  _, state = run(mtl.meta_balance(3), [STEPS[0], bad])
  _, before = run(mtl.meta_balance(3), [STEPS[0]])
  jax.tree.map(np.testing.assert_array_equal, state, before)


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('primary', [0, 1])
def test_lr_annealing_by_the_formula(primary, weighted, x64):
  tx = mtl.lr_annealing(3, primary=primary, decay=0.7, weighted=weighted)
  found, state = run(tx)
  w = np.ones(3)
  for grads, updates in zip(STEPS, found, strict=True):
    g = np.concatenate([grads[n].reshape(3, -1) for n in PARAMS], axis=1)
    means = np.abs(g).mean(1) * (w if weighted else 1)
    new = 0.7 * w + 0.3 * np.abs(g[primary]).max() / means
    w = np.where(np.arange(3) == primary, 1, new)
    flat = np.concatenate([updates[n].ravel() for n in PARAMS])
    np.testing.assert_allclose(flat, w @ g, rtol=1e-10)
  np.testing.assert_allclose(mtl.get_weights(state), w, rtol=1e-10)


def test_lr_annealing_tends_to_the_root_if_weighted(x64):
  _, state = run(mtl.lr_annealing(3, weighted=True), [STEPS[0]] * 300)
  _, plain = run(mtl.lr_annealing(3, decay=0.0), STEPS[:1])
  np.testing.assert_allclose(
    mtl.get_weights(state), np.sqrt(mtl.get_weights(plain)), rtol=1e-6
  )


def test_lr_annealing_edges(x64):
  zero = jax.tree.map(np.copy, STEPS[0])
  for g in zero.values():
    g[2] = 0
  _, state = run(mtl.lr_annealing(3), [zero])
  assert mtl.get_weights(state)[2] == 1 and mtl.get_weights(state)[1] != 1
  # Without the primary task nothing moves.
  mask = np.array([False, True, True])
  _, state = run(mtl.lr_annealing(3), [STEPS[0]], [mask])
  np.testing.assert_array_equal(mtl.get_weights(state), [0, 1, 1])
  bad = jax.tree.map(np.copy, STEPS[1])
  bad['a'][0, 0, 0] = np.nan
  _, state = run(mtl.lr_annealing(3), [STEPS[0], bad])
  _, before = run(mtl.lr_annealing(3), [STEPS[0]])
  assert np.all(np.isnan(mtl.get_weights(state)))
  np.testing.assert_array_equal(
    state.method_state.loss_weights, before.method_state.loss_weights
  )


@pytest.mark.parametrize('name', ['meta_balance', 'lr_annealing'])
def test_the_primary_task_has_to_be_one(name):
  with pytest.raises(ValueError, match='primary=3 must be below num_tasks=3'):
    getattr(mtl, name)(3, primary=3)
