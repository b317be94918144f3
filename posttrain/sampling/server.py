"""Sampling from any OpenAI-compatible endpoint, by completions with token ids as prompt: for evaluation, never for training.

vLLM's server gives token ids back (`token_ids=True`). From a server that cannot, the text is encoded again, which need not give the
ids that were sampled: good enough to grade an answer and to ask again, useless as training data; log-probabilities are then left out.
Only vLLM's server can score given text: the field has no standard way to ask for it.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from posttrain.types import Completion, EngineError, Sampling, TokenIds

if TYPE_CHECKING:
    from openai.types import Completion as OpenAICompletion
    from openai.types import CompletionChoice
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


J, A = TypeVar("J"), TypeVar("A")
PLAIN = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}  # undoes what the folder's generation config sets
TOKENS_PER_REQUEST = 64  # what a request costs by itself, in tokens read: decides how a continuation is scored


class ServerEngine:
    """Asks `base_url` (ending in /v1) for `model`, `concurrency` rows at a time.

    Connection errors, time-outs, 429 and 5xx are tried again `retries` times with growing pauses; then, as for any other answer that is
    an error, `EngineError` says what the server said. A row fails after (retries + 1) * `timeout_s` at the latest. Constructing it asks
    the server which models it has, and how long a context it takes; `max_length` is for a server that does not say.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        tokenizer: "PreTrainedTokenizerBase",
        eos_ids: Sequence[int],
        *,
        token_ids: bool = True,
        max_length: int | None = None,
        api_key: str = "none",
        concurrency: int = 16,
        timeout_s: float = 600.0,
        retries: int = 4,
    ) -> None:
        from openai import OpenAI

        self.base_url, self.model, self.token_ids = base_url, model, token_ids
        self.tokenizer, self.eos_ids, self.concurrency = tokenizer, tuple(eos_ids), concurrency
        self._client = OpenAI(base_url=base_url, api_key=api_key, timeout=timeout_s, max_retries=retries)
        self.cached_tokens = 0
        self.max_length = self._find_model(max_length)

    def generate(self, prompts: Sequence[TokenIds], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """One completion per prompt, in order; the first row that fails ends the call."""
        self._check(prompts)
        completions = self._each(lambda row: self._complete(row[0], sampling, row[1]), list(zip(prompts, seeds, strict=True)))
        self.cached_tokens = sum(completion.num_cached or 0 for completion in completions)
        return completions

    def score(self, prompts: Sequence[TokenIds], continuations: Sequence[TokenIds]) -> list[tuple[float, ...]]:
        """Row i: log p of each token of continuation i after prompt i and the tokens before it, at temperature 1.

        vLLM's server has log-probabilities of a prompt only by reading all of it again, prefix cache or not. So a continuation that is
        short beside its prompt is asked for token by token, each behind a prompt that the cache serves.
        """
        self._check([(*prompt, *continuation) for prompt, continuation in zip(prompts, continuations, strict=True)])
        if not self.token_ids:
            raise EngineError(f"server {self.base_url}: scoring needs a server of token ids (vLLM's); engine.token_ids is false here")
        jobs: list[tuple[TokenIds, TokenIds]] = []
        for prompt, ids in zip(prompts, continuations):
            singly = len(ids) * TOKENS_PER_REQUEST <= len(prompt)
            jobs += [((*prompt, *ids[:t]), ids[t : t + 1]) for t in range(len(ids))] if singly else [(prompt, ids)]
        answers = self._each(lambda job: self._next_logp(*job) if len(job[1]) == 1 else self._prompt_logps(*job), jobs)
        self.cached_tokens = sum(cached for _, cached in answers)
        logps = iter([logp for found, _ in answers for logp in found])
        return [tuple(next(logps) for _ in ids) for ids in continuations]

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
                stop=list(sampling.stop) or None,
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
            ids = (*ids[: sampling.max_tokens - len(ended)], *ended)
            return Completion(ids=ids, logprobs=(), finish=choice.finish_reason, num_cached=_cached(answer))
        ids = self._ids(choice)
        # The server's log-probabilities are of the plain softmax, whatever the temperature.
        logprobs = choice.logprobs.token_logprobs if choice.logprobs and sampling.temperature in (0.0, 1.0) else None
        return Completion(ids=ids, logprobs=tuple(logprobs or ()), finish=choice.finish_reason, num_cached=_cached(answer))

    def _next_logp(self, prompt: TokenIds, ids: TokenIds) -> tuple[list[float], int]:
        """log p of one token after a prompt, and how many of the prompt's tokens were cached."""
        options = {"logprob_token_ids": list(ids), "return_tokens_as_token_ids": True}
        answer = self._ask(
            lambda: self._client.completions.create(
                model=self.model, prompt=list(prompt), max_tokens=1, temperature=1.0, top_p=1.0, logprobs=1, extra_body=options | PLAIN
            )
        )
        given = answer.choices[0].logprobs
        found = (given.top_logprobs or [{}])[0] if given else {}
        if f"token_id:{ids[0]}" not in found:
            raise EngineError(f"server {self.base_url}: it does not tell the log-probability of a given token; scoring needs vLLM's server")
        return [found[f"token_id:{ids[0]}"]], _cached(answer) or 0

    def _prompt_logps(self, prompt: TokenIds, ids: TokenIds) -> tuple[list[float], int]:
        """log p of each of `ids` after a prompt, from one reading of both."""
        if not ids:
            return [], 0
        row = [*prompt, *ids]
        answer = self._ask(
            lambda: self._client.completions.create(
                model=self.model, prompt=row, max_tokens=1, temperature=1.0, extra_body={"prompt_logprobs": 0}
            )
        )
        found = (answer.choices[0].model_extra or {}).get("prompt_logprobs")
        if not found:
            raise EngineError(f"server {self.base_url}: it gives no log-probabilities of a prompt; scoring needs vLLM's server")
        return [at[str(token)]["logprob"] for at, token in zip(found[len(prompt) :], ids, strict=True)], _cached(answer) or 0

    def _each(self, ask: Callable[[J], A], jobs: Sequence[J]) -> list[A]:
        """The answers to all jobs, in order, `concurrency` at a time; the first that fails ends them all."""
        with ThreadPoolExecutor(self.concurrency) as pool:
            rows = [pool.submit(ask, job) for job in jobs]
            try:
                return [row.result() for row in rows]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _check(self, prompts: Sequence[TokenIds]) -> None:
        for i, prompt in enumerate(prompts):
            if not 0 < len(prompt) < self.max_length:
                raise EngineError(
                    f"server {self.base_url}: prompt {i} has {len(prompt)} tokens; its context takes 1 to {self.max_length - 1}: not sent"
                )

    def _vllm_options(self) -> dict[str, Any]:
        """Ask for ids, and stop at our eos ids alone."""
        return {"return_token_ids": True, "stop_token_ids": list(self.eos_ids), "ignore_eos": True} | PLAIN

    def _ids(self, choice: "CompletionChoice") -> TokenIds:
        given = (choice.model_extra or {}).get("token_ids")
        if given is None:
            raise EngineError(
                f"server {self.base_url}: it returned no token ids; set engine.token_ids to false to have its text encoded again"
            )
        return tuple(given)

    def _find_model(self, max_length: int | None) -> int:
        """The longest context of the model that is asked for, which must be there: what was given, or what the server says."""
        served = {model.id: model for model in self._ask(self._client.models.list).data}
        if self.model not in served:
            raise EngineError(f"server {self.base_url}: it has no model {self.model!r}; it serves {', '.join(served) or 'none'}")
        return max_length or (served[self.model].model_extra or {}).get("max_model_len") or 1 << 30

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


def _cached(answer: "OpenAICompletion") -> int | None:
    """Prompt tokens that the server's prefix cache served, if it tells (vLLM's: --enable-prompt-tokens-details)."""
    details = answer.usage.prompt_tokens_details if answer.usage else None
    return None if details is None else details.cached_tokens or 0
