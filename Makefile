# `make run` and `make test` do all their own set-up, on a machine with nothing but Python 3.11 or newer and make.
# `make help` lists the rest. Name another interpreter with `make PYTHON=/path/to/python3.12 ...`.
ifeq ($(origin PYTHON),undefined)
# The first one that is new enough; looked for only by the recipes that use it.
PYTHON = $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
  if command -v $$python >/dev/null 2>&1 && $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
  then echo $$python; break; fi; done)
endif

VENV      := .venv
BIN       := $(VENV)/bin
STAMP     := $(VENV)/.installed
GENERATED := clients/python/watchword/v1
EXAMPLE := examples/orders/v1
PROTOS    := protos/watchword/v1
PIP       := -m pip --quiet --disable-pip-version-check --no-input
TYPED     := $(wildcard service clients/python tests bench examples deploy)

.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help run test test-postgres check format lint fix types imports proto breaking generate generate-check compat deploy-check bench soak fuzz clean

# A clear heading before each step of a check.
heading = @printf '\n== %s\n' "$(1)"

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

# ---- set-up ----------------------------------------------------------------------------------------------------------

# The stamp is touched last, so an interrupted set-up is taken up again; a half-made or broken environment is made anew.
$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Watchword needs Python 3.11 or newer, and none is on the PATH. Name one with make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit("Watchword needs Python 3.11 or newer; " + sys.executable + " is " + sys.version.split()[0] + ". Name another with make PYTHON=/path/to/python3") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "This Python cannot make virtual environments: install its venv module (Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "Setting up $(VENV) (once; about a minute)"
	@$(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python $(PIP) install --upgrade 'pip>=25.1'
	@$(BIN)/python $(PIP) install --editable '.[server,native,otel]' --group dev
	@touch $@

run: $(STAMP) ## serve on port 7600 with an embedded PostgreSQL
	@exec $(BIN)/watchword serve

# ---- what CI runs ----------------------------------------------------------------------------------------------------

# Cheapest first; the first failure stops.
check: format lint types imports proto breaking generate-check deploy-check compat test ## all that CI runs

format: $(STAMP) ## formatting is as ruff would have it (make fix repairs)
	$(call heading,format)
	@$(BIN)/ruff format --check .

lint: $(STAMP) ## the linter's rules
	$(call heading,lint)
	@$(BIN)/ruff check .

fix: $(STAMP) ## format, and repair what the linter can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

types: $(STAMP) ## strict types
	$(call heading,types)
	@$(BIN)/mypy $(TYPED)

imports: $(STAMP) ## which layer may import which
	$(call heading,imports)
	@$(BIN)/lint-imports --no-logo

proto: $(STAMP) ## the protos follow buf's STANDARD rules
	$(call heading,proto lint)
	@$(BIN)/buf lint && echo "buf lint: no findings"

breaking: $(STAMP) ## the API broke nothing since the last release, or main
	$(call heading,proto breaking changes)
	@.ci/breaking $(BIN)/buf

generate: $(STAMP) ## write the generated code anew
	@$(call generate_into,clients/python,examples)
	@touch $(GENERATED)/__init__.py

# Generated beside the tree and compared, so that a check never changes what it checks.
generate-check: $(STAMP) ## the committed generated code is current
	$(call heading,generated code)
	@rm -rf build/generated && mkdir -p build/generated
	@$(call generate_into,build/generated,build/generated)
	@touch build/generated/watchword/v1/__init__.py
	@diff -r --exclude=__pycache__ build/generated/watchword/v1 $(GENERATED) || { echo "The generated code is not what the protos say: run make generate, and commit" >&2; exit 1; }
	@diff --exclude=__pycache__ --exclude=__init__.py --exclude=orders.proto -r build/generated/orders/v1 $(EXAMPLE) || { echo "The example's generated code is not what its proto says: run make generate, and commit" >&2; exit 1; }
	@echo "$(GENERATED) and $(EXAMPLE) are current"

# The API's code into $(1), the example's into $(2).
generate_into = $(call protoc,$(1),$(PROTOS)/*.proto) && $(call protoc,$(2),$(EXAMPLE)/*.proto)
protoc = $(BIN)/python -m grpc_tools.protoc --proto_path=protos --proto_path=examples \
  --python_out=$(1) --grpc_python_out=$(1) --mypy_out=quiet:$(1) --mypy_grpc_out=quiet:$(1) \
  --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
  $(2)

# The client library alone, on the oldest versions it admits and on the newest there are.
compat: build/compat-oldest/.installed build/compat-newest/.installed ## the client library on its oldest and newest dependencies
	$(call heading,compat)
	@PYTHONPATH=clients/python build/compat-oldest/bin/python -W error tests/tooling/compat_smoke.py
	@PYTHONPATH=clients/python build/compat-newest/bin/python -W error tests/tooling/compat_smoke.py

build/compat-oldest/.installed: OF := grpcio==1.75.0 protobuf==6.31.1 googleapis-common-protos==1.70.0
build/compat-newest/.installed: OF := --upgrade grpcio protobuf googleapis-common-protos
build/compat-%/.installed: pyproject.toml $(STAMP)
	@echo "Setting up build/compat-$*"
	@rm -rf build/compat-$* && $(BIN)/python -m venv build/compat-$*
	@build/compat-$*/bin/python $(PIP) install $(OF)
	@touch $@

deploy-check: $(STAMP) ## shell scripts, container file, manifests and alert rules
	$(call heading,deploy)
	@$(BIN)/shellcheck .ci/run .ci/breaking $(wildcard deploy/*.sh examples/*.sh examples/*/*.sh docs/*.sh bench/*.sh)
	@$(BIN)/hadolint deploy/Containerfile
	@$(BIN)/yamllint --strict --config-file deploy/.yamllint.yaml deploy
	@$(BIN)/kubernetes-validate --strict --quiet $(filter-out %/kustomization.yaml,$(wildcard deploy/kubernetes/*.yaml))
	@echo "shellcheck, hadolint, yamllint, kubernetes-validate: no findings"

# Whole files to a worker: the tests of a file may share what is dear to set up. Much of a test's time is waiting, so two cores
# keep three workers and the processes that they start.
TEST_WORKERS ?= 3
pytest = $(BIN)/python -m pytest --numprocesses $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# Many processes import the same sources: compiled once, also where the environment says to keep no bytecode.
test test-postgres: export PYTHONDONTWRITEBYTECODE :=

test: $(STAMP) ## the whole test suite (PYTEST_ARGS=... narrows it)
	$(call heading,test)
	@$(pytest)

# Where it matters which PostgreSQL it is. Each worker starts one of its own.
test-postgres: PYTEST_ARGS ?= $(addprefix tests/,answer bad_input cli docs doctor faults history path replica request store)
test-postgres: $(STAMP) ## what asks the database, on the PostgreSQL in PG_BIN=/usr/lib/postgresql/15/bin
	@test -x "$(PG_BIN)/postgres" || { echo "Name the folder of PostgreSQL's programs: make test-postgres PG_BIN=/path/to/bin" >&2; exit 1; }
	@printf '\n== test on %s\n' "$$("$(PG_BIN)/postgres" --version)"
	@WATCHWORD_TEST_POSTGRES="$(PG_BIN)" $(pytest)

# ---- the rest --------------------------------------------------------------------------------------------------------

bench: $(STAMP) ## measure; prints a table and writes build/bench.json (BENCH_ARGS=...)
	@$(BIN)/python -m bench $(BENCH_ARGS)

SECONDS ?= 600

soak: $(STAMP) ## break a fleet for SECONDS=600 and check what it told its callers (SEED=... repeats a run)
	@$(BIN)/python -m tests.history.soak --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

FUZZ ?= token metadata scope network peer

fuzz: $(STAMP) ## throw inputs at what reads callers' bytes, SECONDS=600 for each of FUZZ
	@for target in $(FUZZ); do $(BIN)/python -m tests.fuzz $$target --seconds $(SECONDS) || exit 1; done

clean: ## remove everything these rules made, the environment too
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
