"""Studies: the published figures, done again. Each module is one, with `run(study)`."""
