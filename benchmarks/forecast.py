"""Memory as forecast by `mtljax.training.estimate`, and as compiled.

python -m benchmarks.forecast [--full] [CASE ...]

Prints for each case and route the bytes that a step of CAGrad holds beside its
arguments: the forecast, what the compiled program asks for
(``memory_analysis().temp_size_in_bytes``), and the ratio. Small cases, unless
--full, whose compilation takes minutes each.
"""

from __future__ import annotations

import sys
from typing import Any

import jax
import optax

import mtljax as mtl
from benchmarks import _encoders, _networks
from benchmarks._cases import make_case
from mtljax.training import estimate, make_train_step

NAMES = (
  'mlp_8',
  'multi_lenet',
  'segnet',
  'resnet18_3',
  *_encoders.NAMES,
  *_networks.NAMES,
)
ROUTES = ('jacobian', 'gramian', 'layerwise', 'auto')


def compiled_bytes(
  case: Any, method: mtl.Aggregator, route: Any, mode: Any = 'auto'
) -> int:
  """What the compiled step asks for beside its arguments."""
  params, model_state, _ = case.init()
  train = make_train_step(
    method, optax.sgd(1e-3), case.loss, has_state=True, route=route, mode=mode
  )
  state = train.init(params, key=jax.random.key(0), model_state=model_state)
  compiled = train.step.lower(state, case.batch).compile()
  return compiled.memory_analysis().temp_size_in_bytes


def main() -> None:
  """Prints the table."""
  flags = {a for a in sys.argv[1:] if a.startswith('--')}
  names = [a for a in sys.argv[1:] if a not in flags] or list(NAMES)
  if flags - {'--full'} or set(names) - set(NAMES):
    raise SystemExit(__doc__)
  print('| case | route | forecast, KB | compiled, KB | ratio |')
  print('|---|---|---|---|---|')
  for name in names:
    case = make_case(name, '--full' not in flags)
    params, model_state, labels = case.init()
    method = mtl.cagrad(case.num_tasks, labels=labels)
    found = estimate(
      method,
      case.loss,
      params,
      case.batch,
      has_state=True,
      model_state=model_state,
    )
    for route in ROUTES:
      said = found.row(route).bytes
      if said is None:
        continue
      mode = 'unroll' if route == 'jacobian' else 'auto'  # as its row
      compiled = compiled_bytes(case, method, route, mode)
      print(
        f'| {name} | `{route}` | {said / 1e3:.0f} | {compiled / 1e3:.0f} | '
        f'{said / max(compiled, 1):.2f} |',
        flush=True,
      )


if __name__ == '__main__':
  main()
