"""What a vLLM server needs to take weights from a folder, in all its workers:

    python -m vllm.entrypoints.openai.api_server ... --worker-extension-cls posttrain.sampling.pushed.PushedWeights

vLLM mixes the class into its workers; `posttrain` must be importable there. Read against vLLM 0.31.
"""

from typing import Any


class PushedWeights:
    """Methods of a worker, called over /collective_rpc."""

    model_runner: Any  # the worker's own

    def take_weights(self, folder: str) -> None:
        """Replace all weights by those in `folder`, on a CPU the packed copy of a tied head with them (`vllm.py` says why)."""
        import torch

        from posttrain.sampling.vllm import repack_head

        self.model_runner.reload_weights(weights_path=folder)
        if not torch.cuda.is_available():
            repack_head(self.model_runner.get_model())
