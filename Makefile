# Two targets do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The processor build of PyTorch, from its own index: PyPI's brings gigabytes for a GPU. Set TORCH= to keep your own; an
# index that cannot be reached is left out.
TORCH ?= torch==2.13.0
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: test-browser test-campaign test-notebooks test-trackio bench smoke-train demo test quick check lint types format docs site pictures renew lock clean test-recipe test-wheel test-lowest

demo: $(VENV)/.ready
	$(BIN)/triptych demo

test: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not browser and not campaign and not notebooks"

# Two minutes on two free cores: the linter, and of every package the files that take seconds (measured in processor time).
QUICK := tests/test_architecture.py tests/test_budget.py tests/test_explain.py tests/test_packaging.py \
    tests/test_passages.py tests/test_types.py tests/scores tests/demo tests/readers tests/eval \
    $(addprefix tests/data_train/test_,ahead.py collate.py sampling.py smoke_data.py) \
    $(addprefix tests/encode/test_,arguments.py encoder.py engine.py late.py mcls.py stream.py) \
    $(addprefix tests/index/test_,exact.py filters.py input.py layout.py pages_and_groups.py) \
    $(addprefix tests/model/test_,backbone.py inference.py layouts.py native.py rowquant.py) \
    $(addprefix tests/train/test_,losses.py objective.py recipe.py) \
    $(addprefix tests/cli/test_,command.py data.py options.py) tests/serve/test_guard.py tests/tools/test_check.py

quick: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow" $(QUICK)

# The search page in Chromium, which has to be installed (two minutes); and many rounds of killed servers (minutes).
test-browser: $(VENV)/.ready
	$(BIN)/python -m pytest -m browser

test-campaign: $(VENV)/.ready
	$(BIN)/python -m pytest -m campaign

# Runs the notebooks and compares their outputs; `python scripts/make_notebooks.py` writes them anew.
test-notebooks: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m notebooks

# Trackio against its offline mode. It is no part of the environment, which has a newer pillow than it allows.
test-trackio: $(VENV)/.ready
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target build/trackio --no-deps trackio gradio-client brotli
	PYTHONPATH=build/trackio $(BIN)/python -m pytest tests/train/test_trackers.py -k trackio

# How the bundled model was made: frozen, and no part of `make check`.
test-recipe: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest recipes/small/tests

# The built wheel in an environment of its own, with the newest and with the lowest allowed versions.
test-wheel:
	PYTHON=$(PYTHON) TORCH="$(TORCH)" scripts/check_install.sh wheel

test-lowest:
	PYTHON=$(PYTHON) TORCH="$(TORCH)" scripts/check_install.sh lowest

# Everything that has to hold before a change goes in: what CI runs.
check: lint types site test

# A minute of training on two cores, and nDCG@10 of each head before and after (about three minutes in all); RUN= is
# where it goes.
RUN ?= build/smoke-train
smoke-train: $(VENV)/.ready
	rm -rf $(RUN)
	$(BIN)/triptych train smoke --output $(RUN)

# Encoding beside FlagEmbedding and sentence-transformers, in turns; SHAPE=m3 is BGE-M3's (4 GB of memory, an hour).
SHAPE ?= small
bench: $(VENV)/.ready
	$(BIN)/python benchmarks/encode.py --shape $(SHAPE)
	$(BIN)/python scripts/make_performance_docs.py

lint: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.ready
	$(BIN)/pyright

format: $(VENV)/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The site in build/site; warnings are errors. REPOSITORY_URL is where links to files outside docs/ lead.
site: $(VENV)/.ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs: $(VENV)/.ready
	$(BIN)/python scripts/make_cli_docs.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

pictures: $(VENV)/.ready
	$(BIN)/python docs/pictures.py

# All that is made of the bundled model and its results: after a change of either (CONTRIBUTING.md says what else).
renew: $(VENV)/.ready
	$(BIN)/python scripts/make_evaluation_docs.py
	$(BIN)/python docs/pictures.py
	$(BIN)/python scripts/make_notebooks.py

lock:
	$(BIN)/uv lock

# The locked versions of everything but torch, which has its own line: the lock would give its GPU build.
$(VENV)/.ready: pyproject.toml uv.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(if $(TORCH),$(BIN)/python -m pip install --quiet --retries 0 --no-compile --extra-index-url $(TORCH_INDEX) $(TORCH))
	$(BIN)/uv export --quiet --frozen --no-hashes --no-emit-project --prune torch --output-file $(VENV)/requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --requirement $(VENV)/requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
