"""Compare the service with other ways to serve the same bundle, and check its pixels. See __main__.py, exact.py."""
