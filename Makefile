SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test test-all test-unit check bench bench-model bench-train bench-data bench-render bench-gpu soak format lock golden clean

VENV := $(CURDIR)/.venv
# An activated or earlier environment of this project must not become the interpreter that builds the next one.
PYTHON ?= $(shell PATH="$(subst $(VENV)/bin:,,$(PATH))"; command -v python3.11 || command -v python3)
PROFILE ?= demo
DATA ?=
WORKERS ?= 2
KEY := $(shell cat requirements.lock requirements-no-deps.lock pyproject.toml | sha256sum | cut -c1-16)
KEY_DEV := $(shell cat requirements.lock requirements-no-deps.lock requirements-dev.lock pyproject.toml | sha256sum | cut -c1-16)
STAMP := $(VENV)/.stamp-$(KEY)
STAMP_DEV := $(VENV)/.stamp-dev-$(KEY_DEV)

export PATH := $(VENV)/bin:$(PATH)
export DATA
export DO_NOT_TRACK := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_SITE_CACHE_DIR := $(or $(OMNIHUMAN_HOME),$(HOME)/.omnihuman)/dvc

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name text; do
		printf '  make %-11s %s\n' "$$name" "$$text"
	done

# Arguments: the lock to install, the stamp that says so.
define install
	test -n "$(PYTHON)" || { echo "No python3 on PATH: install CPython 3.11 or 3.12, or set PYTHON=." >&2; exit 2; }
	"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' ||
		{ echo "$(PYTHON) is not CPython 3.11 or 3.12: set PYTHON=." >&2; exit 2; }
	test -x "$(VENV)/bin/python" || "$(PYTHON)" -m venv "$(VENV)"
	"$(VENV)/bin/python" -m pip install -r $(1) | sed -un -e 's/^\(Collecting [^ ]*\).*/  \1/p' \
		-e 's/^Processing .*\/\([^ ]*\).*/  Processing \1/p' -e 's/^\(Building\|Installing\) .*/  \1 packages .../p'
	"$(VENV)/bin/python" -m pip install --quiet --no-deps -r requirements-no-deps.lock
	"$(VENV)/bin/python" -m pip install --quiet --no-deps --editable .
	test -e .git || dvc config --local core.no_scm true
	rm -f "$(VENV)"/.stamp-*
	touch "$(2)"
endef

setup: ## Create .venv with the locked packages (skipped while the lock is unchanged)
	@if [ -e "$(STAMP)" ] || [ -e "$(STAMP_DEV)" ]; then exit 0; fi
	echo "Setting up .venv: 249 packages, some minutes ..."
	$(call install,requirements.lock,$(STAMP))

setup-dev: ## The same with the tools of development
	@if [ -e "$(STAMP_DEV)" ]; then exit 0; fi
	echo "Setting up .venv for development: 285 packages, some minutes ..."
	$(call install,requirements-dev.lock,$(STAMP_DEV))

demo: setup ## Run the whole chain and print its figures; DATA=folder for own videos, PROFILE=name
	@if [ -n "$$DATA" ]; then
		omnihuman demo --profile "$(PROFILE)" --data "$$DATA" collect.licence=unknown \
			collect.consent_basis=unknown collect.rights_holder=unknown
	else
		omnihuman demo --profile "$(PROFILE)"
	fi

test: test-unit ## The quick tests, then the slow ones that take less than half a minute
	@OMP_NUM_THREADS=1 pytest -n $(WORKERS) --dist loadfile -m "slow and not long and not soak" --durations 15

test-all: test ## All tests: also those that run the whole graph, compile, or start ranks anew
	@OMP_NUM_THREADS=1 pytest -n $(WORKERS) --dist loadfile -m "long and not soak" --durations 15

test-unit: setup-dev ## The quick tests only
	@OMP_NUM_THREADS=1 pytest -n $(WORKERS) -m "not slow and not soak"

check: setup-dev ## Style, types, layers, and whether params.yaml is up to date
	@ruff check .
	ruff format --check .
	basedpyright
	lint-imports
	omnihuman config compose --check

golden: setup-dev ## Write the losses anew that a change of form must leave as they are
	@OMP_NUM_THREADS=1 python -m tests.golden

bench: setup-dev bench-model bench-train bench-data bench-render ## Run every benchmark that needs no GPU
	@python benchmarks/training_step.py

bench-model: setup-dev ## The model against diffusers' class, and packing against padding
	@python benchmarks/model_against_diffusers.py
	python benchmarks/packing.py

bench-train: setup-dev ## The way of the data, and what training costs beside the model
	@python benchmarks/data_path.py
	python benchmarks/balance.py
	python benchmarks/training_overhead.py

bench-data: setup-dev ## Scorers against a plain decode, decisions, lip sync, each drawn defect, copies
	@python benchmarks/scoring.py
	python benchmarks/published_scorers.py
	python benchmarks/decisions.py
	python benchmarks/lip_sync.py
	python benchmarks/defects.py
	python benchmarks/duplicates.py

bench-render: setup-dev ## Guidance, our step against the diffusers pipeline's, what is not the model, real sizes
	@python benchmarks/render.py
	python benchmarks/render_sizes.py
	if [ -e models/3_pose ]; then python benchmarks/drift.py; else echo "No models/3_pose: after make demo, drift over a minute of speech is measured too."; fi

bench-gpu: setup-dev ## The model's figures on a GPU, in pieces; goes on where it stopped
	@python benchmarks/model_gpu.py

soak: setup-dev ## The long versions of the fault tests
	@pytest -m soak

format: setup-dev ## Put the code into the agreed form
	@ruff check --fix .
	ruff format .

lock: ## Resolve pyproject's dependencies anew into both locks
	@rm -rf build/lock
	"$(PYTHON)" -m venv build/lock
	freeze() { build/lock/bin/python -m pip freeze --exclude omnihuman --exclude pip --exclude setuptools --exclude wheel |
		sed 's/^\(torch==[^+]*\)+.*/\1/'; }
	grep '^#' requirements.lock > build/lock/use.lock
	grep '^[#-]' requirements-dev.lock > build/lock/dev.lock
	grep -v '^-r' requirements-dev.lock > build/lock/constraints.txt
	build/lock/bin/python -m pip install -c requirements.lock .
	freeze > build/lock/use.txt
	build/lock/bin/python -m pip install -c requirements.lock -c build/lock/constraints.txt '.[dev]'
	freeze > build/lock/dev.txt
	cat build/lock/use.txt >> build/lock/use.lock
	(grep -vxFf build/lock/use.txt build/lock/dev.txt || true) >> build/lock/dev.lock
	mv build/lock/use.lock requirements.lock
	mv build/lock/dev.lock requirements-dev.lock

clean: ## Remove caches and everything that the chain made, but neither .venv nor DVC's cache
	@rm -rf build dist data models runs renders reports .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
