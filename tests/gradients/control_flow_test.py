"""Control flow, layer by layer and by the jacobian."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from nets import normal

import mtljax as mtl
from mtljax.gradients import _gramian, _kernels, _passes, _program, _pullback

T = 3
X = normal(3, 4)
W = normal(2, 4, 4)


class Net(NamedTuple):
  """``features(params, x)`` of a dict of parameters.

  Attributes:
    features: the function.
    params: a dict of arrays.
    takes: the names of those whose products loops add up.
    x: the data.
    holds: the names of those that are kept as layers.
  """

  features: Callable[[Any, Any], Any]
  params: dict[str, Any]
  takes: tuple[str, ...] = ()
  x: Any = X
  holds: tuple[str, ...] = ()


def losses_of(features):
  total = jnp.zeros(T)
  for z in jax.tree.leaves(features):
    z = z.real + 0.3 * z.imag if jnp.iscomplexobj(z) else z
    total += jnp.stack(
      [jnp.mean(jnp.cos(z * (t + 1)) + t * z**2) for t in range(T)]
    )
  return total


def dense(z, w, b=0.0):
  return jnp.tanh(z @ w + b)


def scanned(p, x, body=lambda z, w: dense(z, *w), **options):
  return jax.lax.scan(
    lambda z, w: (body(z, w), None), x, (p['w'], p['b']), **options
  )[0]


MLP = {'w': W, 'b': normal(2, 4)}


def norm(z, scale):
  z = z - z.mean(-1, keepdims=True)
  return scale * z / jnp.sqrt((z**2).mean(-1, keepdims=True) + 1e-3)


ENCODER = {
  'out': normal(2, 2, 2, 4),
  'qkv': normal(2, 3, 4, 2, 2),
  'scale': 1 + 0.1 * normal(2, 4),
  'up': normal(2, 4, 5),
  'down': normal(2, 5, 4),
}


def block(z, p):
  """A residual attention encoder's layer."""
  q, k, v = jnp.einsum('bsi,cihd->cbshd', norm(z, p['scale']), p['qkv'])
  scores = jax.nn.softmax(jnp.einsum('bshd,buhd->bhsu', q, k))
  mixed = jnp.einsum('bhsu,buhd->bshd', scores, v)
  z = z + jnp.einsum('bshd,hdo->bso', mixed, p['out'])
  return z + jax.nn.gelu(z @ p['up']) @ p['down']


def encoder(p, x, body=block, **options):
  return jax.lax.scan(lambda z, p: (body(z, p), None), x, p, **options)[0]


def rnn(p, x):
  """A cell whose weights are constants, and stacked weights beside them."""

  def step(h, xs):
    x, w = xs
    h = jnp.tanh(x @ p['in'] + h @ p['h'] + h @ w)
    return h, h

  return jax.lax.scan(step, jnp.zeros((3, 4)), (p['x'] + x[None], p['w']))


def stacked(p, x):
  """Inputs, outputs and counters a layer; heads read the outputs."""

  def step(carry, xs):
    z, count = carry
    w, key, shift = xs
    keep = jax.random.bernoulli(key, 0.7, z.shape)
    z = jnp.where(keep, dense(z, w), shift * z)
    return (z, count + 1), {'z': z, 'count': count, 'key': key}

  keys = jax.random.split(jax.random.key(0), 2)
  (z, count), ys = jax.lax.scan(step, (x, 0), (p['w'], keys, jnp.arange(2.0)))
  return {'z': z, 'ys': ys['z'] * (count + ys['count'][:, None, None])}


def nested(p, x):
  def outer(z, w):
    inner = lambda z, u: (dense(z, u), None)
    return dense(jax.lax.scan(inner, z, w['inner'])[0], w['outer']), None

  return jax.lax.scan(outer, x, {'inner': p['w'], 'outer': p['v']})[0]


def nested_constant(p, x):
  """A slice that is the inner loop's constant."""

  def outer(z, w):
    return jax.lax.fori_loop(0, 3, lambda _, z: dense(z, w), z), None

  return jax.lax.scan(outer, x, p['w'])[0]


def twice_outer(p, x):
  """The inner loop reads the slices again in each outer iteration."""

  def outer(z, v):
    inner = lambda z, w: (dense(z, w), None)
    return jax.lax.scan(inner, z, p['w'])[0] @ v, None

  return jax.lax.scan(outer, x, p['v'])[0]


@jax.custom_vjp
def halved(x):
  return x


halved.defvjp(lambda x: (x, None), lambda _, g: (0.5 * g,))


@jax.custom_jvp
def bent(x):
  return jnp.sin(x)


bent.defjvp(lambda x, dx: (jnp.sin(x[0]), dx[0] * jnp.cos(x[0]) * 2))


@jax.custom_vjp
def product(x, w):
  return x @ w


product.defvjp(
  lambda x, w: (x @ w, (x, w)), lambda s, g: (g @ s[1].T, 2 * s[0].T @ g)
)


def chosen(p, x):
  def step(z, w):
    branches = [lambda z: dense(z, w), lambda z: jnp.sin(z @ w.T)]
    return jax.lax.switch(jnp.argmax(z[0]) % 2, branches, z), None

  return jax.lax.scan(step, x, p['w'])[0]


def wave(p, x):
  """Complex inside; real weights."""
  step = lambda z, w: (jnp.fft.fft(z).real @ w + jnp.fft.ifft(z * w[0]).imag, 0)
  return jax.lax.scan(step, x, p['w'])[0]


def indexed(p, x):
  return jax.lax.fori_loop(0, 2, lambda i, z: dense(z, p['w'][i]), x)


def bounded_while(p, x):
  """A loop with a condition before, one of fixed length behind it."""
  z = jax.lax.while_loop(
    lambda z: jnp.max(jnp.abs(z)) > 1, lambda z: 0.7 * z, x
  )
  return scanned(p, z)


def shared_with_a_head(p, x):
  return {'z': scanned(p, x), 'w': x @ p['w'][0]}


BOTH = {'w': normal(2, 3, 4, 4, scale=0.5), 'v': normal(2, 4, 4)}
NETS = {
  'scanned_mlp': Net(scanned, MLP, ('b', 'w')),
  'residual': Net(
    lambda p, x: scanned(p, x, lambda z, w: z + dense(z, *w)), MLP, ('b', 'w')
  ),
  'encoder': Net(encoder, ENCODER, tuple(ENCODER), normal(2, 3, 4)),
  'encoder_remat': Net(
    lambda p, x: encoder(p, x, jax.checkpoint(block, prevent_cse=False)),
    ENCODER,
    tuple(ENCODER),
    normal(2, 3, 4),
  ),
  'remat_with_a_policy': Net(
    lambda p, x: encoder(
      p,
      x,
      jax.checkpoint(block, policy=jax.checkpoint_policies.dots_saveable),
    ),
    ENCODER,
    tuple(ENCODER),
    normal(2, 3, 4),
  ),
  'remat_around': Net(jax.checkpoint(scanned), MLP, ('b', 'w')),
  'remat_alone': Net(
    lambda p, x: jax.checkpoint(dense)(x, p['w']) @ p['v'],
    {'w': normal(4, 4), 'v': normal(4, 3)},
    ('w',),
    holds=('v',),
  ),
  'reverse': Net(lambda p, x: scanned(p, x, reverse=True), MLP, ('b', 'w')),
  'unrolled_by_two': Net(lambda p, x: scanned(p, x, unroll=2), MLP, ('b', 'w')),
  'one_layer': Net(
    scanned, {'w': normal(1, 4, 4), 'b': normal(1, 4)}, ('b', 'w')
  ),
  'no_layer': Net(scanned, {'w': np.zeros((0, 4, 4)), 'b': np.zeros((0, 4))}),
  'rnn': Net(
    rnn,
    {
      'in': normal(4, 4),
      'h': normal(4, 4, seed=1),
      'w': W,
      'x': normal(2, 3, 4),
    },
    ('w',),
  ),
  'stacked': Net(stacked, {'w': W}, ('w',)),
  'nested': Net(nested, BOTH, ('v', 'w')),
  'nested_constant': Net(nested_constant, {'w': W}, ('w',)),
  'read_again': Net(twice_outer, {'w': W, 'v': normal(2, 4, 4)}, ('v',)),
  'mapped': Net(
    lambda p, x: jax.lax.map(lambda w: x @ w, p['w']), {'w': W}, ('w',)
  ),
  'relu': Net(
    lambda p, x: scanned(p, x, lambda z, w: jax.nn.relu(z @ w[0] + w[1])),
    MLP,
    ('b', 'w'),
  ),
  'custom_jvp': Net(
    lambda p, x: scanned(p, x, lambda z, w: bent(z @ w[0] + w[1])),
    MLP,
    ('b', 'w'),
  ),
  'custom_vjp': Net(
    lambda p, x: scanned(p, x, lambda z, w: jnp.sin(halved(z @ w[0] + w[1]))),
    MLP,
    ('b', 'w'),
  ),
  'custom_vjp_of_slices': Net(
    lambda p, x: scanned(p, x, lambda z, w: bent(product(z, w[0])) + w[1]),
    MLP,
    ('b', 'w'),
  ),
  'used_twice_inside': Net(
    lambda p, x: scanned(p, x, lambda z, w: dense(z @ w[0].T, *w) * w[0][0]),
    MLP,
    ('b', 'w'),
  ),
  'not_linear_inside': Net(
    lambda p, x: scanned(p, x, lambda z, w: z @ jnp.exp(w[0] @ w[0]) / 9),
    MLP,
    ('b', 'w'),
  ),
  'moved_before': Net(
    lambda p, x: scanned(p | {'w': jnp.flip(p['w'].transpose(2, 0, 1))}, x),
    {'w': normal(4, 4, 2), 'b': normal(2, 4)},
    ('b', 'w'),
  ),
  'scaled_before': Net(
    lambda p, x: scanned(p | {'w': 2 * p['w']}, x), MLP, ('b',)
  ),
  'repeated_before': Net(
    lambda p, x: scanned(p | {'w': jnp.tile(p['w'], (2, 1, 1))[:2]}, x),
    {'w': normal(1, 4, 4), 'b': normal(2, 4)},
    ('b',),
  ),
  'scanned_twice': Net(lambda p, x: scanned(p, scanned(p, x)), MLP),
  'read_as_a_whole_too': Net(shared_with_a_head, MLP, ('b',)),
  'both_slices_of_one': Net(
    lambda p, x: jax.lax.scan(
      lambda z, w: (dense(dense(z, w[0]), w[1]), None), x, (p['w'], p['w'])
    )[0],
    {'w': W},
  ),
  'layers_beside': Net(
    lambda p, x: scanned(p, x @ p['u']) @ p['v'],
    MLP | {'u': normal(4, 4), 'v': normal(4, 3)},
    ('b', 'w'),
    holds=('u', 'v'),
  ),
  'switch_inside': Net(chosen, {'w': W}, ('w',)),
  'stopped': Net(
    lambda p, x: scanned(
      p, x, lambda z, w: dense(z, jax.lax.stop_gradient(w[0]), w[1])
    ),
    MLP,
    ('b', 'w'),
  ),
  'jit_around': Net(
    jax.jit(lambda p, x: jax.jit(scanned)(p, x)), MLP, ('b', 'w')
  ),
  'complex_inside': Net(wave, {'w': W}, ('w',)),
  'complex_slices': Net(
    lambda p, x: scanned(p, x + 0j).real,
    {'w': W + 1j * normal(2, 4, 4, seed=1), 'b': normal(2, 4)},
    ('b',),
  ),
  'indexed': Net(indexed, {'w': W}),
  'carried': Net(
    lambda p, x: jax.lax.fori_loop(
      0, 3, lambda _, c: (dense(c[0], c[1]), c[1] * 0.9), (x, p['w'][0])
    )[0],
    {'w': W},
  ),
  'while_before': Net(bounded_while, MLP, ('b', 'w')),
  'cond_around': Net(
    lambda p, x: jax.lax.cond(x[0, 0] > 0, scanned, lambda p, x: x, p, x), MLP
  ),
  'unread': Net(lambda p, x: scanned(p | {'w': W}, x), MLP, ('b',)),
}


@pytest.fixture(autouse=True)
def ranks():
  """Biases are added as they are."""
  with jax.numpy_rank_promotion('allow'):
    yield


def jacobian(net, params, x):
  losses, pull = jax.vjp(lambda p: losses_of(net.features(p, x)), params)
  rows = [pull(c)[0] for c in jnp.eye(T)]
  return losses, jax.tree.map(lambda *x: jnp.stack(x), *rows)


# Their slices meet the data in more than one product, or another operation.
WHOLE = ('nested_constant', 'custom_vjp_of_slices', 'used_twice_inside')
WHOLE += ('not_linear_inside', 'switch_inside', 'stopped', 'complex_inside')


def tagged(name):
  """The parameters that meet the data inside, once, in a product."""
  if name in WHOLE:
    return set()
  return set(NETS[name].takes) - {'b', 'scale'}


SLICED = ('scanned_mlp', 'encoder', 'rnn', 'stacked', 'nested', 'layers_beside')
STAGED = ('encoder_remat', 'rnn', 'stacked', 'layers_beside')


@pytest.mark.parametrize(
  ('name', 'form', 'by'),
  [
    *((x, 'plain', 'signals') for x in NETS),
    *((x, 'plain', 'slices') for x in SLICED),
    *((x, 'staged', 'signals') for x in STAGED),
  ],
)
def test_the_gramian_is_that_of_the_jacobian(name, form, by, x64, monkeypatch):
  by_signals = by == 'signals'
  monkeypatch.setattr(_kernels, 'is_cheaper', lambda *args: by_signals)
  net, kept = NETS[name], {}
  names = sorted(net.params)
  weights = jnp.arange(1.0, T + 1)
  passes = _passes.make_passes('unroll')
  if form == 'plain':
    loss = lambda p, x: losses_of(net.features(p, x))
  else:
    head = lambda t: lambda p, z, x: losses_of(z)[t]
    loss = mtl.Staged(net.features, [head(t) for t in range(T)])

  @jax.jit
  def compute(params, x):
    watched = _pullback.make_pullback(
      loss, params, (x,), labels=None, has_aux=False, watch=True
    )
    layers = watched.layers(passes, loops=True)
    kept['sums'] = {names[i] for i in layers.sums}
    kept['signals'] = {names[i] for i in layers.signals}
    marked = [True] * len(names)
    gramian, combined = _gramian.gramian_and_combine(watched, passes, marked)
    return watched.losses, gramian, combined(weights), jacobian(net, params, x)

  losses, gramian, combined, (want, rows) = compute(net.params, net.x)
  holds = set(net.holds) if by_signals else set()
  assert kept == {'sums': set(net.takes), 'signals': holds}
  np.testing.assert_allclose(losses, want, 1e-10)
  rows = nets.rows_of(rows)
  nets.assert_close(gramian, rows @ rows.T, 1e-10)
  combined = nets.rows_of([x[None] for x in combined])[0]
  nets.assert_close(combined, weights @ rows, 1e-10)


@pytest.mark.parametrize('name', NETS)
def test_what_is_read_as_a_layer_inside(name):
  net = NETS[name]
  leaves, treedef = jax.tree.flatten(net.params)
  program, _ = _program.trace(
    lambda leaves, x: net.features(jax.tree.unflatten(treedef, leaves), x),
    leaves,
    net.x,
    kinds=_kernels.READERS,
  )
  found = zip(sorted(net.params), program.inside, strict=True)
  uses = {name: i.use for name, i in found if i is not None}
  layers = {k for k, use in uses.items() if use and _kernels.as_layer(use)}
  assert layers == tagged(name)
