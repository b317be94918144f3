"""Sampling from any OpenAI-compatible endpoint, by completions with token ids as prompt: for evaluation, never for training.

vLLM's server gives token ids back (`token_ids=True`). From a server that cannot, the text is encoded again, which need not give the
ids that were sampled: good enough to grade an answer and to ask again, useless as training data; log-probabilities are then left out.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn

from posttrain.types import Completion, EngineError, Sampling, TokenIds

if TYPE_CHECKING:
    from openai.types import CompletionChoice
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


class ServerEngine:
    """Asks `base_url` (ending in /v1) for `model`, `concurrency` rows at a time.

    Connection errors, time-outs, 429 and 5xx are tried again `retries` times with growing pauses; then, as for any other answer that is
    an error, `EngineError` says what the server said. A row fails after (retries + 1) * `timeout_s` at the latest. Constructing it asks
    the server which models it has.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        tokenizer: "PreTrainedTokenizerBase",
        eos_ids: Sequence[int],
        *,
        token_ids: bool = True,
        api_key: str = "none",
        concurrency: int = 16,
        timeout_s: float = 600.0,
        retries: int = 4,
    ) -> None:
        from openai import OpenAI

        self.base_url, self.model, self.token_ids = base_url, model, token_ids
        self.tokenizer, self.eos_ids, self.concurrency = tokenizer, tuple(eos_ids), concurrency
        self._client = OpenAI(base_url=base_url, api_key=api_key, timeout=timeout_s, max_retries=retries)
        self._check_model()

    def generate(self, prompts: Sequence[TokenIds], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """One completion per prompt, in order; the first row that fails ends the call."""
        with ThreadPoolExecutor(self.concurrency) as pool:
            rows = [pool.submit(self._complete, prompt, sampling, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
            try:
                return [row.result() for row in rows]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def load_weights(self, weights: "Iterable[tuple[str, Tensor]]") -> NoReturn:
        """Raises `EngineError`: the weights of a server are its own."""
        raise EngineError(
            f"server {self.base_url}: weights cannot be pushed to it, it is for evaluation only; train with engine.kind vllm or hf"
        )

    def close(self) -> None:
        self._client.close()

    def _complete(self, prompt: TokenIds, sampling: Sampling, seed: int) -> Completion:
        answer = self._ask(
            lambda: self._client.completions.create(
                model=self.model,
                prompt=list(prompt),
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                top_p=1.0,
                seed=seed,
                logprobs=0 if self.token_ids else None,
                extra_body=self._vllm_options() if self.token_ids else None,
            )
        )
        choice = answer.choices[0]
        if choice.finish_reason not in ("stop", "length"):
            raise EngineError(f"server {self.base_url}: a row ended with {choice.finish_reason!r}; expected stop or length")
        if not self.token_ids:
            ids = tuple(self.tokenizer(choice.text, add_special_tokens=False)["input_ids"])
            ended = self.eos_ids[:1] if choice.finish_reason == "stop" else ()
            return Completion(ids=(*ids[: sampling.max_tokens - len(ended)], *ended), logprobs=(), finish=choice.finish_reason)
        ids = self._ids(choice)
        # The server's log-probabilities are of the plain softmax, whatever the temperature.
        logprobs = choice.logprobs.token_logprobs if choice.logprobs and sampling.temperature in (0.0, 1.0) else None
        return Completion(ids=ids, logprobs=tuple(logprobs or ()), finish=choice.finish_reason)

    def _vllm_options(self) -> dict[str, Any]:
        """Ask for ids, stop at our eos ids, and undo whatever the folder's generation config sets."""
        plain = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
        return {"return_token_ids": True, "stop_token_ids": list(self.eos_ids), "ignore_eos": True, **plain}

    def _ids(self, choice: "CompletionChoice") -> TokenIds:
        given = (choice.model_extra or {}).get("token_ids")
        if given is None:
            raise EngineError(
                f"server {self.base_url}: it returned no token ids; set engine.token_ids to false to have its text encoded again"
            )
        return tuple(given)

    def _check_model(self) -> None:
        served = [model.id for model in self._ask(self._client.models.list).data]
        if self.model not in served:
            raise EngineError(f"server {self.base_url}: it has no model {self.model!r}; it serves {', '.join(served) or 'none'}")

    def _ask(self, request: Any) -> Any:
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        try:
            return request()
        except APITimeoutError:
            raise EngineError(f"server {self.base_url}: no answer within {self._client.timeout:g} s, {self._tried()}") from None
        except APIConnectionError as error:
            raise EngineError(f"server {self.base_url}: cannot reach it ({error.__cause__ or error}), {self._tried()}") from None
        except APIStatusError as error:
            raise EngineError(f"server {self.base_url}: {error.status_code}: {error.response.text[:2000].strip()}") from None

    def _tried(self) -> str:
        return f"tried {self._client.max_retries + 1} times"
