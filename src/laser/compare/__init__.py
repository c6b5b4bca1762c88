"""Suites of runs: methods x tasks x seeds, run where missing, compared in one table."""
