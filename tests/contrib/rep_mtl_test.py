"""Rep-MTL, against its formulas written out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax.training import make_train_step

T, B = 3, 4
RNG = np.random.default_rng(0)
PARAMS = {
  'trunk': RNG.normal(size=(2, 3)),
  'heads': RNG.normal(size=(T, 3)),
}
BATCH = RNG.normal(size=(B, 5, 2))  # five positions
OPTIONS = {
  'entropy_strength': 0.7,
  'alignment_strength': 0.4,
  'temperature': 0.3,
}


def trunk(params, x):
  return jnp.tanh(x @ params['trunk'])


def head(params, z, x, t):
  return (t + 1.0) * jnp.mean(
    (jnp.tanh(z @ params['heads'][t]) - x[..., 0]) ** 2
  )


STAGED = mtl.Staged(
  trunk,
  [lambda params, z, x, t=t: head(params, z, x, t) for t in range(T)],
)


def written_out(params, anchor):
  """The objective by loops, the saliencies by one gradient a task."""
  z = trunk(params, BATCH)
  saliencies = [
    np.asarray(jax.grad(lambda z, t=t: head(params, z, BATCH, t))(z))
    for t in range(T)
  ]
  losses = [head(params, z, BATCH, t) for t in range(T)]
  entropy = 0.0
  for b in range(B):
    for i in range(5):
      sizes = [abs(sum(s[b, i, c] for c in range(3)) / 3) for s in saliencies]
      for size in sizes:
        share = size / sum(sizes)
        entropy -= share * np.log(share) / (B * 5)
  units = {}
  for t in range(T):
    for b in range(B):
      affinity = sum(
        saliencies[t][b, i][:, None] * saliencies[t][b, i][None]
        for i in range(5)
      )
      units[t, b] = affinity / np.linalg.norm(affinity)
  contrast = 0.0
  for t in range(T):
    of = [s for s in range(T) if anchor == 'mean' or s != t]
    anchors = []
    for b in range(B):
      mean = sum(units[s, b] for s in of) / len(of)
      anchors.append(mean / np.linalg.norm(mean))
    for b in range(B):
      logits = [(units[t, b] * a).sum() / 0.3 for a in anchors]
      partition = sum(np.exp(x) for x in logits)
      contrast -= (logits[b] - np.log(partition)) / (T * B)
  return sum(losses) + 0.7 * entropy + 0.4 * contrast


@pytest.mark.parametrize('anchor', ['mean', 'others'])
def test_objective_is_the_one_written_out(anchor, x64):
  losses = mtl.contrib.rep_mtl_losses(STAGED, anchor=anchor, **OPTIONS)
  found = jax.jit(losses)(PARAMS, BATCH)
  assert found.shape == (T,)
  np.testing.assert_allclose(
    found.sum(), written_out(PARAMS, anchor), rtol=1e-10
  )


def test_gradient_goes_through_the_saliencies(x64):
  """Second derivatives, by differences of the objective."""
  losses = mtl.contrib.rep_mtl_losses(STAGED, **OPTIONS)
  value = jax.jit(lambda params: losses(params, BATCH).sum())
  grads = jax.jit(jax.grad(value))(PARAMS)
  for name in PARAMS:
    direction = {k: np.zeros_like(v) for k, v in PARAMS.items()}
    direction[name] = RNG.normal(size=PARAMS[name].shape)
    ends = [
      value({k: PARAMS[k] + h * direction[k] for k in PARAMS})
      for h in (1e-5, -1e-5)
    ]
    slope = np.sum(grads[name] * direction[name])
    np.testing.assert_allclose((ends[0] - ends[1]) / 2e-5, slope, rtol=1e-6)


def test_a_step_descends_the_objective():
  losses = mtl.contrib.rep_mtl_losses(STAGED, **OPTIONS)
  made = make_train_step(mtl.sum_losses(T), optax.sgd(0.05), losses)
  state = made.init(jax.tree.map(jnp.float32, PARAMS), key=jax.random.key(0))
  sums = []
  for _ in range(4):
    state, metrics = made.step(state, jnp.float32(BATCH))
    sums.append(float(metrics['losses'].sum()))
  assert sums == sorted(sums, reverse=True)


def test_no_saliency_gives_no_entropy_and_finite_gradients():
  heads = [STAGED.heads[0], lambda params, z, x: jnp.sum(params['heads'][1])]
  fun = mtl.Staged(trunk, heads)
  losses = mtl.contrib.rep_mtl_losses(
    fun, entropy_strength=1.0, alignment_strength=1.0
  )
  value = lambda params: losses(params, BATCH).sum()
  grads = jax.jit(jax.grad(value))(jax.tree.map(jnp.float32, PARAMS))
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


@pytest.mark.parametrize(
  'options, words',
  [
    ({'entropy_strength': -1.0}, 'entropy_strength=-1.0'),
    ({'alignment_strength': -1.0}, 'alignment_strength=-1.0'),
    ({'temperature': 0.0}, 'temperature=0.0'),
    ({'anchor': 'first'}, "anchor='first'"),
  ],
)
def test_arguments_are_checked(options, words):
  with pytest.raises(ValueError, match=words):
    mtl.contrib.rep_mtl_losses(STAGED, **{**OPTIONS, **options})


def test_losses_and_features_are_checked():
  build = lambda fun, **options: mtl.contrib.rep_mtl_losses(
    fun, **{**OPTIONS, **options}
  )
  with pytest.raises(ValueError, match=r'pass an mtl\.Staged'):
    build(lambda params, x: jnp.ones(2))
  one = mtl.Staged(lambda p, x: x, [lambda p, z, x: jnp.sum(z)])
  with pytest.raises(ValueError, match="anchor='others': one task"):
    build(one, anchor='others')
  pair = mtl.Staged(lambda p, x: (x, x), one.heads)
  with pytest.raises(ValueError, match='returns 2 arrays'):
    build(pair)(PARAMS, BATCH)
  with pytest.raises(ValueError, match=r'\(4,\)'):
    build(one)(PARAMS, BATCH[:, 0, 0])
