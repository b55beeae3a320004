"""Priors, one file each. A prior holds all that its samples need, so it is saved and exported with its model."""
