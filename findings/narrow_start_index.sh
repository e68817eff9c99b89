#!/usr/bin/env bash
# A start index of -1 in int8 does not count from the end of a longer axis.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$scratch"
JAX_PLATFORMS=cpu venv/bin/python - <<'PY'
import jax
import jax.numpy as jnp

print('jax', jax.__version__)
table = jnp.arange(300.0)
wide, narrow = (
  float(jax.lax.dynamic_slice(table, (d(-1),), (1,))[0])
  for d in (jnp.int32, jnp.int8)
)
taken = float(jnp.take(table, jnp.array([-1], jnp.int8))[0])
print('expected: the last row, 299, by every integer type of -1')
print('seen: int32', wide, '| int8', narrow, '| jnp.take of int8', taken)
assert (wide, narrow, taken) == (299.0, 43.0, 43.0), 'it has changed'
PY
