"""What is no gradient is refused by the name of its leaf."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from battery import FIRST

import mtljax as mtl

GOOD = jnp.array([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]])
BAD = {
  'integers': GOOD.astype(jnp.int32),
  'bools': GOOD > 0,
  'float0': np.zeros((2, 3), jax.dtypes.float0),
  'a float': 1.5,
  'a list': [1.0, 2.0],
}
WRONG = pytest.mark.parametrize('bad', BAD)
TRANSFORMATIONS = {
  'per_task': lambda: mtl.per_task(optax.scale(2.0), 2),
  'normalize_tasks': lambda: mtl.normalize_tasks(2),
  'adatask': lambda: mtl.adatask(2, 0.1),
  'per_task_optimizer': lambda: mtl.per_task_optimizer(optax.sgd(0.1), 2),
}
FUNCTIONS = {
  'gramian': mtl.gramian,
  'cross_gramian': lambda g: mtl.cross_gramian(g, g),
  'combine': lambda g: mtl.combine(g, jnp.ones(2)),
}


def tree(bad):
  return {'good': GOOD, 'odd': BAD[bad]}


def refused(call):
  with pytest.raises(TypeError, match=r"leaf 'odd(/0)?' is "):
    call()


@WRONG
@pytest.mark.parametrize('m', FIRST, ids=lambda m: m.name)
def test_every_method(m, bad):
  tx = m(2)
  params = {'good': jnp.zeros(3), 'odd': jnp.zeros(3)}
  refused(lambda: tx.update(tree(bad), tx.init(params), losses=jnp.ones(2)))


@WRONG
@pytest.mark.parametrize('name', TRANSFORMATIONS)
def test_transformations(name, bad):
  tx = TRANSFORMATIONS[name]()
  params = {'good': jnp.zeros(3), 'odd': jnp.zeros(3)}
  refused(lambda: tx.update(tree(bad), tx.init(params)))


@WRONG
@pytest.mark.parametrize('name', FUNCTIONS)
def test_functions_on_trees(name, bad):
  refused(lambda: FUNCTIONS[name](tree(bad)))


@pytest.mark.parametrize('name', ['sam', 'flat_regions'])
def test_sharpness(name):
  wrap = {
    'sam': mtl.sam,
    'flat_regions': lambda m, rho: mtl.flat_regions(m, rho_shared=rho),
  }[name]
  tx = wrap(mtl.mean(2), rho=0.1)
  params = {'good': jnp.zeros(3), 'odd': jnp.zeros(3)}
  refused(
    lambda: tx.update(
      tree('integers'),
      tx.init(params),
      params,
      losses=jnp.ones(2),
      task_grad_fn=lambda p, t: (jnp.ones(()), p),
    )
  )


def test_half_and_double_precision_pass():
  for dtype in (jnp.float16, jnp.bfloat16, jnp.float32, jnp.complex64):
    tx = mtl.cagrad(2)
    out, _ = tx.update(GOOD.astype(dtype), tx.init(None))
    assert out.dtype == dtype
