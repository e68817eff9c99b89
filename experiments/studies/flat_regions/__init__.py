"""Tests the claims of task-based flat regions (F-MTL) on a data set."""
