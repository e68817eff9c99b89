#!/usr/bin/env bash
# Clipping by the global norm makes float16 gradients zero from a norm of 256 on.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 optax==0.2.8
cd "$scratch"
JAX_PLATFORMS=cpu venv/bin/python - <<'PY'
import jax.numpy as jnp
import optax

print('optax', optax.__version__)
tx = optax.clip_by_global_norm(1.0)
norms = []
for dtype in (jnp.float32, jnp.float16):
  grads = jnp.full(10, 200.0, dtype)  # of norm 632; float16 holds 65504
  clipped = tx.update(grads, tx.init(grads))[0]
  norms.append(float(jnp.linalg.norm(clipped.astype(jnp.float32))))
print('expected: norm 1 in both; seen: float32', norms[0], '| float16', norms[1])
assert abs(norms[0] - 1) < 1e-3 and norms[1] == 0, 'it has changed'
PY
