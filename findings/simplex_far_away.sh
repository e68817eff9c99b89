#!/usr/bin/env bash
# A projection onto the simplex does not sum to one for equal, large offsets.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 optax==0.2.8
cd "$scratch"
JAX_PLATFORMS=cpu venv/bin/python - <<'PY'
import jax.numpy as jnp
import numpy as np
import optax

print('optax', optax.__version__)
near = np.random.default_rng(0).normal(size=50)
sums = []
for offset in (0.0, 1e6):
  # The projection does not depend on an offset that all entries share.
  x = jnp.asarray(near + offset, jnp.float32)
  sums.append(float(optax.projections.projection_simplex(x).sum()))
print('expected: sums of 1 to 1e-6')
print('seen: offset 0', sums[0], '| offset 1e6', sums[1])
assert abs(sums[0] - 1) < 1e-5 and abs(sums[1] - 1) > 0.01, 'it has changed'
PY
