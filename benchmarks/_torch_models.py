"""The models of `_models.py` in PyTorch, trained with TorchJD.

``python _torch_models.py THREADS``, run by the interpreter that has them, reads
one JSON request a line and answers with one line. Modules have the names that
they have in flax, so that parameters can be copied by their paths.
"""

from __future__ import annotations

import inspect
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch  # pyrefly: ignore[missing-import]
import torch.nn.functional as F  # pyrefly: ignore[missing-import]
from torch import nn  # pyrefly: ignore[missing-import]
from torchjd import aggregation  # pyrefly: ignore[missing-import]
from torchjd.autogram import Engine  # pyrefly: ignore[missing-import]
from torchjd.autojac import (  # pyrefly: ignore[missing-import]
  jac_to_grad,
  mtl_backward,
)

# How TorchJD may be called: `autojac` with the tasks at once or in turns and
# the combination by the Gramian or by the Jacobian, or `autogram`.
FORMS: list[dict[str, Any]] = [
  {'parallel_chunk_size': chunk, 'optimize_gramian_computation': gramian}
  for chunk in (1, None)
  for gramian in (False, True)
] + [{'engine': True}]


class _MultiLeNetTrunk(nn.Module):
  def __init__(self, channels, side):
    super().__init__()
    self.conv1 = nn.Conv2d(channels, 10, 5)
    self.conv2 = nn.Conv2d(10, 20, 5)
    self.side = ((side - 4) // 2 - 4) // 2
    self.fc = nn.Linear(20 * self.side**2, 50)

  def forward(self, x):
    x = F.relu(F.max_pool2d(self.conv1(x), 2))
    x = F.relu(F.max_pool2d(self.conv2(x), 2))
    return F.relu(self.fc(x.flatten(1)))


class _MultiLeNetHead(nn.Module):
  def __init__(self, num_classes):
    super().__init__()
    self.fc1, self.fc2 = nn.Linear(50, 50), nn.Linear(50, num_classes)

  def forward(self, x):
    return self.fc2(F.relu(self.fc1(x)))


class _MLPTrunk(nn.Module):
  def __init__(self, size, hidden_sizes):
    super().__init__()
    self.depth = len(hidden_sizes)
    for i, width in enumerate(hidden_sizes, start=1):
      setattr(self, f'fc{i}', nn.Linear(size, width))
      size = width

  def forward(self, x):
    for i in range(1, self.depth + 1):
      x = F.relu(getattr(self, f'fc{i}')(x))
    return x


class _LinearHead(nn.Module):
  def __init__(self, name, size, num_outputs):
    super().__init__()
    self.name = name
    setattr(self, name, nn.Linear(size, num_outputs))

  def forward(self, x):
    return getattr(self, self.name)(x)


def _conv(cin, cout, size=3, stride=1):
  return nn.Conv2d(cin, cout, size, stride, size // 2, bias=False)


class _Block(nn.Module):
  def __init__(self, cin, cout, stride):
    super().__init__()
    self.conv1, self.norm1 = _conv(cin, cout, 3, stride), nn.BatchNorm2d(cout)
    self.conv2, self.norm2 = _conv(cout, cout), nn.BatchNorm2d(cout)
    self.other = stride > 1 or cin != cout
    if self.other:
      self.shortcut = _conv(cin, cout, 1, stride)
      self.shortcut_norm = nn.BatchNorm2d(cout)

  def forward(self, x):
    y = F.relu(self.norm1(self.conv1(x)))
    y = self.norm2(self.conv2(y))
    return F.relu(
      y + (self.shortcut_norm(self.shortcut(x)) if self.other else x)
    )


class _ResNetTrunk(nn.Module):
  """With the large stem."""

  def __init__(self, channels, stages, width, features):
    super().__init__()
    self.stem, self.stem_norm = (
      _conv(channels, width, 7, 2),
      nn.BatchNorm2d(width),
    )
    self.names, cin = [], width
    for i, blocks in enumerate(stages):
      for j in range(blocks):
        self.names.append(f'stage{i}_block{j}')
        stride = 2 if i > 0 and j == 0 else 1
        setattr(self, self.names[-1], _Block(cin, width * 2**i, stride))
        cin = width * 2**i
    self.fc = nn.Linear(cin, features)

  def forward(self, x):
    x = F.max_pool2d(F.relu(self.stem_norm(self.stem(x))), 3, 2, 1)
    for name in self.names:
      x = getattr(self, name)(x)
    return F.relu(self.fc(x.mean((2, 3))))


class _ConvNormReLU(nn.Module):
  def __init__(self, cin, cout):
    super().__init__()
    self.conv, self.norm = _conv(cin, cout), nn.BatchNorm2d(cout)

  def forward(self, x):
    return F.relu(self.norm(self.conv(x)))


class _SegNetTrunk(nn.Module):
  def __init__(self, channels, widths, num_convs):
    super().__init__()
    self.num_convs, cin = num_convs, channels
    stages = list(enumerate(zip(widths, num_convs, strict=True)))
    for i, (width, convs) in stages:
      for j in range(convs):
        setattr(self, f'encoder{i}_{j}', _ConvNormReLU(cin, width))
        cin = width
    for i, (width, convs) in reversed(stages):
      for j in range(convs):
        cout = widths[i - 1] if j == convs - 1 and i > 0 else width
        setattr(self, f'decoder{i}_{j}', _ConvNormReLU(cin, cout))
        cin = cout

  def forward(self, x):
    pooled = []
    for i, convs in enumerate(self.num_convs):
      for j in range(convs):
        x = getattr(self, f'encoder{i}_{j}')(x)
      x, indices = F.max_pool2d(x, 2, return_indices=True)
      pooled.append(indices)
    for i, convs in reversed(list(enumerate(self.num_convs))):
      x = F.max_unpool2d(x, pooled[i], 2)
      for j in range(convs):
        x = getattr(self, f'decoder{i}_{j}')(x)
    return x


class _SegNetHead(nn.Module):
  def __init__(self, width, num_outputs):
    super().__init__()
    self.conv = nn.Conv2d(width, width, 3, padding=1)
    self.out = nn.Conv2d(width, num_outputs, 1)

  def forward(self, x):
    return self.out(F.relu(self.conv(x)))


class _Attention(nn.Module):
  # Whether as its two products: PyTorch's own has no batched derivative.
  written_out = False

  def __init__(self, width, heads):
    super().__init__()
    self.heads = heads
    for name in ('query', 'key', 'value', 'out'):
      setattr(self, name, nn.Linear(width, width))

  def forward(self, x):
    split = lambda z: z.unflatten(-1, (self.heads, -1)).transpose(-3, -2)
    q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
    if self.written_out:
      scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
      mixed = scores.softmax(-1) @ v
    else:
      mixed = F.scaled_dot_product_attention(q, k, v)
    return self.out(mixed.transpose(-3, -2).flatten(-2))


class _EncoderLayer(nn.Module):
  def __init__(self, width):
    super().__init__()
    self.LayerNorm_0 = nn.LayerNorm(width, eps=1e-6)
    self.MultiHeadDotProductAttention_0 = _Attention(width, 8)
    self.LayerNorm_1 = nn.LayerNorm(width, eps=1e-6)
    self.Dense_0 = nn.Linear(width, 4 * width)
    self.Dense_1 = nn.Linear(4 * width, width)

  def forward(self, x):
    x = x + self.MultiHeadDotProductAttention_0(self.LayerNorm_0(x))
    z = F.gelu(self.Dense_0(self.LayerNorm_1(x)), approximate='tanh')
    return x + self.Dense_1(z)


class _EncoderTrunk(nn.Module):
  def __init__(self, width, depth):
    super().__init__()
    self.depth = depth
    for i in range(depth):
      setattr(self, f'_Layer_{i}', _EncoderLayer(width))

  def forward(self, x):
    for i in range(self.depth):
      x = getattr(self, f'_Layer_{i}')(x)
    return x.mean(1)


def _build(spec: dict[str, Any], shape) -> tuple[nn.Module, list[nn.Module]]:
  """Trunk and heads for inputs of a shape, in PyTorch's order of axes."""
  kind, outputs = spec['trunk'], spec['outputs']
  if kind == 'MultiLeNetTrunk':
    trunk = _MultiLeNetTrunk(shape[1], shape[2])
    return trunk, [_MultiLeNetHead(n) for n in outputs]
  if kind == 'MLPTrunk':
    sizes = spec['hidden_sizes']
    heads = [_LinearHead('out', sizes[-1], n) for n in outputs]
    return _MLPTrunk(shape[1], sizes), heads
  if kind == 'ResNetTrunk':
    trunk = _ResNetTrunk(
      shape[1], spec['stages'], spec['width'], spec['features']
    )
    return trunk, [_LinearHead('fc', spec['features'], n) for n in outputs]
  if kind == '_Encoder':
    trunk = _EncoderTrunk(spec['width'], spec['depth'])
    return trunk, [_LinearHead('out', spec['width'], n) for n in outputs]
  trunk = _SegNetTrunk(shape[1], spec['widths'], spec['num_convs'])
  return trunk, [_SegNetHead(spec['widths'][0], n) for n in outputs]


def _angle(output, target):
  length = torch.sqrt((output**2).sum(1, keepdim=True) + 1e-6)
  return 1.0 - (output / length * target).sum(1).mean()


LOSSES: dict[str, Callable[..., Any]] = {
  'cross_entropy': F.cross_entropy,
  'binary': lambda output, target: F.binary_cross_entropy_with_logits(
    output[:, 0], target
  ),
  'absolute': F.l1_loss,
  'angle': _angle,
}


def _nchw(x: np.ndarray) -> torch.Tensor:
  """Images with the channels first; other arrays as they are."""
  x = np.moveaxis(x, -1, 1) if x.ndim == 4 else x
  x = torch.from_numpy(np.ascontiguousarray(x))
  return x if x.is_floating_point() else x.long()


def _weight(path: str, value: np.ndarray, trunk: nn.Module) -> np.ndarray:
  """A parameter of flax in PyTorch's order of axes."""
  if not path.endswith('/kernel'):
    return value.reshape(-1)
  if value.ndim == 3:  # of attention: (in, heads, each) or (heads, each, out)
    last = path.endswith('/out/kernel')
    value = value.reshape((-1, value.shape[-1]) if last else (len(value), -1))
  if value.ndim == 4:
    return value.transpose(3, 2, 0, 1)
  if path == 'trunk/fc/kernel' and isinstance(trunk, _MultiLeNetTrunk):
    side = trunk.side
    value = value.reshape(side, side, 20, -1).transpose(2, 0, 1, 3)
    value = value.reshape(20 * side**2, -1)
  return value.T


class Training:
  """A model, its batch, and a step of every method."""

  def __init__(self, spec: dict[str, Any], path: str):
    with np.load(path) as data:
      arrays = {key: data[key] for key in data.files}
    self.x = _nchw(arrays.pop('x'))
    self.y = [_nchw(arrays.pop(f'y{t}')) for t in range(len(spec['kinds']))]
    self.losses_of = [LOSSES[kind] for kind in spec['kinds']]
    trunk, heads = _build(spec, self.x.shape)
    self.trunk, self.heads = trunk, nn.ModuleList(heads)
    own = {f'trunk.{name}': p for name, p in trunk.named_parameters()}
    for t, head in enumerate(heads):
      own |= {f'heads_{t}.{name}': p for name, p in head.named_parameters()}
    self.params = list(own.values())
    with torch.no_grad():
      for key, value in arrays.items():
        module, _, kind = key.replace('/', '.').rpartition('.')
        name = kind if kind == 'bias' else 'weight'
        value = np.ascontiguousarray(_weight(key, value, trunk))
        p = own.pop(f'{module}.{name}')
        assert p.shape == value.shape, (key, p.shape, value.shape)
        p.copy_(torch.from_numpy(value))
    assert not own, sorted(own)
    self.optimizer = torch.optim.Adam(self.params, 1e-3, fused=True)
    self.form: dict[str, Any] = FORMS[0]
    self.engine: Any = None

  def forward(self):
    """The features and the losses of the tasks."""
    features = self.trunk(self.x)
    losses = [
      loss(head(features), y)
      for head, loss, y in zip(self.heads, self.losses_of, self.y, strict=True)
    ]
    return features, losses

  def step(self, aggregator) -> None:
    """One step; without an aggregator, of the plain sum."""
    self.optimizer.zero_grad()
    features, losses = self.forward()
    if aggregator is None:
      sum(losses).backward()
    elif self.engine is not None:
      losses = torch.stack(losses)
      gramian = self.engine.compute_gramian(losses)
      losses.backward(aggregator.gramian_weighting(gramian))
    else:
      chunk = self.form['parallel_chunk_size']
      mtl_backward(losses, features=features, parallel_chunk_size=chunk)
      jac_to_grad(
        self.trunk.parameters(),
        aggregator,
        optimize_gramian_computation=self.form['optimize_gramian_computation'],
      )
    self.optimizer.step()

  def time(self, aggregator, steps: int) -> float:
    """Milliseconds a step."""
    # An engine hooks the modules, which must not slow the plain sum.
    by_engine = aggregator is not None and 'engine' in self.form
    self.engine = Engine(self.trunk, batch_dim=None) if by_engine else None
    written_out = aggregator is not None and self.form.get('written_out', False)
    _Attention.written_out = written_out
    start = time.perf_counter()
    for _ in range(steps):
      self.step(aggregator)
    return 1e3 * (time.perf_counter() - start) / steps

  def choose_form(self, aggregator) -> dict[str, Any]:
    """Keeps the fastest way to call TorchJD that does not fail."""
    times, forms = [], FORMS
    if any(isinstance(x, _Attention) for x in self.trunk.modules()):
      forms = [{**x, 'written_out': y} for x in FORMS for y in (False, True)]
    for form in forms:
      self.form = form
      try:
        ms = self.time(aggregator, 1)
        if ms < 2000:  # else the first step tells enough
          ms = self.time(aggregator, 1)
        times.append((ms, len(times), form))
      except (AttributeError, RuntimeError, ValueError) as error:
        print(f'{form}: {error!r}'[:300], file=sys.stderr)
    self.form = min(times)[2]
    return self.form


def _aggregator(name: str | None, kwargs: dict[str, Any]):
  if name is None:
    return None
  factory = getattr(aggregation, name)
  known = inspect.signature(factory).parameters
  return factory(**{k: v for k, v in kwargs.items() if k in known})


def _serve(threads: int) -> None:
  torch.set_num_threads(threads)
  training: Any = None
  methods: dict[str, Any] = {}
  for line in sys.stdin:
    kind, *rest = json.loads(line)
    answer: Any = None
    if kind == 'load':
      training = Training(*rest)
      with torch.no_grad():
        losses = [loss.item() for loss in training.forward()[1]]
      count = sum(p.numel() for p in training.params)
      answer = {'parameters': count, 'losses': losses}
    elif kind == 'method':
      key, name, kwargs = rest
      methods[key] = _aggregator(name, kwargs)
    elif kind == 'form':
      answer = training.choose_form(methods[rest[0]])
    else:
      key, steps = rest
      answer = training.time(methods[key], steps)
    print(json.dumps(answer), flush=True)


if __name__ == '__main__':
  _serve(int(sys.argv[1]))
