"""The HTTP service, above the library."""
