"""Metrics: pure functions of features, latents or pixels."""
