"""Sampling from OpenAI-compatible endpoints, one or many, by completions with token ids as prompt: for evaluation and for training.

vLLM's server gives token ids back (`token_ids=True`). From a server that cannot, the text is encoded again, which need not give the
ids that were sampled: good enough to grade an answer and to ask again, useless as training data; log-probabilities are then left out.
Only vLLM's server can score given text or take weights: the field has no standard way to ask for it.

Rows go to the server that has the fewest under way. One that dies, hangs or answers with what is no answer is not asked again in this
call, in training not before the next push of weights, and its rows go to the others; the call fails when none is left. Weights carry a
version that only this run gives: what a server sampled counts only if the version was right before and after, so that one which was
started again, and serves the weights it came with, does not pass.
"""

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from posttrain.sampling.converse import Follow, Request, Said, singly
from posttrain.sampling.endpoint import Endpoint, ServerError
from posttrain.sampling.push import Pusher, Pushing, each
from posttrain.types import Completion, EngineError, Sampling, TokenIds

if TYPE_CHECKING:
    from openai.types import Completion as OpenAICompletion
    from openai.types import CompletionChoice
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


J = TypeVar("J")
A = TypeVar("A")
PLAIN = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}  # undoes what the folder's generation config sets
TOKENS_PER_REQUEST = 64  # what a request costs by itself, in tokens read: decides how a continuation is scored


class ServerEngine:
    """Asks the servers at `urls` (each ending in /v1) for `model`, `concurrency` rows at a time on each.

    Connection errors, time-outs, 429 and 5xx are tried again `retries` times with growing pauses; then, as for any other answer that is
    an error, `EngineError` says what the server said. A row fails after (retries + 1) * `timeout_s` at the latest. Constructing it asks
    the servers which models they have, and how long a context they take; `max_length` is for servers that do not say.
    """

    def __init__(
        self,
        urls: Sequence[str],
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
        pushing: Pushing | None = None,
    ) -> None:
        self.model, self.token_ids = model, token_ids
        self.tokenizer, self.eos_ids, self.concurrency = tokenizer, tuple(eos_ids), concurrency
        self.servers = [Endpoint(url, api_key, timeout_s, retries) for url in urls]
        self.cached_tokens = 0
        self._lock = threading.Lock()
        self.pusher = Pusher(self.servers, pushing) if pushing else None
        lengths: list[int] = []
        each(self.servers, lambda server: lengths.append(self._find_model(server, max_length)))
        self._live()
        self.max_length = min(lengths)

    def generate(self, prompts: Sequence[TokenIds], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """One completion per prompt, in order, all by the weights that were last pushed; a row that no server does ends the call."""
        return singly(self, prompts, sampling, seeds)

    def converse(self, requests: Sequence[Request], follow: Follow) -> list[Said]:
        """Rows that go on as `follow` says, each at once and where it began, as that server's prefix cache holds it.

        A row whose server fails begins again on another one.
        """
        self._check([request.prompt for request in requests])

        def row(server: Endpoint, job: tuple[int, Request]) -> Said:
            i, request = job
            said: Said = ()
            following: Request | None = request
            while following is not None:
                self._check([following.prompt])
                said = (*said, self._complete(server, following.prompt, following.sampling, following.seed))
                (following,) = follow([(i, said)])
            return said

        rows = self._each(row, list(enumerate(requests)))
        self.cached_tokens = sum(completion.num_cached or 0 for said in rows for completion in said)
        return rows

    def score(self, prompts: Sequence[TokenIds], continuations: Sequence[TokenIds]) -> list[tuple[float, ...]]:
        """Row i: log p of each token of continuation i after prompt i and the tokens before it, at temperature 1.

        vLLM's server has log-probabilities of a prompt only by reading all of it again, prefix cache or not. So a continuation that is
        short beside its prompt is asked for token by token, each behind a prompt that the cache serves.
        """
        self._check([(*prompt, *continuation) for prompt, continuation in zip(prompts, continuations, strict=True)])
        if not self.token_ids:
            raise EngineError("scoring needs a server of token ids (vLLM's); engine.token_ids is false here")
        jobs: list[tuple[TokenIds, TokenIds]] = []
        for prompt, ids in zip(prompts, continuations):
            singly = len(ids) * TOKENS_PER_REQUEST <= len(prompt)
            jobs += [((*prompt, *ids[:t]), ids[t : t + 1]) for t in range(len(ids))] if singly else [(prompt, ids)]
        answers = self._each(lambda at, job: self._next_logp(at, *job) if len(job[1]) == 1 else self._prompt_logps(at, *job), jobs)
        self.cached_tokens = sum(cached for _, cached in answers)
        logps = iter([logp for found, _ in answers for logp in found])
        return [tuple(next(logps) for _ in ids) for ids in continuations]

    def load_weights(self, weights: "Iterable[tuple[str, Tensor]]") -> None:
        """Have all servers take these weights, those that were down too. Raises `EngineError` where none does."""
        if self.pusher is None:
            raise EngineError("servers: these were opened for evaluation, and keep their weights")
        self.pusher.push(weights)
        self._live()

    def close(self) -> None:
        for server in self.servers:
            server.close()

    def _complete(self, server: Endpoint, prompt: TokenIds, sampling: Sampling, seed: int) -> Completion:
        answer = self._ask(
            server,
            lambda: server.client.completions.create(
                model=self.model,
                prompt=list(prompt),
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                top_p=1.0,
                seed=seed,
                stop=list(sampling.stop) or None,
                logprobs=0 if self.token_ids else None,
                extra_body=self._vllm_options() if self.token_ids else None,
            ),
        )
        choice = _only_choice(server, answer)
        if choice.finish_reason not in ("stop", "length"):
            raise ServerError(f"server {server.url}: a row ended with {choice.finish_reason!r}; expected stop or length")
        if not self.token_ids:
            ids = tuple(self.tokenizer(choice.text, add_special_tokens=False)["input_ids"])
            ended = self.eos_ids[:1] if choice.finish_reason == "stop" else ()
            ids = (*ids[: sampling.max_tokens - len(ended)], *ended)
            return Completion(ids=ids, logprobs=(), finish=choice.finish_reason, num_cached=_cached(answer))
        ids = _ids(server, choice, sampling)
        # The server's log-probabilities are of the plain softmax, whatever the temperature.
        logprobs = choice.logprobs.token_logprobs if choice.logprobs and sampling.temperature in (0.0, 1.0) else None
        if logprobs and not (len(logprobs) == len(ids) and all(isinstance(p, float) and math.isfinite(p) for p in logprobs)):
            raise ServerError(f"server {server.url}: log-probabilities {str(logprobs)[:200]} of {len(ids)} tokens; expected a number each")
        return Completion(ids=ids, logprobs=tuple(logprobs or ()), finish=choice.finish_reason, num_cached=_cached(answer))

    def _next_logp(self, server: Endpoint, prompt: TokenIds, ids: TokenIds) -> tuple[list[float], int]:
        """log p of one token after a prompt, and how many of the prompt's tokens were cached."""
        options = {"logprob_token_ids": list(ids), "return_tokens_as_token_ids": True}
        answer = self._ask(
            server,
            lambda: server.client.completions.create(
                model=self.model, prompt=list(prompt), max_tokens=1, temperature=1.0, top_p=1.0, logprobs=1, extra_body=options | PLAIN
            ),
        )
        given = _only_choice(server, answer).logprobs
        found = (given.top_logprobs or [{}])[0] if given else {}
        if f"token_id:{ids[0]}" not in found:
            raise ServerError(f"server {server.url}: it does not tell the log-probability of a given token; scoring needs vLLM's server")
        return [found[f"token_id:{ids[0]}"]], _cached(answer) or 0

    def _prompt_logps(self, server: Endpoint, prompt: TokenIds, ids: TokenIds) -> tuple[list[float], int]:
        """log p of each of `ids` after a prompt, from one reading of both."""
        if not ids:
            return [], 0
        row = [*prompt, *ids]
        answer = self._ask(
            server,
            lambda: server.client.completions.create(
                model=self.model, prompt=row, max_tokens=1, temperature=1.0, extra_body={"prompt_logprobs": 0}
            ),
        )
        found = (_only_choice(server, answer).model_extra or {}).get("prompt_logprobs")
        if not found:
            raise ServerError(f"server {server.url}: it gives no log-probabilities of a prompt; scoring needs vLLM's server")
        return [at[str(token)]["logprob"] for at, token in zip(found[len(prompt) :], ids, strict=True)], _cached(answer) or 0

    def _each(self, ask: Callable[[Endpoint, J], A], jobs: Sequence[J]) -> list[A]:
        """The answers to all jobs, in order, from servers with the right weights before and after; one that nobody answers ends all."""
        if self.pusher is None:
            for server in self.servers:
                server.down = ""
        else:
            each(self._live(), self.pusher.check)
        answers: dict[int, A] = {}
        with ThreadPoolExecutor(self.concurrency * len(self.servers)) as pool:
            while left := [i for i in range(len(jobs)) if i not in answers]:
                rows = [pool.submit(self._somewhere, ask, jobs[i]) for i in left]
                try:
                    made = [row.result() for row in rows]
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
                stale = self._stale({server for server, _ in made})
                answers.update((i, answer) for i, (server, answer) in zip(left, made) if server not in stale)
        return [answers[i] for i in range(len(jobs))]

    def _somewhere(self, ask: Callable[[Endpoint, J], A], job: J) -> tuple[Endpoint, A]:
        """The answer of the least busy server, or of the next one where that fails; raises `EngineError` when none is left."""
        while True:
            with self._lock:
                server = min(self._live(), key=lambda server: server.rows)
                server.rows += 1
            try:
                return server, ask(server, job)
            except ServerError as error:
                server.fail(error)
            finally:
                with self._lock:
                    server.rows -= 1

    def _live(self) -> list[Endpoint]:
        if live := [server for server in self.servers if not server.down]:
            return live
        raise EngineError("; ".join(server.down for server in self.servers))

    def _stale(self, servers: set[Endpoint]) -> set[Endpoint]:
        """Those that cannot show that they have the weights of the last push; a server may have been started again between two rows."""
        if self.pusher is None:
            return set()
        return set(each(list(servers), self.pusher.check))

    def _check(self, prompts: Sequence[TokenIds]) -> None:
        for i, prompt in enumerate(prompts):
            if not 0 < len(prompt) < self.max_length:
                raise EngineError(f"servers: prompt {i} has {len(prompt)} tokens; their context takes 1 to {self.max_length - 1}: not sent")

    def _vllm_options(self) -> dict[str, Any]:
        """Ask for ids, and stop at our eos ids alone."""
        return {"return_token_ids": True, "stop_token_ids": list(self.eos_ids), "ignore_eos": True} | PLAIN

    def _find_model(self, server: Endpoint, max_length: int | None) -> int:
        """The longest context of the model that is asked for, which must be there: what was given, or what the server says."""
        served = {model.id: model for model in server.ask(server.client.models.list).data}
        if self.model not in served:
            raise EngineError(f"server {server.url}: it has no model {self.model!r}; it serves {', '.join(served) or 'none'}")
        return max_length or (served[self.model].model_extra or {}).get("max_model_len") or 1 << 30

    def _ask(self, server: Endpoint, request: Callable[[], A]) -> A:
        return server.ask(request, impatient=lambda: any(other is not server and not other.down for other in self.servers))


def _only_choice(server: Endpoint, answer: "OpenAICompletion") -> "CompletionChoice":
    if not getattr(answer, "choices", None):
        raise ServerError(f"server {server.url}: not an answer: it holds no choice: {str(answer)[:200]}")
    return answer.choices[0]


def _ids(server: Endpoint, choice: "CompletionChoice", sampling: Sampling) -> TokenIds:
    given = (choice.model_extra or {}).get("token_ids")
    if given is None:
        raise ServerError(f"server {server.url}: it returned no token ids; set engine.token_ids to false to have its text encoded again")
    if not 0 < len(given) <= sampling.max_tokens or not all(isinstance(i, int) and i >= 0 for i in given):
        raise ServerError(f"server {server.url}: token ids {str(given)[:200]}; expected 1 to {sampling.max_tokens} ids")
    return tuple(given)


def _cached(answer: "OpenAICompletion") -> int | None:
    """Prompt tokens that the server's prefix cache served, if it tells (vLLM's: --enable-prompt-tokens-details)."""
    details = answer.usage.prompt_tokens_details if answer.usage else None
    return None if details is None else details.cached_tokens or 0
