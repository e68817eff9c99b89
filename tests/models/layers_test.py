import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.models import layers

# (H, W, cin, cout, (kh, kw), strides, padding)
CASES = [
  (12, 12, 1, 10, (5, 5), 1, 'VALID'),
  (9, 17, 3, 4, (3, 3), 1, 'SAME'),
  (8, 11, 2, 3, (3, 5), (2, 1), 'SAME'),
  (10, 13, 2, 5, (5, 3), (1, 2), 'VALID'),
  (15, 15, 1, 8, (7, 7), 2, 3),
  (7, 8, 4, 6, (1, 1), 2, 'VALID'),
  (6, 7, 16, 8, (3, 3), 1, ((0, 2), (1, 0))),
  (2, 2, 3, 5, (3, 3), 1, 1),
  (5, 4, 2, 3, (2, 3), 3, (1, 2)),
  (6, 23, 1, 2, (2, 2), 1, 'VALID'),
]
IMPLS = ['banded', 'im2col']


def _data(case, dtype, batch=2):
  h, w, cin, cout, size, strides, padding = case
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(batch, h, w, cin)), dtype)
  kernel = jnp.asarray(rng.normal(size=(*size, cin, cout)), dtype)

  def conv(impl):
    return lambda x, kernel: layers.conv2d(
      x, kernel, strides=strides, padding=padding, impl=impl
    )

  return x, kernel, conv


def _value_and_grads(fun, x, kernel):
  """The output and the pull-back of a fixed cotangent."""
  y, pull = jax.vjp(fun, x, kernel)
  weights = np.cos(np.arange(y.size)).reshape(y.shape).astype(jnp.bfloat16)
  return y, *pull(jnp.asarray(weights, y.dtype))


@pytest.mark.parametrize('impl', IMPLS)
@pytest.mark.parametrize('case', CASES, ids=str)
def test_equals_lax_in_float64(case, impl, x64):
  x, kernel, conv = _data(case, jnp.float64)
  run = jax.jit(_value_and_grads, static_argnums=0)
  got = run(conv(impl), x, kernel)
  want = run(conv('lax'), x, kernel)
  for g, w in zip(got, want, strict=True):
    assert g.dtype == jnp.float64
    np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('impl', [*IMPLS, 'auto'])
@pytest.mark.parametrize(
  ('case', 'dilation'),
  [
    ((9, 17, 3, 4, (3, 3), 1, 'SAME'), 2),
    ((8, 11, 2, 3, (3, 5), (2, 1), 'SAME'), (1, 2)),
    ((10, 13, 16, 5, (3, 3), (1, 2), 'VALID'), (4, 2)),
    ((4, 5, 3, 2, (3, 3), 1, 12), 12),
  ],
  ids=str,
)
def test_dilated_kernels_equal_those_with_zeros_between(
  case, dilation, impl, x64
):
  """Which are the definition of dilation."""
  h, w, cin, cout, size, strides, padding = case
  x, kernel, _ = _data(case, jnp.float64)
  dh, dw = (dilation, dilation) if isinstance(dilation, int) else dilation
  shape = ((size[0] - 1) * dh + 1, (size[1] - 1) * dw + 1, cin, cout)

  def spread(x, kernel):
    wide = jnp.zeros(shape, kernel.dtype).at[::dh, ::dw].set(kernel)
    return layers.conv2d(x, wide, strides=strides, padding=padding, impl='lax')

  def dilated(x, kernel):
    return layers.conv2d(
      x,
      kernel,
      strides=strides,
      padding=padding,
      dilation=dilation,
      impl=impl,
    )

  run = jax.jit(_value_and_grads, static_argnums=0)
  got, want = run(dilated, x, kernel), run(spread, x, kernel)
  for g, w in zip(got, want, strict=True):
    np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('impl', IMPLS)
@pytest.mark.parametrize('case', [CASES[i] for i in (0, 2, 4)], ids=str)
def test_equals_lax_in_float32(case, impl):
  """To 1e-5 of the largest entry: the sums differ in order only."""
  x, kernel, conv = _data(case, jnp.float32)
  run = jax.jit(_value_and_grads, static_argnums=0)
  got = run(conv(impl), x, kernel)
  want = run(conv('lax'), x, kernel)
  for g, w in zip(got, want, strict=True):
    assert g.dtype == jnp.float32
    np.testing.assert_allclose(g, w, rtol=0, atol=1e-5 * np.abs(w).max())


@pytest.mark.parametrize('impl', IMPLS)
@pytest.mark.parametrize('batched', ['x', 'kernel', 'both'])
def test_equals_lax_under_vmap(impl, batched, x64):
  x, kernel, conv = _data(CASES[3], jnp.float64)
  axes = (None if batched == 'kernel' else 0, None if batched == 'x' else 0)
  if axes[0] == 0:
    x = jnp.stack([x, 2 * x[::-1], x - 1])
  if axes[1] == 0:
    kernel = jnp.stack([kernel, kernel**2, 1 - kernel])

  def run(impl):
    fun = lambda x, kernel: _value_and_grads(conv(impl), x, kernel)
    return jax.jit(jax.vmap(fun, axes))(x, kernel)

  for g, w in zip(run(impl), run('lax'), strict=True):
    np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('impl', IMPLS)
def test_hessian_vector_product_equals_lax(impl, x64):
  x, kernel, conv = _data(CASES[1], jnp.float64)

  def hvp(impl):
    loss = lambda k: jnp.sum(jnp.tanh(conv(impl)(x, k)))
    return jax.jvp(jax.grad(loss), (kernel,), (jnp.sin(kernel),))[1]

  np.testing.assert_allclose(hvp(impl), hvp('lax'), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('impl', IMPLS)
def test_bfloat16_stays_bfloat16(impl):
  """Within 2 % of the largest entry of the float32 result."""
  x, kernel, conv = _data(CASES[1], jnp.bfloat16)
  got = _value_and_grads(conv(impl), x, kernel)
  exact = _value_and_grads(
    conv('lax'), x.astype(jnp.float32), kernel.astype(jnp.float32)
  )
  for g, w in zip(got, exact, strict=True):
    assert g.dtype == jnp.bfloat16
    np.testing.assert_allclose(
      g.astype(jnp.float32), w, rtol=0, atol=0.02 * np.abs(w).max()
    )


@pytest.mark.parametrize('impl', IMPLS)
def test_non_finite_entries_stay_local(impl):
  x, kernel, conv = _data(CASES[0], jnp.float32)
  x = x.at[0, 0, 0, 0].set(jnp.nan)
  want = jnp.isnan(conv('lax')(x, kernel))
  np.testing.assert_array_equal(jnp.isnan(conv(impl)(x, kernel))[1], want[1])


@pytest.mark.parametrize('width', [1, 2, 5, 7, 8, 12, 13, 23, 32, 36])
@pytest.mark.parametrize(('kw', 'stride'), [(2, 1), (3, 1), (5, 1), (7, 2)])
def test_tiles_cover_the_width_with_little_waste(width, kw, stride):
  tile = layers._tile(kw, stride, width)
  assert 1 <= tile <= width
  assert -(-width // tile) * tile < width + tile


def test_auto_depends_on_the_backend_and_the_shape():
  choose = layers.default_conv_impl
  for backend in ('gpu', 'tpu'):
    assert choose(backend, (5, 5, 1, 10), (32, 32)) == 'lax'
  assert choose('cpu', (5, 5, 10, 20), (12, 12)) == 'banded'
  assert choose('cpu', (7, 7, 1, 64), (18, 18), (2, 2)) == 'banded'
  assert choose('cpu', (3, 3, 64, 64), (9, 9)) == 'lax'
  assert choose('cpu', (3, 3, 64, 128), (5, 5), (2, 2)) == 'im2col'
  assert choose('cpu', (3, 3, 64, 64), (2, 2)) == 'im2col'
  assert choose('cpu', (1, 1, 4, 8), (9, 9)) == 'im2col'


def test_auto_on_this_backend_contains_no_convolution_on_cpu():
  x, kernel, conv = _data(CASES[0], jnp.float32)
  text = str(jax.make_jaxpr(conv('auto'))(x, kernel))
  assert ('conv_general' in text) == (jax.default_backend() != 'cpu')


@pytest.mark.parametrize('impl', ['lax', *IMPLS])
def test_empty_batch(impl):
  x = jnp.zeros((0, 8, 8, 1))
  y = layers.conv2d(x, jnp.ones((3, 3, 1, 2)), impl=impl)
  assert y.shape == (0, 6, 6, 2)


def test_conv2d_refuses_what_it_cannot_do():
  x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 1))
  with pytest.raises(ValueError, match=r"Did you mean 'banded'\?"):
    layers.conv2d(x, kernel, impl='band')
  with pytest.raises(ValueError, match="'SAME', 'VALID'"):
    layers.conv2d(x, kernel, padding='same')
  with pytest.raises(ValueError, match='padding=-1'):
    layers.conv2d(x, kernel, padding=-1)
  with pytest.raises(ValueError, match='do not fit'):
    layers.conv2d(x, jnp.ones((3, 3, 1, 1)))
  with pytest.raises(TypeError, match='bfloat16'):
    layers.conv2d(x, kernel.astype(jnp.bfloat16))


@pytest.mark.parametrize('impl', layers.IMPLS)
@pytest.mark.parametrize('padding', ['SAME', ((1, 0), (2, 1))])
def test_conv_is_a_drop_in_for_flax(impl, padding):
  settings = {
    'features': 3,
    'kernel_size': (3, 2),
    'strides': (1, 2),
    'padding': padding,
    'bias_init': nn.initializers.normal(1.0),
  }
  ours, theirs = layers.Conv(impl=impl, **settings), nn.Conv(**settings)
  x = jax.random.normal(jax.random.key(1), (2, 6, 7, 2))
  params = theirs.init(jax.random.key(0), x)
  own = ours.init(jax.random.key(0), x)
  jax.tree.map(np.testing.assert_array_equal, own, params)
  np.testing.assert_allclose(
    ours.apply(params, x), theirs.apply(params, x), atol=1e-5
  )
  np.testing.assert_allclose(
    ours.apply(params, x[0]), theirs.apply(params, x[0]), atol=1e-5
  )


def test_conv_dtypes_and_no_bias():
  layer = layers.Conv(4, 3, use_bias=False, dtype=jnp.bfloat16)
  x = jnp.ones((1, 5, 5, 1))
  params = layer.init(jax.random.key(0), x)
  assert jax.tree.map(jnp.shape, params) == {'params': {'kernel': (3, 3, 1, 4)}}
  assert params['params']['kernel'].dtype == jnp.float32
  assert layer.apply(params, x).dtype == jnp.bfloat16


def test_conv_refuses_an_unknown_implementation():
  with pytest.raises(ValueError, match="impl='im2cols' is not one of"):
    layers.Conv(4, 3, impl='im2cols')
  with pytest.raises(ValueError, match='padding='):
    layers.Conv(4, 3, padding='FULL')


@pytest.mark.parametrize('size', [(8, 6), (7, 5)])
def test_max_pool_2x2_equals_flax(size):
  x = jax.random.normal(jax.random.key(0), (2, *size, 3))
  want = lambda x: nn.max_pool(x, (2, 2), strides=(2, 2))
  np.testing.assert_array_equal(layers.max_pool_2x2(x), want(x))
  loss = lambda pool: jax.grad(lambda x: jnp.sum(jnp.sin(pool(x))))(x)
  np.testing.assert_allclose(loss(layers.max_pool_2x2), loss(want), atol=1e-6)


def test_max_pool_2x2_splits_ties_evenly():
  grad = jax.grad(lambda x: layers.max_pool_2x2(x).sum())(jnp.ones((2, 2, 1)))
  np.testing.assert_array_equal(grad, np.full((2, 2, 1), 0.25))


@pytest.mark.parametrize('size', [(8, 7), (1, 2)])
def test_max_pool_3x3_equals_flax(size):
  x = jax.random.normal(jax.random.key(0), (2, *size, 3)) - 5
  want = lambda x: nn.max_pool(
    x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1))
  )
  np.testing.assert_array_equal(layers.max_pool_3x3(x), want(x))
  loss = lambda pool: jax.grad(lambda x: jnp.sum(jnp.sin(pool(x))))(x)
  np.testing.assert_allclose(loss(layers.max_pool_3x3), loss(want), atol=1e-6)


def test_max_pool_2x2_with_indices_finds_the_first_maximum():
  x = jax.random.randint(jax.random.key(0), (2, 6, 5, 3), 0, 3).astype(float)
  pooled, indices = layers.max_pool_2x2_with_indices(x)
  np.testing.assert_array_equal(pooled, layers.max_pool_2x2(x))
  assert indices.dtype == jnp.int8
  windows = np.asarray(x)[:, :, :4].reshape(2, 3, 2, 2, 2, 3)
  windows = windows.transpose(0, 1, 3, 5, 2, 4).reshape(2, 3, 2, 3, 4)
  np.testing.assert_array_equal(indices, windows.argmax(-1))


def test_max_unpool_2x2_puts_back_what_was_pooled():
  x = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
  pooled, indices = layers.max_pool_2x2_with_indices(x)
  back = layers.max_unpool_2x2(pooled, indices)
  np.testing.assert_array_equal(back, jnp.where(back == 0, 0, x))
  np.testing.assert_array_equal((back != 0).sum((1, 2)), np.full((2, 3), 6))
  again, places = layers.max_pool_2x2_with_indices(
    layers.max_unpool_2x2(jnp.abs(pooled), indices)
  )
  np.testing.assert_array_equal(again, jnp.abs(pooled))
  np.testing.assert_array_equal(places, indices)


def test_max_unpool_2x2_is_the_transpose_of_picking():
  """Its gradient is the entry of the signal at the place."""
  _, indices = layers.max_pool_2x2_with_indices(
    jax.random.normal(jax.random.key(0), (4, 6, 2))
  )
  signal = jax.random.normal(jax.random.key(1), (4, 6, 2))
  unpool = lambda x: layers.max_unpool_2x2(x, indices)
  (grad,) = jax.vjp(unpool, jnp.ones((2, 3, 2)))[1](signal)
  np.testing.assert_array_equal(
    unpool(grad), signal * unpool(jnp.ones((2, 3, 2)))
  )


def test_max_pool_2x2_with_indices_and_nan():
  x = jnp.array([[1.0, jnp.nan], [2.0, 3.0]]).reshape(2, 2, 1)
  pooled, indices = layers.max_pool_2x2_with_indices(x)
  assert jnp.isnan(pooled).all() and indices.item() in range(4)
