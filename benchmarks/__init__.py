"""What is measured, against whom; each is a command, `python -m benchmarks.NAME`. Results stand in README.md."""
