"""Convolution implementations against `lax` on this machine.

  python -m benchmarks.conv [--quick]

Prints, per shape and implementation, the time of a convolution forward, and
forward and backward (with respect to the image and the kernel), and the ratio
to ``lax``; then what `lax` takes forward and backward inside of a conditional,
with and without `mtljax.canonical_convolutions`; then the time of a whole
training step. Every figure is the minimum over interleaved rounds in one
process, so a busy machine slows all alike.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import optax

import mtljax as mtl
from mtljax import models
from mtljax.models import layers

# (batch, H = W, cin, cout, kernel, stride, padding)
SHAPES = [
  (256, 36, 1, 10, 5, 1, 0),
  (256, 16, 10, 20, 5, 1, 0),
  (64, 36, 1, 64, 7, 2, 3),
  (64, 36, 16, 32, 1, 2, 0),
  (64, 36, 16, 16, 3, 1, 1),
  (64, 18, 32, 32, 3, 1, 1),
  (64, 18, 32, 64, 3, 2, 1),
  (64, 9, 64, 64, 3, 1, 1),
  (64, 5, 128, 128, 3, 1, 1),
  (64, 2, 512, 512, 3, 1, 1),
]


def interleaved(
  funs: dict[str, Callable[..., Any]], args: tuple[Any, ...], rounds: int
) -> dict[str, float]:
  """Returns the least milliseconds of each function, after a warm-up."""
  best = dict.fromkeys(funs, float('inf'))
  funs = {name: jax.jit(fun) for name, fun in funs.items()}
  for i in range(rounds + 1):
    for name, fun in funs.items():
      start = time.perf_counter()
      jax.block_until_ready(fun(*args))
      if i > 0:
        best[name] = min(best[name], 1e3 * (time.perf_counter() - start))
  return best


def layer_times(shape: tuple[int, ...], rounds: int) -> None:
  batch, size, cin, cout, k, stride, padding = shape
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(keys[0], (batch, size, size, cin))
  kernel = 0.1 * jax.random.normal(keys[1], (k, k, cin, cout))

  def forward(impl):
    # The ReLU stands for the layer before, which XLA may fuse in.
    return lambda x, kernel: layers.conv2d(
      jax.nn.relu(x), kernel, strides=stride, padding=padding, impl=impl
    )

  def both(impl):
    def fun(x, kernel, signal):
      y, pull = jax.vjp(forward(impl), x, kernel)
      return y, pull(signal)

    return fun

  impls = ('lax', 'banded', 'im2col')
  one = interleaved({i: forward(i) for i in impls}, (x, kernel), rounds)
  signal = jax.random.normal(
    keys[2], jax.eval_shape(forward('lax'), x, kernel).shape
  )
  two = interleaved({i: both(i) for i in impls}, (x, kernel, signal), rounds)
  chosen = layers.default_conv_impl(
    jax.default_backend(), kernel.shape, signal.shape[1:3], (stride, stride)
  )
  label = f'{batch} x {size}^2 x {cin} -> {cout}, {k} x {k} / {stride}'
  for i in impls:
    sys.stdout.write(
      f'{label:36s} {i:7s}{"*" if i == chosen else " "} '
      f'{one[i]:8.2f} {one[i] / one["lax"]:6.2f} '
      f'{two[i]:8.2f} {two[i] / two["lax"]:6.2f}\n'
    )
    label = ''


def loop_times(shape: tuple[int, ...], rounds: int) -> None:
  """Times forward and backward of `lax`, straight and in a conditional."""
  batch, size, cin, cout, k, stride, padding = shape
  keys = jax.random.split(jax.random.key(0), 2)
  x = jax.random.normal(keys[0], (batch, size, size, cin))
  kernel = 0.1 * jax.random.normal(keys[1], (k, k, cin, cout))

  def loss(args):
    y = layers.conv2d(*args, strides=stride, padding=padding, impl='lax')
    return (y**2).sum()

  both = jax.grad(loss)

  def looped(fun):
    return lambda x, kernel: jax.lax.cond(
      x[0, 0, 0, 0] < 1e9, fun, lambda args: args, (x, kernel)
    )

  times = interleaved(
    {
      'straight': lambda *args: both(args),
      'conditional': looped(both),
      'canonical': looped(mtl.canonical_convolutions(both)),
    },
    (x, kernel),
    rounds,
  )
  label = f'{batch} x {size}^2 x {cin} -> {cout}, {k} x {k} / {stride}'
  sys.stdout.write(
    f'{label:36s} '
    + ' '.join(f'{times[i]:12.2f}' for i in times)
    + f'{times["conditional"] / times["canonical"]:8.1f}\n'
  )


def step_times(
  name: str,
  build: Callable[..., models.MultiTaskModel],
  impls: tuple[str, ...],
  batch: int,
  rounds: int,
) -> None:
  """Times Adam steps on the sum of two tasks' losses, 36 x 36 images."""
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.uniform(keys[0], (batch, 36, 36, 1))
  labels = jax.random.randint(keys[1], (batch, 2), 0, 10)
  optimizer = optax.adam(1e-3)

  def make_step(impl):
    model = build(conv_impl=impl)

    def loss(params, model_state):
      features, model_state = model.apply_trunk(
        params, model_state, x, train=True
      )
      losses = [
        optax.softmax_cross_entropy_with_integer_labels(
          model.apply_head(t, params, features, train=True), labels[:, t]
        ).mean()
        for t in range(2)
      ]
      return losses[0] + losses[1], model_state

    def step(params, model_state, opt_state):
      grads, model_state = jax.grad(loss, has_aux=True)(params, model_state)
      updates, opt_state = optimizer.update(grads, opt_state)
      return optax.apply_updates(params, updates), model_state, opt_state

    return step

  params, model_state = build().init(keys[2], x)
  args = (params, model_state, optimizer.init(params))
  best = interleaved({i: make_step(i) for i in impls}, args, rounds)
  for i in impls:
    sys.stdout.write(
      f'{name:36s} {i:7s}  {best[i]:8.1f} {best[i] / best["lax"]:6.2f}\n'
    )
    name = ''


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument(
    '--quick', action='store_true', help='two shapes and MultiLeNet only'
  )
  quick = parser.parse_args().quick
  rounds = 8 if quick else 12
  sys.stdout.write(
    f'jax {jax.__version__}, {jax.default_backend()}, times in ms, ratios to '
    f'lax; * is the choice of auto\n\n{"convolution":36s} {"impl":8s} '
    f'{"forward":>8s} {"ratio":>6s} {"+ back":>8s} {"ratio":>6s}\n'
  )
  for shape in SHAPES[:2] if quick else SHAPES:
    layer_times(shape, rounds if shape[-3] > 3 else rounds // 2)
  sys.stdout.write(
    f'\n{"lax, forward and back":36s} {"straight":>12s} {"conditional":>12s} '
    f'{"canonical":>12s} {"ratio":>7s}\n'
  )
  for shape in SHAPES[:1] if quick else SHAPES[4:9]:
    loop_times(shape, 3)
  sys.stdout.write(f'\n{"training step":36s} {"impl":8s} {"step":>8s}\n')
  step_times(
    'MultiLeNet, 256 x 36^2',
    models.multi_lenet,
    ('lax', 'auto', 'im2col'),
    256,
    rounds,
  )
  if not quick:
    step_times('small ResNet, 64 x 36^2', models.resnet, ('lax', 'auto'), 64, 5)
    step_times('ResNet-18, 64 x 36^2', models.resnet18, ('lax', 'auto'), 64, 2)


if __name__ == '__main__':
  main()
