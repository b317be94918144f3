"""Sampling with vLLM inside this process, beside the model that is trained: the fast engine, on a GPU and, for tests, on a CPU.

In-process (no engine process of vLLM's own), because weights are then pushed as tensors, without a copy through a file or a socket.
Read against vLLM 0.31. Three things differ on a CPU: linear weights are repacked after loading, so that a push must go through vLLM's
`reload_weights`; a seeded request must not be split by chunked prefill, as CPU generators cannot step back; float32 must be asked for.
"""

import os
import queue
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from posttrain.sampling.converse import Follow, Request, Said, singly
from posttrain.sampling.prefix import shared_prefixes
from posttrain.sampling.weights import checked, expected_weights
from posttrain.types import Completion, EngineError, Sampling, TokenIds

R = TypeVar("R")
TOKENS_PER_REQUEST = 512  # what a request costs by itself, in prompt tokens listed: decides how a continuation is scored
MOST_LOGITS = 256  # prompt tokens of one row whose log-probabilities are computed; what is before them is read without

# vLLM reads these when it is imported; what the user has set stays.
ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
CPU_ENVIRONMENT = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else it pins this process's threads, the trainer's with them
    "TORCHDYNAMO_DISABLE": "1",  # else the first log-probability waits 20 s for a compiler
}


class VLLMEngine:
    """A vLLM engine of its own for `model_folder` (or a hub id); constructing it loads the weights, which takes seconds to minutes.

    `eos_ids` are all ids that end a row; `text_stops` loads the folder's tokenizer too, which stops in text need. `timeout_s` bounds every
    call, the start included: a stuck engine is an `EngineError`, not a hang. After an error in vLLM the engine is refused (`EngineError`
    with the first text); close it and open another.
    """

    def __init__(
        self,
        model_folder: str,
        eos_ids: Sequence[int],
        *,
        dtype: str = "float32",
        max_model_len: int | None = None,
        gpu_memory_utilization: float = 0.4,
        kv_cache_gib: float = 1.0,
        enforce_eager: bool = False,
        text_stops: bool = False,
        timeout_s: float = 1800.0,
    ) -> None:
        self.on_cpu = not torch.cuda.is_available()
        self.eos_ids, self.timeout_s, self.cached_tokens = tuple(eos_ids), timeout_s, 0
        self.reads_cache = True  # False to measure what the prefix cache saves
        self._died = ""
        self._expected: dict[str, Tensor] = {}
        self._worker = _Worker()
        self._found_group = torch.distributed.is_initialized()
        options: dict[str, Any] = {
            "model": model_folder,
            "dtype": dtype,
            "max_model_len": max_model_len,
            "enable_prefix_caching": True,
            "skip_tokenizer_init": not text_stops,
            "generation_config": "vllm",  # not the folder's top-p and the like
            "logprobs_mode": "processed_logprobs",  # at the sampling temperature
            "enforce_eager": enforce_eager or self.on_cpu,
        }
        if self.on_cpu:
            options |= {"kv_cache_memory_bytes": int(kv_cache_gib * 2**30), "enable_chunked_prefill": False, "block_size": 32}
        else:
            options |= {"gpu_memory_utilization": gpu_memory_utilization}
        if self._found_group and torch.distributed.get_world_size() > 1:
            options |= {"distributed_executor_backend": "external_launcher"}  # one whole engine per rank of the trainer's group
        for name, value in (ENVIRONMENT | (CPU_ENVIRONMENT if self.on_cpu else {})).items():
            os.environ.setdefault(name, value)
        self._llm = self._call(lambda: _start(options), timeout_s)
        self.num_ids: int = self._llm.model_config.get_vocab_size()
        self.max_length: int = self._llm.model_config.max_model_len
        unknown = [i for i in eos_ids if not 0 <= i < self.num_ids]
        if unknown or not eos_ids:
            self.close()
            raise EngineError(f"vllm: eos ids {list(eos_ids)} for a model of {self.num_ids} ids: expected at least one, each below that")

    def generate(self, prompts: Sequence[TokenIds], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """One completion per prompt, in order; `cached_tokens` then says how many prompt tokens came from the prefix cache."""
        if len(prompts) != len(seeds):
            raise EngineError(f"vllm: {len(prompts)} prompts but {len(seeds)} seeds; expected one seed per prompt")
        return singly(self, prompts, sampling, seeds)

    def converse(self, requests: Sequence[Request], follow: Follow) -> list[Said]:
        """Rows that go on as `follow` says, each at the engine's next step after it ended (`sampling/converse.py`)."""
        self._check_requests(requests)
        if not requests:
            return []
        said = self._call(lambda: self._converse(requests, follow), self.timeout_s)
        if isinstance(said, Exception):
            raise said
        self.cached_tokens = sum(completion.num_cached or 0 for row in said for completion in row)
        return said

    def score(self, prompts: Sequence[TokenIds], continuations: Sequence[TokenIds]) -> list[tuple[float, ...]]:
        """Row i: log p of each token of continuation i after prompt i and the tokens before it, at temperature 1.

        vLLM reads such a request without its prefix cache, having no log-probabilities for cached tokens. Those of the prompt are not asked
        for, so the cache is allowed here: what is shared is put there first, by requests for one token and no more, and only the rest of
        each row is read with its log-probabilities. vLLM still makes a list of all the prompt's tokens for each row, so the tokens of a
        continuation that is short beside its prompt are asked for one by one; so are those of a row of which the cache held more than the
        prompt (a block may end where the prompt does).
        """
        from vllm import SamplingParams

        rows = [(*prompt, *continuation) for prompt, continuation in zip(prompts, continuations, strict=True)]
        self._check(prompts)
        self._check(rows)
        scored = [i for i, continuation in enumerate(continuations) if continuation]
        self._outputs(_to_cache([prompts[i] for i in scored]), SamplingParams(max_tokens=1, detokenize=False))
        params = SamplingParams(max_tokens=1, prompt_logprobs=0, skip_reading_prefix_cache=False, detokenize=False)
        whole = [i for i in scored if len(continuations[i]) * TOKENS_PER_REQUEST > len(prompts[i])]
        outputs = self._outputs([rows[i] for i in whole], params)
        self.cached_tokens = sum(min(output.num_cached_tokens or 0, len(prompts[i])) for i, output in zip(whole, outputs))
        found: dict[int, tuple[float, ...]] = dict.fromkeys(range(len(rows)), ())
        for i, output in zip(whole, outputs):
            start = len(prompts[i])
            if (output.num_cached_tokens or 0) < start:
                found[i] = tuple(at[token].logprob for at, token in zip(output.prompt_logprobs[start:], continuations[i], strict=True))
        unread = [i for i in scored if not found[i]]
        singles = iter(self._token_by_token([prompts[i] for i in unread], [continuations[i] for i in unread]))
        found.update((i, tuple(next(singles) for _ in continuations[i])) for i in unread)
        return [found[i] for i in range(len(rows))]

    def probe_logprobs(self, ids: TokenIds) -> list[float]:
        """log p(ids[i] | ids[:i]) at temperature 1 for i >= 1: what a pusher of weights compares with its own forward pass."""
        from vllm import SamplingParams

        self._check([ids])
        params = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
        (output,) = self._outputs([ids], params)
        return [at[token].logprob for at, token in zip(output.prompt_logprobs[1:], ids[1:], strict=True)]

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replace all weights, by checkpoint name, and forget every cached prefix. Raises `EngineError`; the engine is then refused."""
        if not self._expected:
            self._expected = expected_weights(self._llm.model_config.hf_text_config)
        pushed = checked(((name, tensor.detach()) for name, tensor in weights), self._expected, "vllm")
        self._call(lambda: self._push(pushed), self.timeout_s)

    def close(self) -> None:
        """Free the engine's memory. A process group that vLLM made goes too; one that was there before stays."""
        llm, self._llm, self._died = getattr(self, "_llm", None), None, self._died or "closed"
        if llm is None:
            return
        try:
            self._worker.call(lambda: _stop(llm, self._found_group), 60.0)
        except TimeoutError:  # a stuck call still runs: its thread is a daemon, and ends with the process
            return
        self._worker.stop()

    def _token_by_token(self, prompts: Sequence[TokenIds], continuations: Sequence[TokenIds]) -> list[float]:
        """log p of each token of each continuation, all in a row, as the next token after what stands before it."""
        from vllm import SamplingParams

        befores = [(*prompt, *ids[:t]) for prompt, ids in zip(prompts, continuations) for t in range(len(ids))]
        tokens = [token for ids in continuations for token in ids]
        params = [SamplingParams(max_tokens=1, logprob_token_ids=[token], detokenize=False) for token in tokens]
        outputs = self._outputs(befores, params)
        self.cached_tokens += sum(output.num_cached_tokens or 0 for output in outputs)
        return [output.outputs[0].logprobs[0][token].logprob for output, token in zip(outputs, tokens)]

    def _converse(self, requests: Sequence[Request], follow: Follow) -> list[Said] | Exception:
        """The loop of vLLM's own `generate`, but that what ended in a step may go on in the next one. Returns the caller's own error."""
        said: list[Said] = [() for _ in requests]
        row_of: dict[str, int] = {}  # of what is under way, by vLLM's name for it

        def ask(rows: Sequence[tuple[int, Request]]) -> None:
            prompts = [{"prompt_token_ids": list(request.prompt)} for _, request in rows]
            names = self._llm.enqueue(prompts, [self._params(request) for _, request in rows], use_tqdm=False)
            row_of.update((name.partition("-")[0], i) for name, (i, _) in zip(names, rows, strict=True))

        ask(list(enumerate(requests)))
        while self._llm.llm_engine.has_unfinished_requests():
            ended = []
            for output in self._llm.llm_engine.step():
                if output.finished:
                    i = row_of.pop(output.request_id)
                    said[i] = (*said[i], _completion(output.outputs[0], output.num_cached_tokens))
                    ended.append((i, said[i]))
            try:
                further = [(i, request) for (i, _), request in zip(ended, follow(ended), strict=True) if request] if ended else []
                self._check_requests([request for _, request in further])
            except Exception as error:  # not vLLM's: the engine can still be used
                self._llm.llm_engine.abort_request(list(row_of))
                return error
            if further:
                ask(further)
        return said

    def _params(self, request: Request) -> Any:
        from vllm import SamplingParams

        sampling = request.sampling
        return SamplingParams(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            seed=request.seed,
            logprobs=0,  # of the sampled token alone
            stop_token_ids=list(self.eos_ids),
            ignore_eos=True,  # the list above is complete
            stop=list(sampling.stop),
            detokenize=bool(sampling.stop),
            skip_reading_prefix_cache=not self.reads_cache,
        )

    def _outputs(self, prompts: Sequence[TokenIds], params: Any) -> list[Any]:
        rows = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        return self._call(lambda: self._llm.generate(rows, params, use_tqdm=False), self.timeout_s) if rows else []

    def _push(self, weights: Iterator[tuple[str, Tensor]]) -> None:
        if self.on_cpu:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
            self._llm.apply_model(repack_head)
        else:
            self._llm.apply_model(lambda model: model.load_weights(weights) and None)
        for _ in weights:  # a loader that stopped early must not hide what was never pushed
            pass
        if not self._llm.reset_prefix_cache():
            raise EngineError("vllm: the prefix cache could not be reset after a weight push: requests are still running")

    def _check_requests(self, requests: Sequence[Request]) -> None:
        self._check([request.prompt for request in requests])
        if any(request.sampling.stop for request in requests) and self._llm and self._llm.model_config.skip_tokenizer_init:
            raise EngineError("vllm: this engine was opened without a tokenizer, which text stops need; open it with text_stops")

    def _check(self, prompts: Sequence[TokenIds]) -> None:
        for i, prompt in enumerate(prompts):
            if not 0 < len(prompt) < self.max_length:
                raise EngineError(f"vllm: prompt {i} has {len(prompt)} tokens; expected 1 to {self.max_length - 1}: raise max_model_len?")
            if max(prompt) >= self.num_ids:
                raise EngineError(f"vllm: prompt {i} holds id {max(prompt)}, the model has {self.num_ids}: is this its tokenizer?")

    def _call(self, work: Callable[[], R], timeout_s: float) -> R:
        """`work` on the engine's thread; vLLM's own text in the `EngineError` if it raises."""
        if self._died:
            raise EngineError(f"vllm: this engine is gone, open another; it said: {self._died}")
        try:
            return self._worker.call(work, timeout_s)
        except TimeoutError:
            raise EngineError(
                f"vllm: no answer within {timeout_s:g} s; the engine may be stuck. Raise engine.timeout_s if it is slow"
            ) from None
        except Exception as error:
            self._died = " ".join(f"{type(error).__name__}: {error}".split())
            raise error if isinstance(error, EngineError) else EngineError(f"vllm: {self._died}") from error


class _Worker:
    """One daemon thread that all calls of an engine run on, so that a stuck call can be left behind, even at exit."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._run, name="vllm", daemon=True).start()

    def call(self, work: Callable[[], R], timeout_s: float) -> R:
        answer: queue.SimpleQueue = queue.SimpleQueue()
        self._jobs.put((work, answer))
        try:
            result, error = answer.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError from None
        if error is not None:
            raise error
        return result

    def stop(self) -> None:
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, answer = job
            try:
                answer.put((work(), None))
            except BaseException as error:  # handed to the caller, who raises it
                answer.put((None, error))


def _start(options: dict[str, Any]) -> Any:
    """The engine; what vLLM changes in its process, which is ours, is put back.

    It seeds every global generator, so that a resumed run would differ from an uninterrupted one, and on a CPU it replaces
    `torch.set_num_threads` by a function that does nothing.
    """
    from vllm import LLM

    python, numpy, set_num_threads = random.getstate(), np.random.get_state(), torch.set_num_threads
    with torch.random.fork_rng(), warnings.catch_warnings(), _hidden("llvmlite.binding.ffi"):
        warnings.simplefilter("ignore", FutureWarning)  # about vLLM's own use of torch
        llm = LLM(**options)
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_num_threads = set_num_threads
    return llm


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Keep a loaded module out of `sys.modules`: vLLM looks for its kernels among the objects of all modules, and trips over this one's."""
    module = sys.modules.pop(name, None)
    try:
        yield
    finally:
        if module is not None:
            sys.modules[name] = module


def _stop(llm: Any, keep_group: bool) -> None:
    """vLLM's own shutdown destroys the default process group; a group that was there before it is the trainer's and stays."""
    from vllm.distributed.parallel_state import destroy_model_parallel

    client = llm.llm_engine.engine_core
    if keep_group:
        client.engine_core.model_executor.shutdown()
        destroy_model_parallel()
    else:
        client.shutdown()


def repack_head(model: Any) -> None:
    """On a CPU the output head holds a packed copy of its weight, which a reload renews only if the head has a tensor of its own.

    A tied head has none: it would go on with the old policy's weight, and only a comparison of log-probabilities shows it.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for module in model.modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)


def _to_cache(prompts: Sequence[TokenIds]) -> list[TokenIds]:
    """What to read before rows are scored: each prefix that several share, and what a long prompt has to itself."""
    prefixes: list[TokenIds] = []
    for depth, alike in shared_prefixes(prompts):
        prefixes += [prompts[alike[0]][:depth]] if depth else []
        prefixes += [prompts[i] for i in alike if len(prompts[i]) - depth > MOST_LOGITS]
    return prefixes


def _completion(output: Any, num_cached: int | None) -> Completion:
    if output.finish_reason not in ("stop", "length"):
        raise EngineError(f"vllm: a row ended with {output.finish_reason!r}; expected stop or length")
    ids = tuple(output.token_ids)
    logprobs = tuple(at[token].logprob for at, token in zip(output.logprobs, ids, strict=True))
    return Completion(ids=ids, logprobs=logprobs, finish=output.finish_reason, num_cached=num_cached)
