"""Dense, convolutional, recurrent and attention layers."""

import jax
import jax.numpy as jnp
import numpy as np
from nets import Net, integers, normal

X = normal(3, 4)
SEQUENCE = normal(3, 5, 4)
IMAGE = normal(2, 5, 6, 4)
VECTORS = normal(3, 4, 3)
NHWC = ('NHWC', 'HWIO', 'NHWC')


def norm(x, axis=-1):
  mean = x.mean(axis, keepdims=True)
  return (x - mean) * jax.lax.rsqrt(x.var(axis, keepdims=True) + 0.1)


def conv(x, w, strides=(1, 1), padding='SAME', **options):
  return jax.lax.conv_general_dilated(
    x, w, strides, padding, dimension_numbers=NHWC, **options
  )


def convolved(takes=('w',), shape=(3, 2, 4, 3), **options):
  return Net(
    lambda p, x: conv(x, p['w'], **options), {'w': normal(*shape)}, IMAGE, takes
  )


def lstm_cell(p, state, x):
  h, c = state
  gates = x @ p['x'] + h @ p['h'] + p['b'][None]
  i, f, g, o = jnp.split(gates, 4, axis=-1)
  c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
  h = jax.nn.sigmoid(o) * jnp.tanh(c)
  return (h, c), h


def gru_cell(p, h, x):
  rz = jax.nn.sigmoid(x @ p['x'] + h @ p['h'])
  r, z = jnp.split(rz, 2, axis=-1)
  n = jnp.tanh(x @ p['xn'] + r * (h @ p['hn']))
  return (1 - z) * n + z * h, n


def unrolled(cell, init):
  def features(p, x):
    state, outs = init(x), []
    for l in range(x.shape[1]):
      state, out = cell(p, state, x[:, l])
      outs.append(out)
    return jnp.stack(outs)

  return features


def scanned(cell, init):
  def features(p, x):
    step = lambda state, x: cell(p, state, x)
    return jax.lax.scan(step, init(x), x.swapaxes(0, 1))[1]

  return features


def zeros(x):
  return jnp.zeros((x.shape[0], 3))


LSTM = {'x': normal(4, 12), 'h': normal(3, 12), 'b': normal(12)}
GRU = {
  'x': normal(4, 6),
  'h': normal(3, 6),
  'xn': normal(4, 3),
  'hn': normal(3, 3),
}


def input_projected(p, x):
  """The inputs of all steps at once, the state in a scan."""
  xs = (x @ p['x']).swapaxes(0, 1)
  step = lambda h, x: (jnp.tanh(x + h @ p['h']),) * 2
  return jax.lax.scan(step, zeros(x), xs)[1]


def attention(q, k, v):
  weights = jax.nn.softmax(jnp.einsum('bqhd,bkhd->bhqk', q, k))
  return jnp.einsum('bhqk,bkhd->bqhd', weights, v)


def multi_head(p, x):
  q, k, v = (jnp.einsum('bld,dhe->blhe', x, p[name]) for name in 'qkv')
  return jnp.einsum('bqhe,hed->bqd', attention(q, k, v), p['o'])


def memory(p, x):
  """Attention to learned keys and values."""
  weights = jax.nn.softmax(x @ p['keys'].T)
  return weights @ p['values']


def latents(p, x):
  """Learned queries of the data."""
  weights = jax.nn.softmax(jnp.einsum('qd,bld->bql', p['queries'], x))
  return jnp.einsum('bql,bld->bqd', weights, x) @ p['w']


def moe(p, x):
  gates = jax.nn.softmax(x @ p['gate'])
  outs = jnp.einsum('bd,edf->bef', x, p['experts'])
  return jnp.einsum('be,bef->bf', gates, jnp.tanh(outs))


def ragged(p, x):
  """Rows sorted by expert, with a group a weight."""
  order = jnp.argsort(jnp.argmax(x @ p['gate'], axis=-1))
  sizes = jnp.array([1, 0, 2])
  out = jax.lax.ragged_dot(x[order], p['experts'], sizes)
  return out * jax.nn.softmax(x @ p['gate'])[order][:, :1]


def top_two(p, x):
  values, which = jax.lax.top_k(x @ p['gate'], 2)
  experts = p['experts'][which]
  return jnp.einsum('bk,bd,bkdf->bf', jax.nn.softmax(values), x, experts)


def equivariant(p, x):
  """Vectors mixed by channel, and their cross and dot products."""
  a = jnp.einsum('bci,cd->bdi', x, p['a'])
  b = jnp.einsum('bci,cd->bdi', x, p['b'])
  scalars = jnp.sum(a * b, axis=-1) @ p['w']
  return {'vectors': jnp.cross(a, b), 'scalars': scalars}


DENSE = {'w0': normal(4, 5), 'b0': normal(5), 'w1': normal(5, 3)}

NETS = {
  'dense': Net(
    lambda p, x: jnp.tanh(x @ p['w0'] + p['b0'][None]) @ p['w1'],
    DENSE,
    X,
    ('w0', 'w1'),
  ),
  'layer_norm': Net(
    lambda p, x: norm(x @ p['w0']) * p['b0'][None] @ p['w1'],
    DENSE,
    X,
    ('w0', 'w1'),
  ),
  'batch_norm': Net(
    lambda p, x: norm(x @ p['w0'], 0) * p['b0'][None] @ p['w1'],
    DENSE,
    X,
    ('w0', 'w1'),
  ),
  'residual': Net(
    lambda p, x: x + jax.nn.gelu(x @ p['w0']) @ p['w1'],
    {'w0': normal(4, 5), 'w1': normal(5, 4)},
    X,
    ('w0', 'w1'),
  ),
  'gated': Net(
    lambda p, x: jax.nn.silu(x @ p['a']) * (x @ p['b']) @ p['w'],
    {'a': normal(4, 5), 'b': normal(4, 5, seed=1), 'w': normal(5, 3)},
    X,
    ('a', 'b', 'w'),
  ),
  'shared_twice': Net(
    lambda p, x: jnp.tanh(jnp.tanh(x @ p['w']) @ p['w']), {'w': normal(4, 4)}, X
  ),
  'siamese': Net(
    lambda p, x: (x @ p['w']) * (x[::-1] @ p['w']), {'w': normal(4, 3)}, X
  ),
  'tied': Net(
    lambda p, x: jnp.tanh(x @ p['w']) @ p['w'].T, {'w': normal(4, 3)}, X
  ),
  'lora': Net(
    lambda p, x: x @ (jnp.asarray(normal(4, 4)) + p['a'] @ p['b']),
    {'a': normal(4, 2), 'b': normal(2, 4)},
    X,
    ('a', 'b'),
  ),
  'lora_of_a_trained_weight': Net(
    lambda p, x: x @ (p['w'] + p['a'] @ p['b']),
    {'w': normal(4, 4), 'a': normal(4, 2), 'b': normal(2, 4)},
    X,
    ('a', 'b'),
  ),
  'lora_beside': Net(
    lambda p, x: x @ p['w'] + x @ p['a'] @ p['b'],
    {'w': normal(4, 4), 'a': normal(4, 2), 'b': normal(2, 4)},
    X,
    ('w', 'a', 'b'),
  ),
  'factors': Net(
    lambda p, x: x @ (p['a'] @ p['b']),
    {'a': normal(4, 2), 'b': normal(2, 4)},
    X,
    ('a', 'b'),
  ),
  'symmetric_factor': Net(
    lambda p, x: x @ (p['a'] @ p['a'].T), {'a': normal(4, 2)}, X
  ),
  'weight_norm': Net(
    lambda p, x: (
      x
      @ (p['w'] / jnp.linalg.norm(p['w'], axis=0)[None] * jnp.exp(p['g'])[None])
    ),
    {'w': normal(4, 3), 'g': normal(3)},
    X,
  ),
  'hypernetwork': Net(
    lambda p, x: jnp.einsum(
      'bd,bdf->bf', x, jnp.tanh(x @ p['w']).reshape(-1, 4, 3)
    ),
    {'w': normal(4, 12)},
    X,
    ('w',),
  ),
  'weights_of_a_code': Net(
    lambda p, x: x @ jnp.tanh(p['code'] @ p['w']).reshape(4, 3),
    {'code': normal(2), 'w': normal(2, 12)},
    X,
    ('code', 'w'),
  ),
  'bilinear': Net(
    lambda p, x: jnp.einsum('bi,ijk,bj->bk', x, p['w'], x),
    {'w': normal(4, 4, 3)},
    X,
    ('w',),
  ),
  'einsum_orders': Net(
    lambda p, x: jnp.einsum('oid,bld,li->bo', p['w'], x, p['v']),
    {'w': normal(3, 2, 4), 'v': normal(5, 2)},
    SEQUENCE,
    ('w', 'v'),
  ),
  'equivariant': Net(
    equivariant,
    {'a': normal(4, 4), 'b': normal(4, 4, seed=1), 'w': normal(4, 2)},
    VECTORS,
    ('a', 'b', 'w'),
  ),
  'films': Net(
    lambda p, x: (x @ p['w']) * (x[:, :2] @ p['scale']) + p['shift'][None],
    {'w': normal(4, 3), 'scale': normal(2, 3), 'shift': normal(3)},
    X,
    ('w', 'scale'),
  ),
  'moe': Net(
    moe,
    {'gate': normal(4, 3), 'experts': normal(3, 4, 2)},
    X,
    ('gate', 'experts'),
  ),
  'ragged_moe': Net(
    ragged, {'gate': normal(4, 3), 'experts': normal(3, 4, 2)}, X
  ),
  'sparse_moe': Net(
    top_two,
    {'gate': normal(4, 3), 'experts': normal(3, 4, 2)},
    X,
    ('gate', 'experts'),
  ),
  'lstm': Net(
    scanned(lstm_cell, lambda x: (zeros(x), zeros(x))), LSTM, SEQUENCE
  ),
  'lstm_of_one_step': Net(
    unrolled(lstm_cell, lambda x: (x[:, 0, :3], zeros(x))),
    LSTM,
    SEQUENCE[:, :1],
    ('x', 'h'),
  ),
  'gru': Net(scanned(gru_cell, zeros), GRU, SEQUENCE),
  'unrolled_gru': Net(unrolled(gru_cell, zeros), GRU, SEQUENCE[:, :2]),
  'inputs_before_a_scan': Net(
    input_projected, {'x': normal(4, 3), 'h': normal(3, 3)}, SEQUENCE, ('x',)
  ),
  'attention': Net(
    multi_head,
    {name: normal(4, 2, 3, seed=i) for i, name in enumerate('qkv')}
    | {'o': normal(2, 3, 4)},
    SEQUENCE,
    ('q', 'k', 'v', 'o'),
  ),
  'attention_to_memory': Net(
    memory,
    {'keys': normal(6, 4), 'values': normal(6, 3)},
    SEQUENCE,
    ('keys', 'values'),
  ),
  'attention_of_latents': Net(
    latents,
    {'queries': normal(2, 4), 'w': normal(4, 3)},
    SEQUENCE,
    ('queries', 'w'),
  ),
  'conv_strides': convolved(strides=(2, 3)),
  'conv_dilated': convolved(rhs_dilation=(2, 1), padding='VALID'),
  'conv_transposed': convolved(
    lhs_dilation=(2, 3), padding=((2, 0), (1, -1)), strides=(1, 2)
  ),
  'conv_groups': convolved((), (3, 2, 2, 6), feature_group_count=2),
  'conv_depthwise': convolved((), (3, 2, 1, 8), feature_group_count=4),
  'conv_batch_groups': convolved((), batch_group_count=2, shape=(2, 2, 4, 4)),
  'conv_transpose': Net(
    lambda p, x: jax.lax.conv_transpose(
      x, p['w'], (2, 2), 'SAME', dimension_numbers=NHWC, transpose_kernel=True
    ),
    {'w': normal(3, 2, 3, 4)},
    IMAGE,
    ('w',),
  ),
  'conv_of_an_image_of_parameters': Net(
    lambda p, x: conv(p['image'], x.transpose(1, 2, 3, 0)),
    {'image': normal(1, 7, 7, 4)},
    normal(2, 3, 3, 4),
  ),
  'conv_one_dimension': Net(
    lambda p, x: jax.lax.conv(x, p['w'], (2,), 'SAME'),
    {'w': normal(3, 5, 3)},
    SEQUENCE,
    ('w',),
  ),
  'conv_blocks': Net(
    lambda p, x: jnp.max(
      jax.nn.relu(norm(conv(x, p['w0']))) @ p['point'], axis=(1, 2)
    ),
    {'w0': normal(3, 3, 4, 2), 'point': normal(2, 3)},
    IMAGE,
    ('w0', 'point'),
  ),
  'mixed_precision': Net(
    lambda p, x: (
      jnp.tanh(x.astype(jnp.bfloat16) @ p['w0'].astype(jnp.bfloat16)).astype(
        jnp.float32
      )
      @ p['w1'].astype(jnp.float32)
    ),
    {'w0': normal(4, 5), 'w1': normal(5, 3)},
    X,
    ('w0', 'w1'),
    rtol=2e-2,
  ),
  'whole_numbers_as_data': Net(
    lambda p, x: jax.lax.dot_general(
      x, p['w'], (((1,), (0,)), ((), ())), preferred_element_type=np.float64
    ),
    {'w': normal(4, 3)},
    integers(100, 3, 4, dtype=np.int8),
  ),
}
