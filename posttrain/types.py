"""The records everything else passes around. Read this first, then `rl/score.py`.

A `Problem` is asked of a model; each answer is a `Turn`; the K turns about one problem are an `Episode`. Text is for graders and
readers; the model side speaks token ids only, so that what was sampled is exactly what is trained on.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

TokenIds: TypeAlias = tuple[int, ...]
VerdictStatus: TypeAlias = Literal["correct", "wrong", "no_answer", "timeout", "limit", "crash", "gold_unparsable", "unscored"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FinalAnswer:
    """A reference that is one expression, as in MATH or GSM8K."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitTests:
    """A reference that is a test program calling `entry_point`, as in HumanEval or MBPP.

    `prompt` is the part of the program that the problem gives: what a bare completion continues, with the helpers that tests may use.
    """

    entry_point: str
    code: str
    prompt: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One question with its reference; `id` is unique within a data set, `level` and `subject` are for break-downs only.

    `solution` is a person's worked answer where the data set has one: shots are made from it, graders never see it.
    """

    id: str
    question: str
    reference: FinalAnswer | UnitTests
    level: str = ""
    subject: str = ""
    solution: str = ""

    @property
    def final_answer(self) -> str:
        """The reference where it is an expression or a text; raises `TypeError` where it is a test program."""
        if not isinstance(self.reference, FinalAnswer):
            raise TypeError(f"problem {self.id}: expected a FinalAnswer, found {type(self.reference).__name__}")
        return self.reference.text


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How tokens are drawn: from the full softmax at `temperature`; 0 is greedy. There is no top-p: it would bias the gradient.

    A row also ends with the token that completes one of the texts in `stop`, which is kept in its ids: a prompt in plain text has no
    end-of-turn id. What stands before the stop is for the reader of the text to take (`before_stop` in prompting/stop.py).
    `continued` says that the next call goes on from these rows, so that an engine may keep what it computed for them until then.
    """

    max_tokens: int
    temperature: float = 1.0
    stop: tuple[str, ...] = ()
    continued: bool = False

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}")
        if self.temperature < 0:
            raise ValueError(f"temperature must be >= 0, got {self.temperature}")
        if "" in self.stop:
            raise ValueError("a stop must be a text of at least one character, got ''")


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """Sampled tokens, the end-of-sequence id or the stop's tokens included when `finish` is "stop".

    `logprobs[i]` is the log-probability of `ids[i]` under the distribution it was drawn from (softmax of logits / temperature); under
    greedy decoding, of the plain softmax. It is `()` where an engine cannot tell. `num_cached` counts the prompt tokens whose keys and
    values were not computed again, None where an engine cannot tell.
    """

    ids: TokenIds
    logprobs: tuple[float, ...]
    finish: Literal["stop", "length"]
    num_cached: int | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a grader says of one answer, by which rule, and as what it read both sides.

    `unscored` is the grader's own failure and `gold_unparsable` the data's; neither is the model's, so they carry no reward. `timeout`
    (CPU time, met twice) and `limit` (size, depth) are the answer's: who writes what cannot be checked has not answered.
    """

    status: VerdictStatus
    why: str = ""
    rule: str = ""
    gold_form: str = ""
    pred_form: str = ""

    @property
    def correct(self) -> bool:
        return self.status == "correct"

    @property
    def scored(self) -> bool:
        return self.status not in ("unscored", "gold_unparsable")


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One attempt: what the model was shown (all of it, earlier attempts included), what it wrote, and how that was graded."""

    prompt_ids: TokenIds
    completion: Completion
    text: str
    answer: str | None
    verdict: Verdict
    given: bool = False
    """Not sampled by the model, but put before it, or an earlier attempt that it kept: never trained on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Episode:
    """The attempts at one problem by one policy, in order. `sample` counts the episodes of a problem; never edited, used once."""

    problem: Problem
    turns: tuple[Turn, ...]
    sample: int = 0
    policy_step: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A data set with the way it is asked, revised and graded.

    `grade` takes many (problem, text) pairs at once so that a grader may work in parallel, and is total on model text: whatever the model
    wrote, it returns a verdict and does not raise. `answer` reads the final answer out of a text for comparing two attempts, None where
    there is none.
    """

    name: str
    load: Callable[[str], list[Problem]]
    """Split name -> problems; raises `DataError` with file and line on malformed data."""
    ask: Callable[[Problem], list[Message]]
    revise: str
    """The self-correction instruction p of arXiv 2409.12917: says that an error may exist, never whether one does."""
    grade: Callable[[Sequence[tuple[Problem, str]]], list[Verdict]]
    answer: Callable[[str], str | None]
    verify: str = ""
    """The instruction to judge the attempt above; empty where a task is never verified."""
    verdicts: tuple[str, str] = ("right", "wrong")
    """With which last word a judgement calls the attempt right or wrong."""
    source: str = ""
    """The text of the user's file that defines it. It is kept with what was made by it, which is not gone on with under another."""


class Engine(Protocol):
    """Something that continues token ids. Row i of the result depends on prompt i and `seeds[i]` alone, however rows are batched."""

    max_length: int
    """Longest prompt plus completion, in tokens. A prompt that leaves no room is refused (`EngineError`) before anything is read."""

    def generate(self, prompts: Sequence[TokenIds], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]: ...

    def load_weights(self, weights: Iterable[tuple[str, "Tensor"]]) -> None:
        """Replace the model's weights, all of them, named as in the checkpoint. Raises `EngineError` where the engine cannot."""
        ...

    def close(self) -> None: ...


class Scorer(Protocol):
    """An engine that also tells how likely given text is. What prompts begin with in common is read once."""

    cached_tokens: int
    """Prompt tokens of the last call, of this or of `generate`, that were not computed again; those an engine cannot tell count 0."""

    def score(self, prompts: Sequence[TokenIds], continuations: Sequence[TokenIds]) -> list[tuple[float, ...]]:
        """Row i: log p of each token of continuation i after prompt i and the tokens before it, at temperature 1."""
        ...


class EngineError(RuntimeError):
    """An engine died, hung or refused; the message holds what it said."""

    exit_code: ClassVar[int] = 1


class DataError(ValueError):
    """A data file is missing or malformed; the message names file and line."""

    exit_code: ClassVar[int] = 2
