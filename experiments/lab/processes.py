"""Several processes of one run on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

GRACE = 15.0  # seconds from the first process's end to that of the others


def environments(processes: int) -> list[dict[str, str]]:
  """What each process is told."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  return [
    {
      'JAX_COORDINATOR_ADDRESS': address,
      'JAX_NUM_PROCESSES': str(processes),
      'JAX_PROCESS_ID': str(i),
    }
    for i in range(processes)
  ]


def run(command: Sequence[str], processes: int) -> int:
  """Runs the command to its end; returns the status of the first to fail."""
  running = [
    # A terminal's Ctrl-C is for this process alone, which passes it on.
    subprocess.Popen(
      command, env=os.environ | environment, start_new_session=True
    )
    for environment in environments(processes)
  ]

  interrupts = 0

  def forward(number, _):
    nonlocal interrupts
    interrupts += number == signal.SIGINT
    for process in running:
      process.send_signal(signal.SIGKILL if interrupts > 1 else signal.SIGTERM)

  numbers = (signal.SIGTERM, signal.SIGINT)
  before = {number: signal.signal(number, forward) for number in numbers}
  status, ended = 0, None
  try:
    while any(process.poll() is None for process in running):
      codes = [process.poll() for process in running]
      status = status or next((code for code in codes if code), 0)
      if status and ended is None:
        ended = time.monotonic()
      if ended is not None and time.monotonic() - ended > GRACE:
        break
      time.sleep(0.05)
  finally:
    for process in running:
      process.kill()
      process.wait()
    for number, handler in before.items():
      signal.signal(number, handler)
  if interrupts:
    print('stopped by Ctrl-C; run the same command to go on', file=sys.stderr)
    return 128 + signal.SIGINT
  status = status or next((p.returncode for p in running if p.returncode), 0)
  return 128 - status if status < 0 else status
