# Two commands set everything up: `make demo` and `make test`. Both use .venv/ in this folder.
# Needs: Python 3.11 to 3.13, make, git, and a network that reaches the package registries.

VENV := .venv
BIN := $(VENV)/bin
DEPENDENCIES := pyproject.toml constraints.txt
# The first of these that runs and is of a supported version; set PYTHON to choose another.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo $$python && break; done)
# Shows what pip collects, one line each; pip's own failure is kept over the pipe.
PIP_INSTALL = { $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt $(1) \
	|| touch $(VENV)/.failed; } | awk '/^(Collecting|Building)/ { print "  " $$2; fflush() } /^Successfully/ { print; fflush() }'; \
	test ! -e $(VENV)/.failed

.PHONY: demo test test-fast faults soak lint format bench clean help

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.demo ## stream real events through a mesh of four domains and answer one question across them
	@$(BIN)/python examples/airline/demo.py

# Tests wait for servers more than they compute: three at a time on two cores.
test: $(VENV)/.test ## run the tests: units, and whole paths over real servers
	@$(BIN)/python -m pytest -n 3 --durations 25 tests/integration tests/unit

faults: $(VENV)/.test ## run the fault suite: crashes, outages, storms; after each, verify proves that nothing is lost or doubled
	@$(BIN)/python -m pytest -n 3 --durations 25 tests/outages tests/faults

soak: $(VENV)/.test ## run the fault suite's long form: a hundred kills, minutes of outage, 100 million rows; takes an hour
	@$(BIN)/python -m pytest -s tests/soak

test-fast: $(VENV)/.test ## run the unit tests only
	@$(BIN)/python -m pytest -n 2 tests/unit

lint: $(VENV)/.test ## format, rules, types, import directions, compose file
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy -p headrace
	$(BIN)/mypy tests examples
	$(BIN)/lint-imports
	$(BIN)/docker-compose -f docker-compose.yml config --quiet

format: $(VENV)/.test ## format the code and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.test ## measure the sink beside a bare consume loop
	@PYTHONPATH=. $(BIN)/python tests/bench/drain.py

clean: ## remove the virtual environment; meshes and the download cache stay
	rm -rf $(VENV)

$(VENV)/.python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 to 3.13 with venv is on the path; set PYTHON=/path/to/python" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.python $(DEPENDENCIES)
	@echo "installing headrace and the libraries of its examples"
	@rm -f $(VENV)/.failed
	@$(call PIP_INSTALL,--editable '.[examples]')
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@echo "installing what the tests need"
	@rm -f $(VENV)/.failed
	@$(call PIP_INSTALL,'pip>=25.1')
	@$(call PIP_INSTALL,--group dev --editable '.[examples$(comma)compose]')
	@touch $@

comma := ,
