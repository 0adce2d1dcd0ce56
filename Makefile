# The same words everywhere: install, demo, test, lint. All of them set up .venv first.
PYTHON ?= python3
VENV := .venv
RUN := OMP_WAIT_POLICY=PASSIVE $(VENV)/bin/python

.PHONY: help install demo bench chaos load test test-long fuzz lint format clean
.DEFAULT_GOAL := help

help:
	@echo "make install  set up .venv with the programs and the embedded servers"
	@echo "make demo     train on a simulated line, stream it, inspect it, teach it (Ctrl-C ends it)"
	@echo "make bench    measure how the bank learns: make bench ARGS='drift --bundle demo/bundle --out out'"
	@echo "make chaos    kill everything, again and again, and count: make chaos ARGS='--database postgresql'"
	@echo "make load     send twice what can be inspected, under each policy of overload"
	@echo "make test     install what the tests need, then lint, type-check and test"
	@echo "make test-long  what takes longer: more of the same counts, and make chaos on both databases (under an hour)"
	@echo "make fuzz     feed 100 000 broken inputs to whatever reads from outside (ten minutes)"
	@echo "make lint     ruff and mypy --strict"
	@echo "make format   let ruff format the code"
	@echo "make clean    remove .venv and what demo and tests left"

# A stamp a purpose: users need no test tools.
$(VENV)/.local: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[local]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: $(VENV)/.local

demo: $(VENV)/.local
	$(RUN) -m deploy.local demo $(ARGS)

bench: $(VENV)/.local
	$(RUN) -m deploy.bench $(ARGS)

chaos: $(VENV)/.dev
	$(RUN) -m deploy.chaos storm $(ARGS)

load: $(VENV)/.dev
	$(RUN) -m deploy.chaos load $(ARGS)

# A file at a time on each core, and one thread for each: the tests of one file share what takes long to make. In
# order, so that the whole programs come first and the small tests fill up the end.
test: $(VENV)/.dev
	$(MAKE) --no-print-directory lint
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

# Larger counts of what the suite tries a few times, the tests that it leaves out, and the storm.
test-long: $(VENV)/.dev
	$(RUN) -m pytest -m long --numprocesses 2 --timeout 900 $(ARGS)
	GROUP_STARTS=60 GROUP_REBALANCES=30 STOPS=3 $(RUN) -m pytest -rP tests/faults/test_group.py tests/faults/test_stopping.py
	$(RUN) -m deploy.chaos storm
	$(RUN) -m deploy.chaos storm --database postgresql

# Inputs of each test, three times as many of images; the suite has twenty.
fuzz: $(VENV)/.dev
	FUZZ_EXAMPLES=5500 $(RUN) -m pytest tests/fuzz --quiet --timeout 900 $(ARGS)

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.dev
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

clean:
	rm -rf $(VENV) demo chaos .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
