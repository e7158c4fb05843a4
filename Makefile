# `make run` and `make test` do all their own set-up. `make help` lists the rest.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
GENERATED := clients/python/watchword/v1

.PHONY: help run test check format lint types imports proto generate generate-check compat bench soak clean
.DEFAULT_GOAL := help

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Watchword needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another with make PYTHON=...") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable '.[server,native,otel]' --group dev
	@touch $@

run: $(STAMP) ## serve on port 7600 with an embedded PostgreSQL
	@exec $(BIN)/watchword serve

test: $(STAMP) ## the whole test suite
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: format lint types imports proto generate-check compat test ## what CI runs

format: $(STAMP) ## formatting is as ruff would have it (make fix repairs)
	$(BIN)/ruff format --check .

lint: $(STAMP)
	$(BIN)/ruff check .

fix: $(STAMP) ## format, and repair what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(STAMP) ## strict types
	$(BIN)/mypy service clients/python tests bench examples

generate: $(STAMP) ## write the generated code anew
	$(BIN)/python -m grpc_tools.protoc --proto_path=protos \
	  --python_out=clients/python --grpc_python_out=clients/python \
	  --mypy_out=clients/python --mypy_grpc_out=clients/python \
	  --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
	  protos/watchword/v1/*.proto
	touch $(GENERATED)/__init__.py
