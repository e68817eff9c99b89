#!/usr/bin/env bash
# A LaTeX command that latex2mathml does not know becomes letters, unsaid.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install -q latex2mathml==3.81.1
cd "$scratch"
venv/bin/python - <<'PY'
import html
import warnings
from importlib import metadata

from latex2mathml.converter import convert

print('latex2mathml', metadata.version('latex2mathml'))
with warnings.catch_warnings(record=True) as said:
  warnings.simplefilter('always')
  known, unknown = (html.unescape(convert(x)) for x in (r'\arcsin x', r'\arg x'))
print('expected: the operator arg, as', known)
print('seen:', unknown, '| warnings:', len(said))
assert '>\\arg<' in unknown and not said, 'it has changed'
PY
