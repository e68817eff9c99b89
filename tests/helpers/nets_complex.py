"""Fourier layers, state-space models and other uses of complex numbers."""

import jax
import jax.numpy as jnp
from nets import Net, complexes, integers, normal

X = normal(3, 8, 4)
FLAT = normal(3, 4)
SPECTRUM = complexes(3, 4)
IMAGE = complexes(2, 4, 4, 2)


def _filtered(x, kernel):
  """Convolution of sequences ``(B, L, C)`` by FFT."""
  n = 2 * x.shape[1]
  y = jnp.fft.rfft(x, n, axis=1) * jnp.fft.rfft(kernel, n, axis=0)[None]
  return jnp.fft.irfft(y, n, axis=1)[:, : x.shape[1]]


def _scan(decay, x):
  """``h_l = decay h_{l-1} + x_l`` along axis 1."""

  def add(a, b):
    return a[0] * b[0], a[1] * b[0] + b[1]

  decays = jnp.broadcast_to(decay, x.shape)
  return jax.lax.associative_scan(add, (decays, x), axis=1)[1]


def lru(p, x):
  decay = jnp.exp(jax.lax.complex(-jnp.exp(p['nu']), p['theta']))
  inputs = jax.lax.complex(x @ p['b_re'], x @ p['b_im'])
  h = _scan(decay[None, None], inputs)
  return h.real @ p['c_re'] - h.imag @ p['c_im'] + x * p['d'][None, None]


def s4d(p, x):
  rate = jax.lax.complex(-jnp.exp(p['log_a']), p['imag'])
  steps = jnp.exp(p['log_dt'])[:, None] * rate
  powers = jnp.exp(steps[None] * jnp.arange(x.shape[1])[:, None, None])
  kernel = 2 * jnp.einsum('lcn,cn->lc', powers, p['c']).real
  return _filtered(x, kernel) @ p['out']


def s4_recurrence(p, x):
  """One state a channel, in a scan."""

  def step(h, x):
    h = jnp.exp(1j * p['theta'])[None] * h + x
    return h, h.real

  h = jnp.zeros((x.shape[0], x.shape[2]), jnp.result_type(complex))
  return jax.lax.scan(step, h, x.swapaxes(0, 1))[1].swapaxes(0, 1) @ p['out']


def fourier_layer(p, x):
  modes = jnp.fft.rfft(x, axis=1)[:, :3]
  modes = jnp.einsum('bki,kio->bko', modes, p['w'])
  return jnp.fft.irfft(modes, x.shape[1], axis=1) + x @ p['skip']


def conv(x, w):
  return jax.lax.conv_general_dilated(
    x, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def modrelu(p, z):
  z = z @ p['w0']
  size = jnp.abs(z)
  z = z * jax.nn.relu(size + p['b'][None]) / (size + 1e-3)
  return z @ p['w1']


NETS = {
  'real_weight_on_complex_data': Net(
    lambda p, x: jnp.abs(x @ p['w']), {'w': normal(4, 4)}, SPECTRUM
  ),
  'complex_weight_on_real_data': Net(
    lambda p, x: x @ p['w'], {'w': complexes(4, 4)}, FLAT
  ),
  'complex_weight_on_complex_data': Net(
    lambda p, x: x @ p['w'] + p['b'][None],
    {'w': complexes(4, 4), 'b': complexes(4)},
    SPECTRUM,
  ),
  'complex_cast': Net(
    lambda p, x: x @ p['w'].astype(jnp.result_type(complex)),
    {'w': normal(4, 4)},
    SPECTRUM,
  ),
  'complex_cast_of_real_product': Net(
    lambda p, x: (x @ p['w']).astype(jnp.result_type(complex)) * 1j,
    {'w': normal(4, 4)},
    FLAT,
    ('w',),
  ),
  'real_part_of_weight': Net(
    lambda p, x: x @ p['w'].real + x @ p['v'].imag,
    {'w': complexes(4, 4), 'v': complexes(4, 4, seed=5)},
    FLAT,
  ),
  'conjugate_weight': Net(
    lambda p, x: x @ p['w'].conj().T, {'w': complexes(4, 4)}, SPECTRUM
  ),
  'weight_of_two_parts': Net(
    lambda p, x: x @ jax.lax.complex(p['a'], p['b']),
    {'a': normal(4, 4), 'b': normal(4, 4, seed=1)},
    SPECTRUM,
  ),
  'fourier_layer': Net(
    fourier_layer,
    {'w': complexes(3, 4, 4), 'skip': normal(4, 4)},
    X,
    ('skip',),
  ),
  'fourier_shared_modes': Net(
    lambda p, x: jnp.fft.irfft(jnp.fft.rfft(x, axis=1) @ p['w'], 8, axis=1),
    {'w': complexes(4, 4)},
    X,
  ),
  'real_matrix_on_spectrum': Net(
    lambda p, x: jnp.fft.irfft(jnp.fft.rfft(x, axis=1) @ p['w'], 8, axis=1),
    {'w': normal(4, 4)},
    X,
  ),
  'spectral_filter': Net(
    lambda p, x: jnp.fft.irfft(
      jnp.fft.rfft(x, axis=1) * p['w'][None], 8, axis=1
    ),
    {'w': normal(5, 4)},
    X,
  ),
  'long_convolution': Net(
    lambda p, x: _filtered(x, p['w']) @ p['out'],
    {'w': normal(8, 4), 'out': normal(4, 4)},
    X,
    ('out',),
  ),
  'fourier_of_weight': Net(
    lambda p, x: jnp.abs(x @ jnp.fft.fft(p['w'])), {'w': normal(4, 4)}, FLAT
  ),
  'lru': Net(
    lru,
    {
      'nu': normal(5),
      'theta': normal(5, seed=1),
      'b_re': normal(4, 5),
      'b_im': normal(4, 5, seed=1),
      'c_re': normal(5, 4),
      'c_im': normal(5, 4, seed=1),
      'd': normal(4),
    },
    X,
    ('b_re', 'b_im', 'c_re', 'c_im'),
  ),
  's4d': Net(
    s4d,
    {
      'log_a': normal(4, 3),
      'imag': normal(4, 3, seed=1),
      'log_dt': normal(4, scale=0.1),
      'c': complexes(4, 3),
      'out': normal(4, 4),
    },
    X,
    ('out',),
  ),
  's4_recurrence': Net(
    s4_recurrence, {'theta': normal(4), 'out': normal(4, 4)}, X, ('out',)
  ),
  'modrelu': Net(
    modrelu,
    {'w0': complexes(4, 4), 'b': normal(4), 'w1': complexes(4, 4, seed=3)},
    SPECTRUM,
  ),
  'phases': Net(
    lambda p, x: jnp.exp(1j * (x @ p['w'])) * p['a'][None],
    {'w': normal(4, 4), 'a': normal(4)},
    FLAT,
    ('w',),
  ),
  'complex_table': Net(
    lambda p, x: jnp.take(p['w'], x, axis=0),
    {'w': complexes(7, 4)},
    integers(7, 3, 5),
  ),
  'table_cast_to_complex': Net(
    lambda p, x: (
      jnp.take(p['w'].astype(jnp.result_type(complex)), x, axis=0) * (1 + 2j)
    ),
    {'w': normal(7, 4)},
    integers(7, 3, 5),
  ),
  'convolution_of_complex_images': Net(
    lambda p, x: conv(conv(x, p['real'].astype(x.dtype)), p['complex']),
    {'real': normal(3, 3, 2, 2), 'complex': complexes(2, 2, 2, 2)},
    IMAGE,
  ),
}
