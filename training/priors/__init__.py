"""Priors, one file each: every prior owns its sampling and its fit, so that both are saved and exported together."""
