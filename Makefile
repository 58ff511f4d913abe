# The same commands on a laptop and in CI. `make help` lists them.
SHELL := /bin/sh
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
C_FILES = $(wildcard firmware/core/src/*.c firmware/core/src/*/*.c firmware/core/src/*.h \
    firmware/core/src/*/*.h firmware/core/include/drip/*.h firmware/ports/native/*.c \
    firmware/ports/native/*.h)
FORMATTED = $(shell git ls-files 'firmware/*.c' 'firmware/*.h')
# Twice quiet: errors only.
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --quiet
PYTHON3 := build/platformio/venv/bin/python
SIZED = nucleo_f446re nucleo_f446re_imu disco_f407vg black_f407ve
PYTEST_ARGS ?= -n 2 --dist loadfile
DEMO_ARGS ?=
# More threads than cores make TensorFlow several times slower; tests run in two processes.
export OMP_NUM_THREADS ?= 2
export TF_NUM_INTRAOP_THREADS ?= 2
export TF_NUM_INTEROP_THREADS ?= 2
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: help setup demo test test-slow test-sanitize fuzz check format bench bench-engine \
    firmware size micropython clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.stamp-dev $(VENV)/.stamp-core ## create .venv with everything for development

demo: $(VENV)/.stamp-demo $(VENV)/.stamp-core ## run the whole loop on real images (smoke test)
	$(BIN)/drip demo $(DEMO_ARGS)

test: setup ## run the fast test suite
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-slow: setup ## run the tests marked slow
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

test-sanitize: setup ## run the tests of the C core under AddressSanitizer and UBSan
	tools/build/sanitize_tests.sh $(BIN)/python

fuzz: ## run the fuzz targets for 20 s each
	tools/build/fuzz.sh 20

check: setup ## lint, types, C style, generated files, rules of the C core
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	tools/build/check_c_style.sh $(FORMATTED)
	$(BIN)/python tools/schema/gen.py --check
	$(BIN)/python tools/build/check_core.py

format: setup ## format Python and C in place
	$(BIN)/ruff check --fix --exit-zero --quiet .
	$(BIN)/ruff format .
	tools/build/check_c_style.sh --fix $(FORMATTED)

bench: bench-engine ## run the benchmarks

bench-engine: setup build/nets/.stamp ## count instructions and bytes on an emulated Cortex-M4F
	$(BIN)/drip bench engine build/nets --check tests/bench/engine.json

build/nets/.stamp: models/recipes.toml models/make.py | setup
	$(BIN)/python models/make.py --all --output build/nets
	@touch $@

firmware: ## build every board image that this machine can build, into build/firmware
	tools/platformio/build.sh $(BOARDS)

size: ## what the board images cost in flash, RAM and stack, against their budgets
	tools/platformio/build.sh nucleo_f446re_own $(SIZED)
	$(PYTHON3) tools/platformio/image.py nucleo_f446re_own $(SIZED)

micropython: setup ## build MicroPython's interpreters and the modules for them, which the tests need
	$(BIN)/python tools/micropython/build.py

clean: ## remove everything that was built, keep the sources
	rm -rf $(VENV) build dist .pio host/drip/_bin host/drip/_core.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find host tests tools models -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.stamp-venv:
	@python=$$(tools/build/find_python.sh) && "$$python" -m venv $(VENV)
	@touch $@

$(VENV)/.stamp-demo: pyproject.toml tools/build/hatch_build.py | $(VENV)/.stamp-venv
	$(PIP) --editable '.[train,verify,build]'
	@touch $@ $(VENV)/.stamp-core

$(VENV)/.stamp-dev: pyproject.toml tools/build/hatch_build.py | $(VENV)/.stamp-venv
	$(PIP) --editable '.[train,verify,dev]'
	@touch $@ $(VENV)/.stamp-demo $(VENV)/.stamp-core

$(VENV)/.stamp-core: tools/build/compile_core.py $(C_FILES) | $(VENV)/.stamp-venv
	$(BIN)/python tools/build/compile_core.py
	@touch $@
