# `make serve`, `make test` and `make lint` first make the environment that they need.
PYTHON ?= python3
SERVE := .venv-serve
DEV := .venv
NPM_PACKAGES := examples/node_modules/.ready

.PHONY: serve test lint clean

serve: $(SERVE)/.ready
	@echo "rae-serve: http://127.0.0.1:$${RAE_SERVE_PORT:-3000} (its API: /docs); Ctrl-C ends it"
	@BENTOML_DO_NOT_TRACK=True $(SERVE)/bin/bentoml serve

test: $(DEV)/.ready $(NPM_PACKAGES)
	@echo "running every test: about ten minutes on two cores"
	$(DEV)/bin/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

lint: $(DEV)/.ready
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy

$(SERVE)/.ready: pyproject.toml constraints.txt
	@echo "installing BentoML, ONNX Runtime and FastAPI in $(SERVE): about 1 GB, one to five minutes, this once"
	$(PYTHON) -m venv $(SERVE)
	$(SERVE)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[server]'
	@touch $@

$(DEV)/.ready: pyproject.toml constraints.txt
	@echo "installing torch, BentoML and the tests' tools in $(DEV): about 5 GB, five to fifteen minutes, this once"
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[server,client,hub,train,dev]'
	@touch $@

$(NPM_PACKAGES): examples/package.json $(wildcard examples/*/package.json)
	@if command -v npm >/dev/null; then \
	  echo "installing ONNX Runtime for JavaScript in examples/node_modules: about 450 MB, half a minute, this once"; \
	  cd examples && npm install --no-audit --no-fund && touch node_modules/.ready; \
	else echo "npm is not installed: the tests of the examples in JavaScript are skipped"; fi

clean:
	rm -rf $(SERVE) $(DEV) examples/node_modules
