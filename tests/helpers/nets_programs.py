"""Programs: control flow, derivatives, custom rules, odd uses of parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from nets import Net, normal

X = normal(3, 4)
W = {'w': normal(4, 4)}
TWO = {'w': normal(4, 4), 'v': normal(4, 4, seed=1)}


@jax.custom_vjp
def clipped(x, w):
  return x @ w


def _clipped_fwd(x, w):
  return x @ w, (x, w)


def _clipped_bwd(saved, g):
  x, w = saved
  g = jnp.clip(g, -0.1, 0.1)
  return g @ w.T, 2 * x.T @ g


clipped.defvjp(_clipped_fwd, _clipped_bwd)


@jax.custom_jvp
def twice_the_slope(x, w):
  return x @ w


@twice_the_slope.defjvp
def _slope(primals, tangents):
  (x, w), (dx, dw) = primals, tangents
  return x @ w, dx @ w + 2 * (x @ dw)


@jax.custom_vjp
def reversed_gradient(x):
  return x


reversed_gradient.defvjp(lambda x: (x, None), lambda _, g: (-0.5 * g,))


def rounded(w):
  """Rounded, with the gradient passed straight through."""
  return w + jax.lax.stop_gradient(jnp.round(w) - w)


def solution(p, x):
  h = jnp.tanh(x @ p['w0'] + p['b'])
  return jnp.tanh(h @ p['w1']) @ p['w2']


def pinn(p, x):
  """Residuals with second derivatives at every point."""

  def residual(x):
    u = lambda x: solution(p, x)
    return jnp.trace(jax.hessian(u)(x)) + jax.grad(u)(x)[0] * u(x)

  return {
    'residual': jax.vmap(residual)(x),
    'value': jax.vmap(lambda x: solution(p, x))(x),
  }


def jacobian_of_input(p, x):
  return jax.jvp(lambda x: jnp.tanh(x @ p['w']) @ p['v'], (x,), (x[::-1],))[1]


def newton(p, x):
  """A while loop that the gradient does not enter."""
  x = jax.lax.while_loop(
    lambda x: jnp.max(jnp.abs(x)) > 1, lambda x: 0.7 * x, x
  )
  return x @ p['w']


def implicit(p, x):
  """A fixed point, its gradient by one more step."""
  step = lambda z: jnp.tanh(x + z @ p['w'] / 8)
  z = jax.lax.fori_loop(0, 30, lambda _, z: step(z), x)
  return step(jax.lax.stop_gradient(z))


def looped(p, x):
  return jax.lax.fori_loop(0, 3, lambda _, z: jnp.tanh(z @ p['w']), x)


def orthogonal(p, x):
  """Cayley's map of an antisymmetric matrix."""
  a, one = p['w'] - p['w'].T, jnp.eye(4)
  return x @ jnp.linalg.solve(one + a, one - a)


def referenced(p, x):
  """A parameter that is written and read."""
  ref = jax.new_ref(p['w'])
  ref[...] = 2 * ref[...]
  return x @ ref[...] + x @ p['v']


def seen(p, x):
  jax.debug.callback(lambda w: None, p['w'])
  return x @ p['w']


def distances(p, x):
  d = jnp.sum((x[:, None] - p['w'][None]) ** 2, axis=-1)
  return jnp.exp(-d) @ p['v']


NETS = {
  'custom_vjp': Net(lambda p, x: clipped(x, p['w']) @ p['v'], TWO, X, ('v',)),
  'custom_jvp': Net(
    lambda p, x: twice_the_slope(x, p['w']) @ p['v'], TWO, X, ('v',)
  ),
  'custom_vjp_of_activations': Net(
    lambda p, x: reversed_gradient(x @ p['w']) @ p['v'], TWO, X, ('w', 'v')
  ),
  'custom_vjp_of_a_parameter': Net(
    lambda p, x: x @ reversed_gradient(p['w']), W, X
  ),
  'remat': Net(
    lambda p, x: jax.checkpoint(lambda w: jnp.tanh(x @ w))(p['w']) @ p['v'],
    TWO,
    X,
    ('v',),
  ),
  'scan': Net(
    lambda p, x: jax.lax.scan(lambda z, w: (jnp.tanh(z @ w), None), x, p['w'])[
      0
    ],
    {'w': normal(2, 4, 4)},
    X,
  ),
  'loop': Net(looped, W, X),
  'while_before': Net(newton, W, X, ('w',)),
  'fixed_point': Net(implicit, W, X),
  'cond': Net(
    lambda p, x: jax.lax.cond(
      x[0, 0] > 0, lambda w: x @ w, lambda w: x @ w.T, p['w']
    ),
    W,
    X,
  ),
  'switch': Net(
    lambda p, x: jax.lax.switch(
      jnp.argmax(x[0]) % 2, [jnp.tanh, jnp.sin], x @ p['w']
    ),
    W,
    X,
    ('w',),
  ),
  'map': Net(lambda p, x: jax.lax.map(lambda x: x @ p['w'], x), W, X),
  'mapped': Net(
    lambda p, x: jax.vmap(lambda x: jnp.tanh(x @ p['w']))(x), W, X, ('w',)
  ),
  'mapped_over_weights': Net(
    lambda p, x: jax.vmap(lambda w: x @ w)(p['w']),
    {'w': normal(2, 4, 3)},
    X,
    ('w',),
  ),
  'a_weight_an_example': Net(
    lambda p, x: jax.vmap(jnp.dot)(x, p['w'][: x.shape[0]]),
    {'w': normal(3, 4, 2)},
    X,
  ),
  'jit_in_jit': Net(
    lambda p, x: jax.jit(lambda w, x: jax.jit(jnp.dot)(x, w.T))(p['w'], x),
    W,
    X,
    ('w',),
  ),
  'jit_called_twice': Net(
    lambda p, x: (lambda f: f(f(x)))(jax.jit(lambda x: jnp.sin(x @ p['w']))),
    W,
    X,
  ),
  'pinn': Net(
    pinn,
    {'w0': normal(2, 3), 'b': normal(3), 'w1': normal(3, 3), 'w2': normal(3)},
    normal(3, 2),
  ),
  'forward_mode': Net(jacobian_of_input, TWO, X),
  'gradient_penalty': Net(
    lambda p, x: jax.grad(
      lambda x: jnp.sum(jnp.tanh(x @ p['w']) * jnp.sin(x @ p['v']))
    )(x),
    TWO,
    X,
  ),
  'gradient_of_a_linear_map': Net(
    lambda p, x: jax.grad(lambda z: jnp.sum(jnp.tanh(z) @ p['w']))(x),
    W,
    X,
  ),
  'stopped': Net(
    lambda p, x: x @ p['w'] + x @ jax.lax.stop_gradient(p['w']), W, X
  ),
  'stopped_activations': Net(
    lambda p, x: jax.lax.stop_gradient(x @ p['w']) @ p['v'],
    TWO,
    X,
    ('w', 'v'),
  ),
  'straight_through': Net(lambda p, x: x @ rounded(p['w']), W, X),
  'reduced_precision': Net(
    lambda p, x: x @ jax.lax.reduce_precision(p['w'], 11, 30), W, X
  ),
  'orthogonal': Net(orthogonal, W, X),
  'triangular': Net(
    lambda p, x: x @ jnp.tril(p['w']) + x @ jnp.diag(p['d']),
    W | {'d': normal(4)},
    X,
  ),
  'written': Net(
    lambda p, x: x @ jnp.zeros((4, 4)).at[1:3].set(p['w'][:2]), W, X
  ),
  'references': Net(referenced, TWO, X, ('v',)),
  'callback': Net(seen, W, X),
  'distances': Net(distances, TWO, X, ('v',)),
  'sorted': Net(
    lambda p, x: jnp.sort(x @ p['w'], axis=-1) + jnp.cumsum(x @ p['v'], axis=0),
    TWO,
    X,
    ('w', 'v'),
  ),
  'sorted_weights': Net(lambda p, x: x @ jnp.sort(p['w'], axis=0), W, X),
  'largest': Net(lambda p, x: jax.lax.top_k(x @ p['w'], 2)[0], W, X, ('w',)),
  'moves': Net(
    lambda p, x: (
      x
      @ jnp.squeeze(
        jnp.flip(p['w'], 1).reshape(2, 8).T.reshape(4, 1, 4), 1
      ).T.copy()
    ),
    W,
    X,
    ('w',),
  ),
  'repeated': Net(lambda p, x: x @ jnp.tile(p['w'], (1, 2)), W, X),
  'spread': Net(
    lambda p, x: x @ jnp.broadcast_to(p['b'][:, None], (4, 2)),
    {'b': normal(4)},
    X,
  ),
  'padded': Net(
    lambda p, x: x @ jnp.pad(p['w'], ((0, 0), (1, 0)), mode='edge'), W, X
  ),
  'scalar': Net(
    lambda p, x: x @ p['w'] * p['s'], W | {'s': np.float64(0.7)}, X, ('w',)
  ),
  'empty': Net(
    lambda p, x: {'z': x @ p['w'], 'none': x @ p['e']},
    W | {'e': normal(4, 0)},
    X,
    ('w',),
  ),
  'nothing_contracted': Net(
    lambda p, x: x[:, :0] @ p['e'] + x, {'e': normal(0, 4)}, X
  ),
  'outer_product': Net(
    lambda p, x: jax.lax.dot_general(x, p['b'], (((), ()), ((), ()))),
    {'b': normal(4)},
    X,
  ),
  'squared': Net(lambda p, x: x @ (p['w'] @ p['w']), W, X),
  'signs': Net(lambda p, x: x @ p['w'] * (p['w'] > 0)[:1], W, X, ('w',)),
  'unread': Net(lambda p, x: x @ p['w'], TWO, X, ('w',)),
  'itself_a_feature': Net(lambda p, x: {'z': x @ p['w'], 'w': p['w']}, W, X),
  'closed_over': Net(
    lambda p, x: jnp.tanh(x @ p['w']) @ jnp.asarray(W['w']), W, X, ('w',)
  ),
  'dropout': Net(
    lambda p, x: jnp.where(
      jax.random.bernoulli(jax.random.key(3), 0.5, x.shape), x @ p['w'], 0
    ),
    W,
    X,
    ('w',),
  ),
  'partially_applied': Net(
    functools.partial(lambda p, x, f: f(x @ p['w']), f=jnp.arcsinh),
    W,
    X,
    ('w',),
  ),
}
