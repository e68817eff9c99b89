#!/usr/bin/env bash
# Programs one after the other hold the memory of all at once (jaxlib on CPU).
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install -q jax==0.10.2 jaxlib==0.10.2
cd "$scratch"
cat > measure.py <<'PY'
import jax
import jax.numpy as jnp

SIZE = 256


def chain(x):
  """Each step reads the last one alone, so that two arrays are enough."""
  for i in range(6):
    x = jnp.tanh(x @ x.T * (1 + i))
  return jnp.sum(x)


def in_line(xs):
  return jnp.stack([chain(x) for x in xs])


def in_a_loop(xs):
  return jax.lax.map(chain, xs)


def arrays(fun, count):
  """Temporary memory of the compiled program, in arrays of SIZE x SIZE."""
  xs = jax.ShapeDtypeStruct((count, SIZE, SIZE), jnp.float32)
  memory = jax.jit(fun).lower(xs).compile().memory_analysis()
  return round(memory.temp_size_in_bytes / (4 * SIZE * SIZE), 1)


print('jax', jax.__version__, jax.default_backend())
seen = {f: [arrays(f, n) for n in (4, 16)] for f in (in_line, in_a_loop)}
print('expected: chains that follow each other take turns in memory, as in a loop')
for fun, held in seen.items():
  print('seen:', fun.__name__, 'of 4 and 16 chains', held, 'arrays')
assert seen[in_line][1] > 15 and seen[in_a_loop][1] < 3, 'it has changed'
PY
JAX_PLATFORMS=cpu venv/bin/python measure.py
