"""One server at the other end of HTTP: asked with patience, and quoted when it fails. What is asked is the caller's (`server.py`)."""

import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from tqdm import tqdm

from posttrain.types import EngineError

A = TypeVar("A")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
QUICK_S = 20.0  # for what a healthy server answers at once, even while it samples


class ServerError(EngineError):
    """This server cannot be used; another one may do what it was asked. The message says which, and what it said."""


class Endpoint:
    """A server at `url` (ending in /v1). `down` is why it is not asked any more, empty while it is.

    `ask` tries again `retries` times, with growing pauses, after connection errors, time-outs, 429 and 5xx.
    """

    def __init__(self, url: str, api_key: str, timeout_s: float, retries: int) -> None:
        from openai import OpenAI

        self.url, self.timeout_s, self.retries = url, timeout_s, retries
        self.client = OpenAI(base_url=url, api_key=api_key, timeout=timeout_s, max_retries=0)
        self.down = ""
        self.rows = 0  # under way

    def ask(self, request: Callable[[], A], impatient: Callable[[], bool] = lambda: False) -> A:
        """The answer to `request`, a call of `client`. Raises `ServerError`, or `EngineError` where the request itself was wrong.

        Where the caller is `impatient`, as it has other servers, a time-out is the last try, and so is any once the server is down.
        """
        from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

        pause = FIRST_PAUSE_S
        for tried in range(1, self.retries + 2):
            try:
                return request()
            except APITimeoutError:
                failed, last = f"no answer within {self.timeout_s:g} s", impatient()
            except APIConnectionError as error:
                failed, last = f"cannot reach it ({error.__cause__ or error})", False
            except APIStatusError as error:
                said = f"{error.status_code}: {error.response.text[:2000].strip()}"
                if error.status_code not in (408, 409, 429) and error.status_code < 500:
                    raise EngineError(f"server {self.url}: {said}") from None
                failed, last = said, False
            except (APIError, ValueError) as error:  # it answered with something that is no answer
                raise ServerError(f"server {self.url}: not an answer: {str(error)[:500]}") from None
            if last or tried > self.retries or (self.down and impatient()):
                break
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        raise ServerError(f"server {self.url}: {failed}, tried {tried} time{'s' if tried > 1 else ''}")

    def control(self, path: str, body: dict[str, Any] | None = None, timeout_s: float = QUICK_S) -> Any:
        """The JSON that /PATH beside /v1 answers: a GET without `body`, else a POST. vLLM has these where VLLM_SERVER_DEV_MODE is 1."""
        import httpx

        url = f"{self.url.removesuffix('/').removesuffix('/v1')}/{path}"
        try:
            answer = httpx.get(url, timeout=timeout_s) if body is None else httpx.post(url, json=body, timeout=timeout_s)
        except httpx.TimeoutException:
            raise ServerError(f"server {self.url}: /{path}: no answer within {timeout_s:g} s") from None
        except httpx.HTTPError as error:
            raise ServerError(f"server {self.url}: /{path}: cannot reach it ({error})") from None
        if answer.status_code == 404:
            raise ServerError(f"server {self.url}: it has no /{path}: start it with VLLM_SERVER_DEV_MODE=1 in its environment")
        if answer.is_error:
            raise ServerError(f"server {self.url}: /{path}: {answer.status_code}: {answer.text[:2000].strip()}")
        return answer.json() if answer.content else None

    def fail(self, error: ServerError) -> None:
        """Out of use from here on; said once, as a run with other servers goes on."""
        if not self.down:
            self.down = str(error)
            tqdm.write(f"posttrain: {error}; it is out of use for now", file=sys.stderr)

    def close(self) -> None:
        self.client.close()
