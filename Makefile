# Tailor's commands, the same at the desk and in CI. `make help` lists them; docs/dependencies.md says what `env` installs.

BASE ?= smollm2
ARGS ?=
BIN := .venv/bin
# Slots of tests and builds on a small machine; more threads than cores slow torch down.
export OMP_NUM_THREADS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -lt 4 ] && echo $$n || echo 4)

.DEFAULT_GOAL := help
.PHONY: help up test check lint types imports bench model adapters env constraints clean distclean

help: ## list the commands
	@echo 'Tailor: one base model, tailored per tenant, from one OpenAI-compatible endpoint.'
	@echo
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r name text; do printf '%-20s %s\n' "$$name" "$$text"; done

up: env ## start Valkey, Triton and the gateway here and stay in front; BASE=tiny for the small base, PORT_OFFSET=N to move all ports
	@exec $(BIN)/tailor up --base $(BASE) $(ARGS)

test: env ## run every test against the real Triton, Valkey and model; ARGS='-k name' for some of them
	@exec $(BIN)/python -m pytest $(ARGS)

check: lint types imports ## style, types and import arrows

lint: env
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: env
	@$(BIN)/mypy && $(BIN)/mypy --strict scripts/bootstrap.py scripts/pin.py

imports: env
	@$(BIN)/lint-imports

bench: env ## what the gateway costs per request and per token, beside nginx and a direct connection
	@exec $(BIN)/python -m bench $(ARGS)

model: env ## train the tiny base model and its adapters again and print their scores
	@exec $(BIN)/python -m build.tiny_base $(ARGS)

adapters: env ## train the demo adapters of SmolLM2 again and print their scores
	@exec $(BIN)/python -m build.smollm2_adapters $(ARGS)

env: ## create or repair .venv and .tools; does nothing where they are as pinned
	@python=$$(scripts/find-python) && exec "$$python" -I scripts/bootstrap.py

constraints: env ## pin what .venv holds into constraints.txt
	@exec $(BIN)/python scripts/pin.py

clean: ## remove what runs and tools left behind; keeps the environment and the converted models
	@pid=$$(cat .run/lock 2>/dev/null) && grep -q tailor /proc/$$pid/cmdline 2>/dev/null && echo "tailor runs here (pid $$pid): stop it first" && exit 1 || true
	rm -rf .run .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find gateway build model_repository scripts tests -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## remove the environment and the converted models too
	rm -rf .venv .tools .cache
