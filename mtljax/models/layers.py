"""Convolution and pooling that are fast on every backend.

The only place in the library that knows the backend. On GPU and TPU a
convolution is `jax.lax.conv_general_dilated`. XLA's CPU convolutions are slow
for few channels and very slow for small images, above all backwards, so there
the same sum is written as one matrix product:

* ``banded``: a row of the image, cut into segments of ``tile`` output columns,
  times the banded (Toeplitz) matrix of the kernel along the width. It does
  ``(tile + kw - 1) / kw`` times the arithmetic, in products that are wide
  enough to be fast even with few channels.
* ``im2col``: every patch of the image times the kernel. No extra arithmetic,
  more copying.

Both are slices, one static gather and a matrix product: they differentiate to
any order and vmap to batched products. ``python -m benchmarks.conv`` prints
the measurements behind `default_conv_impl`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mtljax import _validate
from mtljax.models import _pooling
from mtljax.models._pooling import max_pool_2x2 as max_pool_2x2
from mtljax.models._pooling import (
  max_pool_2x2_with_indices as max_pool_2x2_with_indices,
)
from mtljax.models._pooling import max_pool_3x3 as max_pool_3x3
from mtljax.models._pooling import max_unpool_2x2 as max_unpool_2x2

IMPLS = ('auto', 'lax', 'banded', 'im2col')

Padding = str | int | Sequence[int | tuple[int, int]]


def default_conv_impl(
  backend: str,
  kernel_shape: Sequence[int],
  output_size: Sequence[int],
  strides: Sequence[int] = (1, 1),
) -> str:
  """Names the implementation to use for a convolution on a backend.

  On CPU, by what was measured for a forward and a backward pass:

  ====================================  ==========  ===========================
  case, first that holds                choice      time relative to ``lax``
  ====================================  ==========  ===========================
  the stride skips the kernel's width   ``im2col``  1/3 (1 x 1, stride 2)
  fewer than 16 input channels          ``banded``  1/6 to 3/4
  a stride                              ``im2col``  0.8 to 1
  output smaller than the kernel        ``im2col``  1/50 to 1/5
  the rest                              ``lax``     (``im2col``: 0.8 to 3)
  ====================================  ==========  ===========================

  Inside `jax.lax.scan`, `jax.lax.map` and `jax.lax.cond` XLA's CPU gradients of
  convolutions take 10 to 40 times as long as outside, unless the body goes
  through `canonical_convolutions`.

  Args:
    backend: as in `jax.default_backend`: ``'cpu'``, ``'gpu'``, ``'tpu'``.
    kernel_shape: ``(kh, kw, cin, cout)``.
    output_size: height and width of the output.
    strides: down and across.

  Returns:
    ``'lax'``, ``'banded'`` or ``'im2col'``.

  Example:
    >>> default_conv_impl('cpu', (5, 5, 1, 10), (32, 32))
    'banded'
    >>> default_conv_impl('cpu', (3, 3, 512, 512), (2, 2))
    'im2col'
    >>> default_conv_impl('gpu', (5, 5, 1, 10), (32, 32))
    'lax'
  """
  if backend != 'cpu':
    return 'lax'
  kh, kw, cin, _ = kernel_shape
  if kw <= strides[1]:
    return 'im2col'
  if cin < 16:
    return 'banded'
  small = output_size[0] < kh or output_size[1] < kw
  return 'im2col' if small or max(strides) > 1 else 'lax'


def default_sweep_mode(backend: str) -> str:
  """Names the way to run the members of a sweep on a backend.

  On CPU a program of one member, called for each: batched products gain only
  where a member is too small for the machine, and XLA's convolutions are slow
  in a loop. ``python -m benchmarks.sweep`` prints the measurements.

  Args:
    backend: as in `jax.default_backend`: ``'cpu'``, ``'gpu'``, ``'tpu'``.

  Returns:
    A mode of `mtljax.training.make_sweep`.

  Example:
    >>> default_sweep_mode('cpu'), default_sweep_mode('gpu')
    ('loop', 'vmap')
  """
  return 'loop' if backend == 'cpu' else 'vmap'


def _tile(kw: int, stride: int, width: int) -> int:
  """Output columns per product: twice the arithmetic, a divisor if one fits."""
  target = min(width, -(-(kw + 1) // stride))
  divisors = [
    t for t in range(-(-target // 2), 2 * target + 1) if width % t == 0
  ]
  if divisors:
    return min(divisors, key=lambda t: (abs(t - target), -t))
  return -(-width // -(-width // target))


def _toeplitz(
  kernel: jax.Array, stride: int, dilation: int, tile: int
) -> jax.Array:
  """The banded matrix of a kernel, (kh * window * cin, tile * cout)."""
  kh, kw, cin, cout = kernel.shape
  window = (tile - 1) * stride + (kw - 1) * dilation + 1
  offset = np.arange(window)[:, None] - np.arange(tile) * stride
  tap, between = np.divmod(offset, dilation)
  tap = np.where((between == 0) & (tap >= 0) & (tap < kw), tap, kw)
  # In float32 at least: the gradient sums over the tile's copies.
  wide = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))
  wide = jnp.pad(wide, ((0, 0), (0, 1), (0, 0), (0, 0)))
  matrix = jnp.moveaxis(wide[:, tap], 2, 3)
  return matrix.reshape(kh * window * cin, tile * cout).astype(kernel.dtype)


def _banded(x, kernel, strides, dilation, out_hw, precision):
  kh, kw, cin, cout = kernel.shape
  (sh, sw), (dh, dw), (ho, wo) = strides, dilation, out_hw
  b, h, w, _ = x.shape
  reach = (kw - 1) * dw + 1
  tile = _tile(reach, sw, wo)
  tiles = -(-wo // tile)
  window = (tile - 1) * sw + reach
  missing = (tiles - 1) * tile * sw + window - w
  if missing > 0:
    x = jnp.pad(x, ((0, 0), (0, 0), (0, missing), (0, 0)))
  x = _pooling.keep(x).reshape(b, h, -1)
  patches = jnp.concatenate(
    [
      x[:, i : i + (ho - 1) * sh + 1 : sh, start : start + window * cin]
      for start in range(0, tiles * tile * sw * cin, tile * sw * cin)
      for i in range(0, kh * dh, dh)
    ],
    axis=-1,
  ).reshape(-1, kh * window * cin)
  y = jnp.dot(patches, _toeplitz(kernel, sw, dw, tile), precision=precision)
  y = y.reshape(b, ho, tiles * tile, cout)
  return y if tiles * tile == wo else y[:, :, :wo]


def _im2col(x, kernel, strides, dilation, out_hw, precision):
  kh, kw, cin, cout = kernel.shape
  (sh, sw), (dh, dw), (ho, wo) = strides, dilation, out_hw
  if kh * kw > 1:
    x = _pooling.keep(x)
  patches = jnp.concatenate(
    [
      x[:, i : i + (ho - 1) * sh + 1 : sh, j : j + (wo - 1) * sw + 1 : sw]
      for i in range(0, kh * dh, dh)
      for j in range(0, kw * dw, dw)
    ],
    axis=-1,
  ).reshape(-1, kh * kw * cin)
  y = jnp.dot(patches, kernel.reshape(-1, cout), precision=precision)
  return y.reshape(-1, ho, wo, cout)


def conv2d(
  x: jax.Array,
  kernel: jax.Array,
  *,
  strides: int | Sequence[int] = 1,
  padding: Padding = 'VALID',
  dilation: int | Sequence[int] = 1,
  impl: str = 'auto',
  precision: Any = None,
) -> jax.Array:
  """Convolves NHWC images with an HWIO kernel.

  All implementations compute the same sums, and their derivatives of any
  order, up to the order of summation. Groups are not offered.

  Args:
    x: images, shape ``(B, H, W, cin)``.
    kernel: shape ``(kh, kw, cin, cout)``, of the dtype of ``x``.
    strides: one for both directions, or a pair.
    padding: ``'SAME'``, ``'VALID'``, one number of zeros for all sides, or one
      number or ``(low, high)`` pair for each direction.
    dilation: pixels between neighbouring taps of the kernel, one for both
      directions, or a pair.
    impl: ``'lax'``, ``'banded'``, ``'im2col'``, or ``'auto'``, which is
      `default_conv_impl` of `jax.default_backend` and this shape.
    precision: as in `jax.lax.conv_general_dilated`.

  Returns:
    The output, shape ``(B, H', W', cout)``, of the dtype of ``x``.

  Raises:
    ValueError: if ``impl`` or ``padding`` is unknown, or the shapes do not fit.
    TypeError: if the dtypes differ.

  Example:
    >>> import jax.numpy as jnp
    >>> x, kernel = jnp.ones((1, 3, 3, 1)), jnp.ones((2, 2, 1, 1))
    >>> conv2d(x, kernel)[0, :, :, 0].tolist()
    [[4.0, 4.0], [4.0, 4.0]]
  """
  _validate.one_of('impl', impl, IMPLS)
  if x.ndim != 4 or kernel.ndim != 4 or x.shape[3] != kernel.shape[2]:
    raise ValueError(
      f'x of shape {x.shape} and kernel of shape {kernel.shape} do not fit: '
      'pass x as (B, H, W, cin) and kernel as (kh, kw, cin, cout).'
    )
  if x.dtype != kernel.dtype:
    raise TypeError(
      f'x is {x.dtype} and kernel is {kernel.dtype}: cast one to the other.'
    )
  strides, dilation = _pair(strides), _pair(dilation)
  if min(dilation) < 1:
    raise ValueError(f'dilation={dilation} must be 1 or more.')
  reach = [
    (k - 1) * d + 1 for k, d in zip(kernel.shape[:2], dilation, strict=True)
  ]
  pads = _pads(padding, x.shape[1:3], reach, strides)
  if impl == 'lax':
    return _lax(x, kernel, strides, dilation, pads, precision)
  height, width = (
    (size + sum(pad) - k) // s + 1
    for size, pad, k, s in zip(x.shape[1:3], pads, reach, strides, strict=True)
  )
  if impl == 'auto':
    impl = default_conv_impl(
      jax.default_backend(),
      (*reach, *kernel.shape[2:]),
      (height, width),
      strides,
    )
    # A band as wide as the kernel reaches is mostly zeros.
    impl = 'im2col' if impl == 'banded' and max(dilation) > 1 else impl
  if impl == 'lax' or 0 in x.shape or height < 1 or width < 1:
    return _lax(x, kernel, strides, dilation, pads, precision)
  if any(map(any, pads)):
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  matmul = _banded if impl == 'banded' else _im2col
  return matmul(x, kernel, strides, dilation, (height, width), precision)


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
  a, b = (value, value) if isinstance(value, int) else value
  return a, b


def _pads(
  padding: Padding,
  size: Sequence[int],
  kernel: Sequence[int],
  strides: Sequence[int],
) -> tuple[tuple[int, int], ...]:
  """Zeros before and after, per direction."""
  if isinstance(padding, str):
    _validate.one_of('padding', padding, ('SAME', 'VALID'))
    return tuple(jax.lax.padtype_to_pads(size, kernel, strides, padding))
  pads = (padding, padding) if isinstance(padding, int) else tuple(padding)
  pads = tuple((p, p) if isinstance(p, int) else tuple(p) for p in pads)
  if len(pads) != 2 or any(len(p) != 2 or min(p) < 0 for p in pads):
    raise ValueError(
      f"padding={padding!r} is not 'SAME', 'VALID', a number, or a number or "
      '(low, high) pair, not negative, for height and width.'
    )
  return pads


def _lax(x, kernel, strides, dilation, pads, precision):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    strides,
    pads,
    rhs_dilation=dilation,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    precision=precision,
  )


class Conv(nn.Module):
  """A 2-D convolution, drop-in for `flax.linen.Conv` on NHWC images.

  Its parameters are those of `flax.linen.Conv`: ``kernel``, shape
  ``(kh, kw, cin, cout)``, and ``bias``, shape ``(cout,)``. Groups are not
  offered.

  Args:
    features: the number of output channels.
    kernel_size: one number for both directions, or a pair.
    strides: one for both directions, or a pair.
    padding: as in `conv2d`.
    dilation: as in `conv2d`.
    use_bias: whether to add a bias.
    dtype: of the computation; None is that of the input and parameters.
    param_dtype: of the parameters.
    precision: as in `jax.lax.conv_general_dilated`.
    kernel_init: initializer of the kernel.
    bias_init: initializer of the bias.
    impl: as in `conv2d`.

  Raises:
    ValueError: if ``impl`` or ``padding`` is unknown.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> layer = Conv(features=10, kernel_size=5, padding='VALID')
    >>> x = jnp.zeros((2, 36, 36, 1))
    >>> params = layer.init(jax.random.key(0), x)
    >>> layer.apply(params, x).shape
    (2, 32, 32, 10)
  """

  features: int
  kernel_size: int | Sequence[int]
  strides: int | Sequence[int] = 1
  padding: Padding = 'SAME'
  dilation: int | Sequence[int] = 1
  use_bias: bool = True
  dtype: Any = None
  param_dtype: Any = jnp.float32
  precision: Any = None
  kernel_init: Callable[..., jax.Array] = nn.initializers.lecun_normal()
  bias_init: Callable[..., jax.Array] = nn.initializers.zeros_init()
  impl: str = 'auto'

  def __post_init__(self):
    _validate.one_of('impl', self.impl, IMPLS)
    if isinstance(self.padding, str):
      _validate.one_of('padding', self.padding, ('SAME', 'VALID'))
    super().__post_init__()

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Convolves images of shape ``(..., H, W, cin)``."""
    if x.ndim < 3:
      raise ValueError(f'x has shape {x.shape}: pass images (..., H, W, C).')
    shape = (*_pair(self.kernel_size), x.shape[-1], self.features)
    kernel = self.param('kernel', self.kernel_init, shape, self.param_dtype)
    bias = None
    if self.use_bias:
      bias = self.param(
        'bias', self.bias_init, (self.features,), self.param_dtype
      )
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    batch = x.shape[:-3]
    y = conv2d(
      x.reshape(-1, *x.shape[-3:]) if len(batch) != 1 else x,
      kernel,
      strides=self.strides,
      padding=self.padding,
      dilation=self.dilation,
      impl=self.impl,
      precision=self.precision,
    )
    if bias is not None:
      y = y + bias.reshape(1, 1, 1, -1)
    return y.reshape(*batch, *y.shape[1:])
