"""The HTTP server: a FastAPI app and its middleware, built on the library in `rae_serve`."""
