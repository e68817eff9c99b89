"""What a constant factor on a task's loss changes, setting by setting."""
