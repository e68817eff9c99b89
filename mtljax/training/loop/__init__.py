"""Many steps: the loop, members of a sweep in lockstep, how a run ends."""
