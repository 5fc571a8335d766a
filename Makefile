# Each target is a thin line over the real tool. A fresh machine needs Python 3.11+ and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# What `make bench`, `make test-sims` and `make release` take, from the command line alone: a shell may have
# exported LINES, a terminal's height.
LINES :=
AGAINST :=
PAIRS :=
SIM :=
TESTS :=

.PHONY: train quick test test-slow test-versions test-sims test-ray test-gpu lint format prove solve bench bench-gpu \
	docs release clean

train: $(STAMP)  ## train CartPole until it is solved
	$(BIN)/rlstack train cartpole --seed 0

# The formulas, the learner and buffer, policies, contracts, fixed-seed runs and the rules between packages.
QUICK := tests/models tests/ppo tests/env/test_envs.py tests/policies/test_policies.py tests/policies/test_moments.py \
	tests/runs/test_checkpoint.py $(patsubst %,tests/test_%.py,packages repository golden hparams specs conditions \
	schedulers distributions)

quick: $(STAMP)  ## what most mistakes show in, within a minute, while one works
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q -x -m "not slow and not gpu" $(QUICK)

test: $(STAMP)  ## the whole test suite, in a few minutes on two cores
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow and not gpu"

test-slow: $(STAMP)  ## the documented uses at their default sizes, about ten minutes
	$(BIN)/python -m pytest -q -m slow

test-versions: $(STAMP)  ## the core of the tests on other Pythons, and with the newest tensordict and torchrl
	$(BIN)/python tests/versions.py

test-sims:  ## the tests of a simulator, SIM=gymnasium for one, in an environment of its own
	$(PYTHON) tests/sims/run.py $(SIM)

test-ray:  ## the examples on Ray Train and Ray Tune, in an environment of its own
	$(PYTHON) tests/sims/run.py ray

test-gpu: $(STAMP)  ## the tests that need a CUDA device
	$(BIN)/python -m pytest -q -m gpu

lint: $(STAMP)  ## what each commit must pass; .pre-commit-config.yaml runs this
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell -L boddy,levle,metrix,plase,reacher,recurent,retruns,serch,trals,valu src tests proofs docs benchmarks examples README.md CHANGELOG.md CONTRIBUTING.md

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

prove: $(STAMP)  ## show that what is promised of runs holds, in about 40 minutes
	$(BIN)/python -m proofs --write

solve: $(STAMP)  ## train the recipes and judge them in Gymnasium's own environments
	$(BIN)/python benchmarks/solve.py

bench: $(STAMP)  ## transitions per second beside seven other libraries, resumable, about two hours in all;
# LINES="full small": these alone. AGAINST=REVISION: beside an earlier rlstack, in PAIRS=15 pairs.
	$(BIN)/python benchmarks/$(if $(AGAINST),against.py '$(AGAINST)',throughput.py) \
		$(if $(LINES),--lines $(LINES)) $(if $(PAIRS),--pairs $(PAIRS)) --write

bench-gpu: $(STAMP)  ## whether the GPU path is right and how fast it is, in eight minutes
	$(BIN)/python benchmarks/gpu.py --write

release:  ## build wheel and source distribution and try both; uploads nothing. TESTS="...": these alone
	$(PYTHON) tests/release.py $(TESTS)
# The site is made from the source as text, so neither rlstack nor torch is installed for it.
DOCS_NEEDS := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])

docs: .venv-docs/.installed  ## the documentation, as a website in site/: python -m http.server -d site
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build -q

.venv-docs/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install -q -c constraints.txt $$($(PYTHON) -c '$(DOCS_NEEDS)')
	touch $@

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,viz]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) .venv-* .sims .release .mypy_cache .ruff_cache .pytest_cache .hypothesis dist site
