# `make` lists the targets. Each brings what it needs; nothing is installed outside this folder.

export UV_PYTHON_DOWNLOADS ?= never
BIN := .venv/bin
UPGRADE ?=
# The tests of a file share what they have trained, so one process runs them all.
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help env trainer sweep test test-fast test-launcher check fix docs links screenshots wheel-check lock fields clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: ## Build the launcher's environment (.venv, about 0.6 GB)
	@sh scripts/bootstrap.sh

trainer: env ## Build the trainer's environment (Axolotl and PyTorch, about 8 GB)
	@$(BIN)/python -m runner.environment.trainer_environment

sweep: trainer ## Train the six runs of sweeps/tiny_grid.yaml on this machine's CPU and compare them
	@$(BIN)/axosweep -m +sweeps=tiny_grid

test: trainer ## Run every test, the fast ones first
	@$(BIN)/python -m pytest $(PARALLEL)

test-fast: env ## Run the tests that take less than about half a second
	@$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not medium"

test-launcher: env ## Run the tests that need neither Axolotl nor more than a few seconds
	@$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

check: env ## Lint, formatting, types, and who imports whom
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fix: env ## Repair lint and formatting
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

docs: env ## Build the documents as a site, in site/; fails on a warning, a dead link, or a file from elsewhere
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --clean

links: env ## Check the documents' links to other hosts; needs a network
	@$(BIN)/python -m scripts.check_links

screenshots: trainer ## Renew docs/images: the live view and the report of a real small sweep; needs chromium
	@$(BIN)/python -m scripts.screenshots

wheel-check: env ## Build the wheel, install it into an empty environment and try it there
	@$(BIN)/python scripts/check_wheel.py

lock: env ## Renew both locks; UPGRADE=--upgrade takes the newest versions that fit
	@UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate \
		$(UPGRADE) --python-version 3.11 --extra dev pyproject.toml --output-file requirements.lock
	@cd modal_app/trainer && UV_CUSTOM_COMPILE_COMMAND="make lock" ../../$(BIN)/uv pip compile --quiet --universal \
		--generate-hashes --no-annotate $(UPGRADE) --python-version 3.12 pyproject.toml --output-file requirements.lock

fields: trainer ## Renew the lists of Axolotl's keys and of models' modules from the trainer environment
	@.axosweep/trainer/bin/python modal_app/trainer/list_fields.py runner/config/axolotl_fields.json
	@.axosweep/trainer/bin/python modal_app/trainer/list_modules.py runner/config/architectures.json

clean: ## Remove both environments and the tools' caches; out/ and its runs stay
	@rm -rf .venv .axosweep .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist site
