# `make demo` and `make test` are all that is needed; both set up a private .venv first.

PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 4  # processes that run tests; most tests wait more than they compute

.PHONY: demo test test-pure check compiled pure bench bench-proxy simulate simulate-mutants soak fuzz docs reference clean

demo: .venv/ready
	@exec $(BIN)/python demo-httpserver/demo.py $(DEMO)

# Two runs: tests in parallel by file, then those that measure memory, time or descriptors.
# Exit status 5 says that TESTS selects none of one kind.
test: .venv/compiled
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not alone" $(TESTS); parallel=$$?; \
	$(BIN)/python -m pytest -m alone $(TESTS); alone=$$?; \
	case $$parallel,$$alone in 0,0 | 0,5 | 5,0) ;; *) exit 1 ;; esac

check: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# The sources themselves: where there is no compiler they serve, only slower.
test-pure: .venv/ready pure
	$(BIN)/python -m pytest tests/unit tests/protocol tests/acceptance/proxy/test_http1.py

# Once more after each change; `make pure` goes back to running the sources themselves.
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

# The lock names every package with its hash, the build back end too: nothing else is installed.
.venv/ready: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Arke needs Python 3.11 or later: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv .venv || { echo "python3 cannot make a virtual environment: apt install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
