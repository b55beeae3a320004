"""Studies: published figures, done again. Each module with a function `run(study)` is one study."""
