"""Evaluation of a run or a bundle: figures, pictures and a verdict."""
