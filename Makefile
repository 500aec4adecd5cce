# The only commands that a person or CI types. `make help` lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# What the node, its tests and the demo run on. cups brings cupsd and its backends and filters.
DEBIAN_PACKAGES := bubblewrap chromium cups cups-client cups-daemon cups-filters cups-ipp-utils \
	dbus-daemon fonts-dejavu-core gcc ghostscript iproute2 libcups2-dev libsystemd-dev pkg-config poppler-utils \
	python3 python3-dev python3-venv

# Only the tests need a host that converts office documents, macOS's getpeereid(3), readers of shell scripts and manual
# pages, and the shells.
TEST_PACKAGES := bash-completion caddy curl fish libbsd0 libreoffice-writer-nogui man-db mandoc nginx passwd \
	shellcheck util-linux zsh

# To build the packages, and to boot systems on which they are tried.
DEB_PACKAGES := debhelper dpkg-dev gcc libcups2-dev libsystemd-dev pkg-config python3-dev python3-venv
MACHINE_PACKAGES := apt-utils debootstrap gnupg lintian systemd-container xz-utils

.DEFAULT_GOAL := help
.PHONY: help deps lock demo demo-check test test-hosts soak lint format bench fuzz screenshots deb repo test-deb macos-layout clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1 \t/p' $(MAKEFILE_LIST) | expand -t 20

deps: $(VENV)/ready ## install what is missing: Debian packages, virtual environment from the lock files

$(VENV)/ready: requirements-build.lock requirements.lock setup.cfg packaging/install-debian-packages
	packaging/install-debian-packages $(DEBIAN_PACKAGES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements-build.lock
	$(BIN)/pip install --quiet --require-hashes --no-build-isolation -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

lock: ## resolve the dependencies anew (needs uv)
	uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --no-emit-find-links requirements-build.in -o requirements-build.lock
	uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --no-emit-find-links setup.cfg --extra dev -o requirements.lock
	uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --no-emit-find-links setup.cfg -o packaging/requirements.lock

demo: deps ## a whole office on this machine: private cupsd, printers, cloud, three nodes; Ctrl-C removes it
	$(BIN)/python -m tests.rig.demo

demo-check: deps ## the same without a person: print, kill a node, release, compare the bytes
	$(BIN)/python -m tests.rig.demo --check

test: deps ## every test that is not long
	packaging/install-debian-packages $(TEST_PACKAGES)
	$(BIN)/pytest --ignore=tests/packages -m "not long" $(PYTEST_ARGS)

test-hosts: deps ## all that can happen to hosts in networks of their own: killed, frozen, cut off (30 minutes, root)
	packaging/install-debian-packages $(TEST_PACKAGES)
	$(BIN)/pytest -rs tests/hosts $(PYTEST_ARGS)

lint: deps ## style, types, layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: deps ## what lint would ask for, done
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: deps ## the figures of DESIGN 10 that this version is held to, each beside its baseline
	$(BIN)/python -m tests.bench

soak: deps ## print N=… jobs (200) on hosts that die, hang and lose each other, and count at the printers (root; SEED=…)
	$(BIN)/python -m tests.rig.soak $(or $(N),200) $(if $(SEED),--seed $(SEED))

fuzz: deps ## the fuzz targets with more examples than `make test` runs (N=…)
	PULLPRINT_FUZZ_EXAMPLES=$(or $(N),20000) $(BIN)/pytest tests/fuzz

deb: ## Debian packages of this tree, into dist/ (two minutes)
	packaging/install-debian-packages $(DEB_PACKAGES)
	packaging/make-deb dist

macos-layout: ## what the Mac package installs, into dist/macos/ (works anywhere; the package itself needs a Mac)
	packaging/macos/build-pkg --layout dist/macos

repo: ## a signed apt repository of what `make deb` made: make repo KEY=FINGERPRINT (REPO=folder)
	packaging/install-debian-packages apt-utils dpkg-dev gnupg xz-utils
	packaging/make-repo dist "$(or $(REPO),dist/repo)" "$(KEY)"

test-deb: deps ## boot Debian systems, install the packages there, print, upgrade, remove (ten minutes, root)
	packaging/install-debian-packages $(DEB_PACKAGES) $(MACHINE_PACKAGES)
	$(BIN)/pytest -rs tests/packages $(PYTEST_ARGS)

screenshots: deps ## the pictures that the README shows
	$(BIN)/python -m tests.rig.screenshots

clean: ## remove everything that the other targets made
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf daemon/*.egg-info
