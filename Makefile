# make run    set everything up, start the daemon, run a container, show its log
# make test   set everything up, then format, lint, types, import rules, tests
SHELL := /bin/sh
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/.make/bin:$(PATH):/usr/sbin:/sbin
export PYTHON
# The tests start thousands of Pythons; each would compile all of logd anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test soak setup setup-dev stop clean bench bench-forwarding bench-scrape bench-pull format packages packages-dev

help:
	@echo 'make run     set up, start the daemon, run a container, show its log'
	@echo 'make test    set up, then format, lint, types, import rules and tests'
	@echo 'make soak    hundreds of kills under load, each time every line is counted'
	@echo 'make stop    stop the daemon; containers go on'
	@echo 'make clean   remove all containers, images and logs, and stop the daemon'
	@echo 'make bench   compare with what else is on this machine; make bench-forwarding: how logs are delivered'
	@echo 'make bench-scrape   what a scrape of 500 containers costs; make bench-pull: pulls from a registry'
	@echo 'make format  format the code'

run: setup
	@sh scripts/demo.sh

# Three processes of tests for two processors: much of their time they wait.
test: setup-dev
	@sh scripts/docker_cli.sh $(CURDIR)/.make/bin
	@sh scripts/npm_packages.sh $(CURDIR)/.make/npm
	@sh scripts/nginx.sh $(CURDIR)/.make/nginx
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

# ROUNDS times 12 kills of daemon, shim and keeper at each of two speeds, then kills of everything in any order.
ROUNDS ?= 9
soak: setup-dev
	@sh scripts/docker_cli.sh $(CURDIR)/.make/bin
	@sh scripts/npm_packages.sh $(CURDIR)/.make/npm
	$(BIN)/pytest -m soak
	for round in $$(seq $(ROUNDS)); do LOGD_TEST_KILLS=12 $(BIN)/pytest tests/system -k one_at_a_time || exit 1; done
	$(BIN)/python tests/runtime/killing.py $(ROUNDS)
	$(BIN)/python tests/runtime/killing.py $(ROUNDS) 50000

setup: packages .make/installed

setup-dev: packages-dev .make/installed-dev

packages:
	@sh scripts/packages.sh

# What the tests need besides: the other init, certificates, a file system in a file, destinations of logs, who drives the
# daemon, who scrapes metrics, a terminal, a registry with passwords, and who makes images.
packages-dev:
	@sh scripts/packages.sh catatonit crun iproute2 openssl e2fsprogs rsyslog rsyslog-gnutls systemd nodejs npm \
		docker-compose prometheus tmux docker-registry apache2-utils skopeo umoci buildah tcc libc6-dev

$(BIN)/python:
	$(PYTHON) -m venv .venv

# editable_mode=compat: a path entry, where the default is an import hook that every start of `logs` would pay for.
PIP_INSTALL := $(BIN)/python -m pip install -q --disable-pip-version-check --use-pep517 \
	--config-settings editable_mode=compat

.make/installed: pyproject.toml | $(BIN)/python
	@mkdir -p .make
	$(PIP_INSTALL) -e .
	@touch $@

.make/installed-dev: pyproject.toml | $(BIN)/python
	@mkdir -p .make
	$(PIP_INSTALL) -e '.[dev]'
	@touch .make/installed $@

stop:
	@sh scripts/stop.sh

clean:
	@sh scripts/stop.sh --all

bench: setup
	$(BIN)/python bench/run.py $(ARGS)

bench-forwarding: setup
	$(BIN)/python bench/forwarding.py $(ARGS)

bench-scrape: setup
	$(BIN)/python bench/scrape.py $(ARGS)

bench-pull: setup
	$(BIN)/python bench/pull.py $(ARGS)

format: setup-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
