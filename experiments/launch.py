r"""Starts a command as several processes of one run, on this machine.

  python -m experiments.launch --processes 2 -- \
    python -m experiments.multi_digits --distributed --layout data

Each process learns from its environment how many there are, which of them it
is and where they meet (``JAX_NUM_PROCESSES``, ``JAX_PROCESS_ID``,
``JAX_COORDINATOR_ADDRESS``). It is for machines without accelerators; a process
drives all accelerators of its host, so there, and on pods and clusters, run the
command itself once a host.

SIGTERM goes to all processes, and Ctrl-C reaches them as SIGTERM, so that they
save and end; a second Ctrl-C ends them at once. Where one fails, the others,
which would wait for it for ever, are ended, and its status is the launcher's.
"""

from __future__ import annotations

import argparse
import sys

from experiments.lab.processes import run
from experiments.report.console import said


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog='python -m experiments.launch',
    description='Starts a command as several processes of one run.',
  )
  parser.add_argument('--processes', type=int, required=True, metavar='N')
  parser.add_argument('command', nargs='+', help='after --')
  arguments = parser.parse_args()
  if arguments.processes < 1:
    parser.error(f'--processes={arguments.processes} must be at least 1')
  sys.exit(run(arguments.command, arguments.processes))


if __name__ == '__main__':
  with said('stopped by Ctrl-C, all processes with it'):
    main()
