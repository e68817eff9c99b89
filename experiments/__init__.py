"""Studies that run from the command line: ``python -m experiments.<name>``."""
