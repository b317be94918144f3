#!/usr/bin/env bash
# What posttrain does on one GPU, in one command and under ten minutes: benchmarks/gpu.sh [--tiny] [--cpu] [--out FILE]
# Parity checks first, then steps of two-attempt RL on random Qwen2 models of 0.5B and 1.5B, and the trainer alone with LoRA.
# Needs an installation with '.[vllm]' for the fast engine; without it the hf engine samples, and the rollout line says so.
set -euo pipefail
cd "$(dirname "$0")/.."
export TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
exec "${PYTHON:-python}" evals/bench_gpu.py "$@"
