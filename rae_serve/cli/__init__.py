"""The command line, above the library."""
