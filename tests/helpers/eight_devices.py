"""A script in a process of its own that has eight devices."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any


def output_of(script: pathlib.Path) -> str:
  """What the script prints; fails with what it said if it does."""
  out = subprocess.run(
    [sys.executable, script],
    env={
      'NPROC': '16',  # fewer threads than devices can wait for ever
      'XLA_FLAGS': os.environ.get('XLA_FLAGS', ''),
      'JAX_NUM_CPU_DEVICES': '8',
      'JAX_PLATFORMS': 'cpu',
      'PYTHONPATH': ':'.join(sys.path),
    },
    capture_output=True,
    text=True,
    timeout=1200,  # a machine may have much else to do
  )
  assert out.returncode == 0, out.stderr[-3000:]
  return out.stdout


def facts_of(script: pathlib.Path) -> dict[str, Any]:
  """The JSON object that the script prints."""
  return json.loads(output_of(script))
