# Plain `make` lists the targets. Each sets up a private .venv first, which takes a minute once.

PYTHON ?= python3
BIN := .venv/bin
# Processes that run tests: twice the cores, because most tests wait more than they compute.
WORKERS ?= $(shell expr 2 \* $$(nproc))

.DEFAULT_GOAL := help
.PHONY: help demo test test-pure check compiled pure bench bench-proxy simulate simulate-mutants soak fuzz fuzz-mutants docs reference clean

help:
	@echo "make demo              a mesh on this machine: 3 relays, a proxy, 2 web servers (10 s to start)"
	@echo "make check             lint, formatting and types (1 min)"
	@echo "make test              compile, then run all tests (8 min on 2 cores; TESTS=tests/unit for some)"
	@echo "make test-pure         unit and protocol tests without compiled modules (2 min)"
	@echo "make compiled          compile the hot modules (1 min); make pure removes them"
	@echo "make bench             the mesh beside its competitors (30 min; BENCH=-h for options)"
	@echo "make bench-proxy       the proxy beside nginx and HAProxy (20 min)"
	@echo "make simulate          fifty relays on a simulated clock (SEEDS=1000, SEED=17, JOBS=2)"
	@echo "make simulate-mutants  does the simulation find planted bugs? (2 min)"
	@echo "make soak              faults on real processes (MINUTES=20, SEED=7)"
	@echo "make fuzz              every decoder (MINUTES=20 for each, TARGET=native)"
	@echo "make fuzz-mutants      does fuzzing find planted bugs? (5 min)"
	@echo "make docs              the documentation as a site, links checked (1 min)"
	@echo "make reference         write the generated parts of the reference pages"
	@echo "make clean             remove .venv, caches and compiled modules"

# Needs no installed Arke: it runs the sources.
demo: .venv/demo
	@PYTHONPATH=$(CURDIR)/sdk:$(CURDIR)/relay:$(CURDIR)/proxy exec $(BIN)/python demo-httpserver/demo.py $(DEMO)

test: .venv/compiled
	@$(call run-tests,$(TESTS))

# Tests in parallel by file; then, one at a time, those that measure memory, time or descriptors.
# pytest's exit status 5: none of the selected tests is of that kind.
define run-tests
$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not alone" $(1); parallel=$$?; \
$(BIN)/python -m pytest -m alone $(1); alone=$$?; \
case $$parallel,$$alone in 0,0 | 0,5 | 5,0) ;; *) exit 1 ;; esac
endef

check: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# Without a C compiler an installation runs the sources; so must these tests.
test-pure: .venv/ready pure
	@$(call run-tests,tests/unit tests/protocol tests/acceptance/proxy/test_http1.py)

# Compile again after each change; `make pure` goes back to running the sources.
compiled: .venv/compiled

pure:
	find sdk relay proxy -name '*.so' -delete
	rm -f .venv/compiled

bench: .venv/compiled
	$(BIN)/python -m benchmarks $(BENCH)

bench-proxy: .venv/compiled
	$(BIN)/python -m benchmarks -part proxy $(BENCH)

# Faults on real processes, as long as asked: `make soak MINUTES=20`, and with SEED=7 the same again.
MINUTES ?= 20

soak: .venv/ready
	@PYTHONPATH=$(CURDIR)/tests exec $(BIN)/python -m soak \
		-minutes $(MINUTES) $(if $(SEED),-seed $(SEED))

# Every codec for so many minutes, or one: make fuzz MINUTES=10 TARGET=native
fuzz: .venv/fuzz
	PYTHONPATH=tests $(BIN)/python -m fuzz $(MINUTES) $(TARGET)

# A whole network on a fake clock: SEEDS=1000 (with JOBS=2), or SEED=17 to see one again.
simulate: .venv/ready
	PYTHONPATH=tests $(BIN)/python -m simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000) --jobs $(or $(JOBS),1))

# SECONDS_EACH is the most for each bug; MUTANTS="02 05" hunts only those.
fuzz-mutants: .venv/fuzz
	PYTHONPATH=tests $(BIN)/python -m fuzz.mutants --seconds $(or $(SECONDS_EACH),240) --jobs $(or $(JOBS),1) $(MUTANTS)

simulate-mutants: .venv/ready
	PYTHONPATH=tests $(BIN)/python -m simulation.mutants --seeds $(or $(SEEDS),500) --jobs $(or $(JOBS),1) $(MUTANTS)

# Write the generated parts of the reference pages: flags, SDK, metrics, log events.
reference: .venv/ready
	PYTHONPATH=tests $(BIN)/python -m support.docs_reference

# The documentation as a site in site/. A link to a page or a heading that does not exist is an
# error. So is a Kubernetes manifest that does not match the schema.
docs: .venv/docs/ready
	.venv/docs/bin/kubernetes-validate --quiet --strict docs/how-to/files/kubernetes.yaml
	.venv/docs/bin/zensical build --strict --clean

clean: pure
	rm -rf .venv site .cache .mypy_cache .pytest_cache .ruff_cache

# The site generator has an environment of its own: neither users nor tests install it.
.venv/docs/ready: docs/requirements.lock
	$(PYTHON) -m venv .venv/docs
	.venv/docs/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement docs/requirements.lock
	@touch $@

.venv/fuzz: .venv/ready tests/fuzz/requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement tests/fuzz/requirements.lock
	@touch $@

.venv/compiled: .venv/ready hatch_build.py $(shell find sdk relay proxy -name '*.py')
	$(BIN)/python hatch_build.py
	@touch $@

# The locks name every package with its hash, the build backend too: nothing else is installed.
.venv/ready: .venv/created pyproject.toml requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv/demo: .venv/created demo-httpserver/requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement demo-httpserver/requirements.lock
	@touch $@

.venv/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Arke needs Python 3.11 or later: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv .venv || { echo "python3 cannot make a virtual environment: apt install python3-venv" >&2; exit 1; }
	@touch $@
