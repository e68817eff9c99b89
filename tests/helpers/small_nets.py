"""Dense networks and encoders, small, and how their parameters are counted."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mtljax import models

KEY = jax.random.key(0)

#: Compiles in less time, to slower programs.
quick_jit = functools.partial(
  jax.jit,
  compiler_options={
    'xla_backend_optimization_level': 0,
    'xla_llvm_disable_expensive_passes': True,
  },
)


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def shapes_of(model, side=64, channels=3):
  x = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
  return jax.eval_shape(lambda key: model.init(key, x), KEY)[0]


def counts(model, side=64):
  """Of all parameters, and of those of each convention's Gramian."""
  shapes = shapes_of(model, side)
  return count(shapes), [
    model.sharings(shapes, name).num_gramian for name in model.conventions
  ]


SMALL = {'width': 2, 'head_features': 2, 'norm': 'group', 'conv_impl': 'lax'}
TEN = SMALL | {'depth': 10}
# With fewer features the ReLUs of a task's attention are all dead.
ALIVE = SMALL | {'depth': 18, 'head_features': 8}
SEGNET = {'widths': (2, 4), 'num_convs': (2, 2), 'conv_impl': 'lax'}
TASKS = {'tasks': ('a', 'b'), 'num_outputs': (2, 1)}
TOY = {'features': 4, 'depth': 1, 'num_heads': 2, 'hidden': 6}
MODELS = {
  'deeplab_v3': models.deeplab_v3(**TASKS, **ALIVE),
  'deeplab_v3_plus': models.deeplab_v3_plus(**TASKS, **TEN),
  'segnet_of_mtan': models.segnet(**TASKS, **SEGNET, definition='mtan'),
  'mtan_segnet': models.mtan_segnet(**TASKS, **SEGNET),
  'mtan_resnet': models.mtan_resnet(**TASKS, **ALIVE),
  'cross_stitch': models.cross_stitch(**TASKS, **TEN),
  'cross_stitch_segnet': models.cross_stitch_segnet(**TASKS, **SEGNET),
  'ltb': models.ltb(**TASKS, **TEN),
  'mmoe_resnet': models.mmoe_resnet(**TASKS, **TEN),
  'cgc_resnet': models.cgc_resnet(**TASKS, **TEN),
  'ple_resnet': models.ple_resnet(**TASKS, **TEN),
  'ple_resnet_of_libmtl': models.ple_resnet(
    **TASKS, **TEN, definition='libmtl'
  ),
  'dselect_k_resnet': models.dselect_k_resnet(**TASKS, **TEN, per_example=True),
  'celeba_cnn': models.celeba_cnn(('a', 'b'), width=2, conv_impl='lax'),
  'vit': models.vit(**TOY, num_classes=2),
  'text_encoder': models.text_encoder(('a', 'b'), **TOY, vocabulary=9),
}
IMAGE = np.random.default_rng(8).uniform(size=(2, 16, 16, 3))
TOKENS = np.array([[3, 1, 8, 0, 0], [2, 2, 7, 4, 5]])


def start(name, dtype=jnp.float32):
  """Parameters drawn here, a state before any step, and an example."""
  x = jnp.asarray(TOKENS if name == 'text_encoder' else IMAGE.astype(dtype))
  params, state = jax.eval_shape(lambda: MODELS[name].init(KEY, x))
  rng = np.random.default_rng(0)
  draw = lambda s: jnp.asarray(rng.normal(scale=0.5, size=s.shape), dtype)
  ones = lambda s: jnp.ones(
    s.shape, dtype if jnp.issubdtype(s.dtype, jnp.floating) else s.dtype
  )
  return jax.tree.map(draw, params), jax.tree.map(ones, state), x
