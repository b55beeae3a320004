"""One file per system in the literature; a recipe's `model` is the name of its module here."""
