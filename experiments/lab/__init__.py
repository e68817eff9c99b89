"""What every study is run by: suites, runs, grids, the command line."""
