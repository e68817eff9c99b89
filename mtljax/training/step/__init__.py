"""One step of training: its state, plan, routes, devices, sweeps of it."""
