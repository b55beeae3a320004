"""The command line `rae-serve`."""
