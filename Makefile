# `make` lists what there is. STACK=openmmlab takes the original OpenMMLab packages instead of the onedl-* ones, in an
# environment of its own; PYTHON=/path/to/python3.11 and VENV=folder choose another Python and another place for it.
STACK ?= onedl
VENV ?= $(if $(filter onedl,$(STACK)),.venv,.venv-$(STACK))
PYTEST_ARGS ?=
export STACK VENV

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint types docs mmcv clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: ## set up the environment in .venv, of STACK=openmmlab in .venv-openmmlab (about 2 minutes, then at once)
	@sh tools/setup.sh

demo: setup ## train and evaluate a detector and a segmentor on real images, leave figures and images
	@"$(VENV)/bin/python" tools/demo.py

test: setup ## run the tests, but for the slow ones
	@OMP_NUM_THREADS=1 "$(VENV)/bin/python" -m pytest -n 2 $(PYTEST_ARGS)

test-slow: setup ## run the slow tests
	@"$(VENV)/bin/python" -m pytest -m slow $(PYTEST_ARGS)

lint: setup ## check the code with ruff
	@"$(VENV)/bin/python" -m ruff check .

types: setup ## check the types with basedpyright
	@"$(VENV)/bin/python" -m basedpyright

docs: ## build the documentation into docs/_build/html
	@sh tools/setup.sh --docs
	@"$(VENV)/bin/python" -m sphinx -W --keep-going -q docs docs/_build/html
	@echo 'open docs/_build/html/index.html'

mmcv: ## compile the operators of mmcv into the environment (optional, 8 to 10 minutes)
	@sh tools/setup.sh --mmcv

clean: ## remove caches and build products
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache docs/_build
	find plugconv_mm configs tools tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove the environment too
	if [ -f "$(VENV)/.setup/ours" ]; then rm -rf "$(VENV)"; fi
