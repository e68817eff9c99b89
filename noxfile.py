"""The tests in every Python that is installed (see CONTRIBUTING.md)."""

import nox

nox.options.download_python = 'never'
nox.options.error_on_missing_interpreters = False


@nox.session(python=['3.11', '3.12', '3.13'])
def tests(session: nox.Session) -> None:
  """Runs pytest in a fresh environment with the newest releases."""
  session.install('-e', '.[experiments]', '--group', 'tests')
  session.run('python', '-m', 'pytest', *(session.posargs or ['-n', 'auto']))
