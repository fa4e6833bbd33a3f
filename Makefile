# The ways into minirt. Type any of them as yourself or as root: what needs root asks sudo for it, and nothing in the
# checkout ends up belonging to root when the checkout is yours.
#
#   make hello        set up, and run a first container                       make test         everything, 12 minutes
#   make workshop     set up what the workshop needs, and list its chapters
#   make lint         style and types                                         make acceptance   against other tools, 35 minutes
#   make test-deps    install those other tools                               make bench        measured beside runc, crun, podman
#   make site         the book as a web site, in site/                        make notebook     the notebooks, in a browser
#   make install      minirt for every user, below /usr/local                 make uninstall    and every trace away
#   make clean        what the targets above left in the checkout             make online       the public registries, for real

SHELL := /bin/sh
PREFIX ?= /usr/local
VENV := .venv
PY := $(VENV)/bin/python
SUDO := $(shell test "$$(id -u)" = 0 || echo sudo)
# Tests run as root, in cages; what pytest and hypothesis would like to keep in the checkout stays out of it.
AS_ROOT := $(SUDO) env PYTHONDONTWRITEBYTECODE=1 HYPOTHESIS_STORAGE_DIRECTORY=/tmp/minirt-hypothesis $(if $(CI),CI=$(CI))
PYTEST := $(AS_ROOT) $(PY) -m pytest $(PYTEST_OPTIONS)
packages = $(PY) -c 'import tomllib, sys; \
    print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"][sys.argv[1]]))' $(1) \
    | $(PY) -m pip install -q --disable-pip-version-check -r /dev/stdin

.PHONY: help hello workshop ready test lint test-deps acceptance site bench notebook install uninstall online clean
help:
	@sed -n '4,10s/^#  //p' Makefile

# -- set up: nothing but Python is needed for `make hello` --------------------------------------------------------------

$(VENV)/bin/python:
	@python=$$(tools/find-python) && "$$python" -m venv --without-pip $(VENV)

ready: $(VENV)/bin/python
	@$(PY) -m minirt.install checkout $(VENV)

$(VENV)/.test: pyproject.toml | ready
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip >/dev/null
	@echo 'installing what the tests need into $(VENV)'
	@$(call packages,test)
	@touch $@

$(VENV)/.book: $(VENV)/.test
	@echo 'installing what the book needs into $(VENV)'
	@$(call packages,book)
	@touch $@

$(VENV)/.machine: $(VENV)/.book
	@$(call packages,machine)
	@touch $@

# -- run ------------------------------------------------------------------------------------------------------------

hello: ready
	@$(SUDO) $(PY) -B -m minirt.images.hello
	@$(SUDO) $(VENV)/bin/minirt --explain run --rm hello-world
	@echo
	@echo 'minirt is $(if $(SUDO),sudo )$(VENV)/bin/minirt; make install makes it minirt for every user of this machine'

# A check needs the standard library and pytest, and chapter 14's requests; nothing else.
$(VENV)/.workshop: Makefile | ready
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip >/dev/null
	@$(PY) -c 'import pytest, requests' 2>/dev/null || \
	    $(PY) -m pip install -q --disable-pip-version-check 'pytest>=8' 'requests>=2.28'
	@touch $@

workshop: $(VENV)/.workshop
	@$(PY) -m chapters

lint: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# The triads have judges of their own that work side by side: workers of pytest would each start all of them again.
TRIADS := tests/house/test_triads.py
test: lint
	$(PYTEST) -n auto -q tests --ignore=$(TRIADS) $(addprefix --ignore=tests/,acceptance faults vm site online)
	$(PYTEST) -q $(TRIADS)

test-deps: ready
	@.ci/test-deps

acceptance: $(VENV)/.machine
	$(PYTEST) -q tests/acceptance tests/faults tests/site tests/vm

bench: ready
	@$(SUDO) env PYTHONDONTWRITEBYTECODE=1 $(PY) -m benchmarks $(BENCH)

site: $(VENV)/.book
	@$(PY) chapters/site/build.py

notebook: $(VENV)/.book
	@test -z "$$SSH_CONNECTION" || echo "On your own machine: ssh -N -L 8888:127.0.0.1:8888 $$(id -un)@$$(hostname)"
	$(VENV)/bin/jupyter lab --ip 127.0.0.1 --port 8888 --ServerApp.port_retries=0 --no-browser \
	    $$(test "$$(id -u)" != 0 || echo --allow-root) notebooks

# -- for every user of this machine -----------------------------------------------------------------------------------

install:
	@python=$$(tools/find-python --system) && $(SUDO) "$$python" -IB minirt/install.py system $(PREFIX)
	@echo "installed: $(PREFIX)/bin/minirt"

uninstall:
	@python=$$(tools/find-python --system) && $(SUDO) "$$python" -IB minirt/install.py remove $(PREFIX) $(KEEP)

online: $(VENV)/.test
	$(PYTEST) -v tests/online

clean:
	rm -rf $(VENV) build site .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
