"""What `make demo` runs: a configuration and Python reward functions."""
