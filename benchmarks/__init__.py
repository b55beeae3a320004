"""Benchmarks of training and serving, each a command: `python -m benchmarks.NAME`. README.md holds the results."""
