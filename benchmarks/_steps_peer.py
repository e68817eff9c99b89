"""The steps of `benchmarks.steps` in the version that PYTHONPATH names.

``python _steps_peer.py BATCH`` reads one JSON request a line and answers with
one line: ``cases``, ``build NAME ROUTE``, ``run NAME ROUTE STEPS`` (ms a step).
"""

from __future__ import annotations

import json
import sys
import time

from benchmarks import steps


def _serve(batch_size: int) -> None:
  batch = steps.make_batch(batch_size)
  runs = {}
  for line in sys.stdin:
    kind, *case = json.loads(line)
    answer = None
    if kind == 'cases':
      answer = steps.CASES
    elif kind == 'build':
      _, runs[tuple(case)] = steps.make_runner(*case, batch)
      runs[tuple(case)](steps.Sizes().warmup)
    else:
      *case, count = case
      runs[tuple(case)](1)  # finds the caches as another left them
      start = time.perf_counter()
      runs[tuple(case)](count)
      answer = 1e3 * (time.perf_counter() - start) / count
    print(json.dumps(answer), flush=True)


if __name__ == '__main__':
  _serve(int(sys.argv[1]))
