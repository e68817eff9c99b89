#!/usr/bin/env bash
# Two optimizers square complex gradients without the conjugate; Adam does not.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 optax==0.2.8
cd "$scratch"
JAX_PLATFORMS=cpu venv/bin/python - <<'PY'
import jax
import jax.numpy as jnp
import numpy as np
import optax

print('optax', optax.__version__)


def walk(tx, turn):
  """Five steps towards the target, in coordinates turned and turned back."""
  target = jnp.asarray(turn, jnp.complex64)
  z = jnp.array([0.3, 0.2 + 0.1j], jnp.complex64) * target
  state = tx.init(z)
  loss = lambda z: jnp.sum(jnp.abs(z - target) ** 2)
  for _ in range(5):
    updates, state = tx.update(jnp.conj(jax.grad(loss)(z)), state, z)
    z = optax.apply_updates(z, updates)
  return np.asarray(z / target)


off = {}
for name, tx in {
  'adam': optax.adam(0.1),
  'adadelta': optax.adadelta(0.1),
  'simplified_ademamix': optax.contrib.simplified_ademamix(0.1),
}.items():
  off[name] = np.abs(walk(tx, 1.0) - walk(tx, np.exp(1j))).max()
print('expected: the same path in turned coordinates, as |g|**2 is the same')
print('seen, distance of the two ends:', off)
assert off['adam'] < 1e-3, 'it has changed'
assert off['adadelta'] > 1e-3, 'it has changed'
assert off['simplified_ademamix'] > 0.1, 'it has changed'
PY
