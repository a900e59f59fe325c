# Every target makes the environment it needs in $(VENV) on the first call; after that it starts at once.
#   PYTHON=python3.12   the interpreter to make the environment with (3.11 or newer)
#   PIP_ARGS="..."      more arguments for pip, such as an index that has a smaller build of torch:
#                       --extra-index-url https://download.pytorch.org/whl/cpu
#   VENV=path           where the environment lives
#   MINDSPORE_VENV=path where that of MindSpore lives, which has needs of its own

PYTHON ?= python3
VENV ?= .venv
MINDSPORE_VENV ?= .venv-mindspore
PIP_ARGS ?=
ARGS ?=
TEXT ?=

# The text reaches the demo through the environment, untouched: `value` keeps make from reading a "$" in it, and the
# shell never sees it as code.
export DEMO_TEXT := $(value TEXT)
unexport TEXT
# The test of the wheel makes an environment of its own, with the same arguments.
export PIP_ARGS

BIN := $(VENV)/bin
PIP := "$(BIN)/python" -m pip install --quiet -c constraints.txt $(PIP_ARGS)
SPEC := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-mindspore lint format docs bench clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  make \1@\2/p' Makefile | awk -F@ '{ printf "%-14s %s\n", $$1, $$2 }'
	@echo 'Variables: PYTHON, VENV, PIP_ARGS (extra arguments for pip); see the head of the Makefile.'

demo: $(VENV)/.base  ## invert the sentences of examples/sentences.txt, or TEXT="a sentence of yours"
	@set --; if [ -n "$$DEMO_TEXT" ]; then set -- "--text=$$DEMO_TEXT"; fi; \
	"$(BIN)/python" -m unembed.cli.main demo --file examples/sentences.txt "$$@"

test: $(VENV)/.test  ## run every test; ARGS="-m 'not slow'" for the quick ones
	"$(BIN)/python" -m pytest $(ARGS)

test-mindspore: $(VENV)/.test $(MINDSPORE_VENV)/.made  ## the MindSpore backend against torch, on the CPU (gigabytes)
	UNEMBED_MINDSPORE_PYTHON="$(MINDSPORE_VENV)/bin/python" OMP_NUM_THREADS=1 \
	"$(BIN)/python" -m pytest tests/test_mindspore.py tests/test_mindspore_parity.py $(ARGS)

lint: $(VENV)/.dev  ## style and types
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"

format: $(VENV)/.dev  ## put the code in the house style
	"$(BIN)/ruff" check --fix .
	"$(BIN)/ruff" format .

docs: $(VENV)/.docs  ## build the documentation into site/
	@# The variable silences an advertisement of the theme's, which a strict build would otherwise end with.
	NO_MKDOCS_2_WARNING=1 "$(BIN)/mkdocs" build --strict --quiet
	@echo 'The documentation is in site/index.html'

bench: $(VENV)/.test  ## speed and memory of everything; ARGS=--quick for fewer runs
	"$(BIN)/python" benchmarks/bench_speed.py $(ARGS)

clean:  ## remove the environment, caches and built files (results of runs stay)
	@# Only environments that this Makefile made.
	for made in "$(VENV)" "$(MINDSPORE_VENV)"; do if [ -e "$$made/.made" ]; then rm -rf "$$made"; fi; done
	rm -rf build dist site .mypy_cache .pytest_cache .ruff_cache
	find src tests benchmarks recipes docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# The environment, in layers, so that the demo does not wait for the tools of the tests.
$(VENV)/.made:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo 'unembed needs Python 3.11 or newer, and "$(PYTHON)" is not one: make ... PYTHON=/path/to/python3.11' >&2; \
	exit 1; }
	@"$(PYTHON)" -m venv "$(VENV)" >/dev/null 2>&1 || { \
	echo '"$(PYTHON) -m venv" failed: install its venv module (on Debian and Ubuntu: apt install python3-venv)' >&2; \
	exit 1; }
	@touch "$@"

$(VENV)/.base: $(VENV)/.made $(SPEC)
	@echo 'Installing unembed into $(VENV); the first time takes a minute or two.'
	@$(PIP) -e .
	@touch "$@"

$(VENV)/.test $(VENV)/.dev $(VENV)/.docs: $(VENV)/.%: $(VENV)/.made $(SPEC)
	@echo 'Installing unembed[$*] into $(VENV); the first time takes a minute or two.'
	@$(PIP) -e '.[$*]'
	@touch "$@"

$(MINDSPORE_VENV)/.made: constraints-mindspore.txt
	@echo 'Installing MindSpore into $(MINDSPORE_VENV); it is almost a gigabyte.'
	@"$(PYTHON)" -m venv "$(MINDSPORE_VENV)"
	@"$(MINDSPORE_VENV)/bin/python" -m pip install --quiet -c constraints-mindspore.txt $(PIP_ARGS) \
	mindspore 'numpy<2' safetensors tokenizers
	@touch "$@"
