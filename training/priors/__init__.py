"""Priors: one file for each."""
