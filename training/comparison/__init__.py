"""The command `rae-serve compare`: several systems on the same images, under one budget."""
