"""A many-shot prompt that nests: the K-shot prompt begins every larger one token by token, and the test item comes last.

    prefix_ids(K) = opening | shot 1 | shot 2 | ... | shot K            shared by all items, grows at its end only
    item_ids(p)   = [similar shots] | closing | item | reply            the rest; prompt = prefix_ids(K) + item_ids(p)

Each block is encoded on its own and the ids are joined. So nesting is a fact about lists, whatever the tokenizer would have merged across
two blocks; adding a shot costs that shot's tokens; and a prompt's length is known from running sums. The decoded ids are the text.

Layouts (arXiv 2404.11018): *solved* shots (few-shot, human, Reinforced) have an empty closing. *unsupervised* has (a) an announcement as
its opening, (b) a list of questions as its shots, (c) an instruction or a few solved shots as its closing, (d) the item. Shapes: `raw`
text; the same as `one_message` of a user; or `turns`, where each shot is a user's and an assistant's message. In a chat shape the
template's own text around messages is part of opening, shots and reply, so nesting holds in the same way; `in_chat` proves that the
joined text is what the template renders.
"""

import bisect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from posttrain.prompting.chat import ChatFormat, TemplateError
from posttrain.prompting.shots import Layout, PromptError, Shot
from posttrain.types import Message, Problem, TokenIds

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Kind: TypeAlias = Literal["zero_shot", "solved", "unsupervised"]
Shape: TypeAlias = Literal["raw", "one_message", "turns"]
Encode: TypeAlias = Callable[[str], TokenIds]
MARKS = ("0FIRST0", "0SECOND0", "0THIRD0", "0FOURTH0")  # stand for contents while a template's own text is read off


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """What stands around and between contents: nothing in raw text, the template's own text in a chat."""

    shape: Shape = "raw"
    opening: str = ""
    answer: str = ""
    """Between a shot's question and its answer, where they are two messages."""
    next: str = ""
    """Between a shot's answer and the next question, where they are two messages."""
    reply: str = ""
    start_ids: TokenIds = ()
    """Before everything: a begin-of-sequence id that the tokenizer puts before raw text."""


RAW = Frame()


@dataclass(frozen=True, kw_only=True)
class ManyShotPrompt:
    """All prompts of one list of shots, from none of them to all; made by `build`."""

    kind: Kind
    shots: tuple[Shot, ...]
    layout: Layout
    frame: Frame
    encode: Encode
    closing: str
    """Block (c) of an unsupervised prompt, the instruction of a zero-shot one; empty otherwise."""
    ids: TokenIds = field(repr=False)
    """Opening and all shots."""
    ends: tuple[int, ...] = field(repr=False)
    """ends[K] is the length of `prefix_ids(K)`."""
    questions: frozenset[str] = field(repr=False)
    """Of the shots, the solved ones of the closing included: none of them may be asked."""

    def prefix_ids(self, num_shots: int) -> TokenIds:
        """The first `num_shots` shots with what stands before them; begins every prefix of more shots. Raises `PromptError`."""
        return self.ids[: self.ends[len(self._first(num_shots))]]

    def item_ids(self, problem: Problem, similar: Sequence[Shot] = ()) -> TokenIds:
        """What follows the prefix: `similar` shots of this item, the closing, the item. Raises `PromptError` if the item is a shot."""
        self._check_apart(problem, similar)
        tail = (i for shot in similar for i in self.encode(written(shot, self.kind, self.layout, self.frame)))
        return (*tail, *self.encode(self.closing), *self.encode(self._asked(problem) + self.frame.reply))

    def answer_ids(self, problem: Problem, answer: str) -> TokenIds:
        """`answer` as it would follow the item. Raw items end before a space that belongs to the answer's first word."""
        label = self.layout.answer_label
        space = label[len(label.rstrip(" ")) :] if self.frame.shape == "raw" else ""
        before = self._asked(problem) + self.frame.reply
        item, whole = self.encode(before), self.encode(before + space + answer)
        return whole[len(item) :] if whole[: len(item)] == item else self.encode(space + answer)

    def permuted(self, places: Sequence[int]) -> "ManyShotPrompt":
        """The prompts of the shots at `places`, in that order; nothing is encoded again."""
        pieces = [self.ids[: self.ends[0]], *(self.ids[self.ends[i] : self.ends[i + 1]] for i in places)]
        return replace(
            self,
            shots=tuple(self.shots[i] for i in places),
            ids=tuple(itertools.chain.from_iterable(pieces)),
            ends=tuple(itertools.accumulate(map(len, pieces))),
        )

    def text(self, num_shots: int, problem: Problem, similar: Sequence[Shot] = ()) -> str:
        """The whole prompt as the model reads it, the template's own text included."""
        self._check_apart(problem, similar)
        shots = (*self._first(num_shots), *similar)
        body = "".join(written(shot, self.kind, self.layout, self.frame) for shot in shots)
        opening = self.frame.opening + _opening(self.kind, self.layout, self.frame.shape)
        return opening + body + self.closing + self._asked(problem) + self.frame.reply

    def messages(self, num_shots: int, problem: Problem, similar: Sequence[Shot] = ()) -> list[Message]:
        """The prompt as chat messages, for an engine that speaks messages only; raises `PromptError` for raw text."""
        if self.frame.shape == "raw":
            raise PromptError("a raw prompt has no messages; use shape one_message or turns")
        if self.frame.shape == "one_message":
            text = self.text(num_shots, problem, similar)
            return [Message(role="user", content=text[len(self.frame.opening) : len(text) - len(self.frame.reply)])]
        self._check_apart(problem, similar)
        said = [_turns(shot, self.layout) for shot in (*self._first(num_shots), *similar)]
        contents = [*itertools.chain.from_iterable(said), self.closing + self._asked(problem)]
        contents[0] = _opening(self.kind, self.layout, "turns") + contents[0]
        return [Message(role="assistant" if i % 2 else "user", content=content) for i, content in enumerate(contents)]

    def largest_K(self, budget: int, item_tokens: int = 0) -> int:
        """The most shots whose prompt, with an item and an answer of `item_tokens` together, is within `budget` tokens.

        Raises `PromptError` if that is not even one (where there are shots at all).
        """
        found = bisect.bisect_right(self.ends, budget - item_tokens) - 1
        if found < min(1, len(self.shots)):
            need = self.ends[min(1, len(self.shots))] + item_tokens
            raise PromptError(
                f"a budget of {budget} tokens is too small for one shot: the opening and the first shot take {need - item_tokens}, "
                f"item and answer {item_tokens}, together {need}"
            )
        return found

    def _asked(self, problem: Problem) -> str:
        return _asked(problem.question, self.layout, self.frame.shape)

    def _first(self, num_shots: int) -> tuple[Shot, ...]:
        if not 0 <= num_shots <= len(self.shots):
            raise PromptError(f"{num_shots} shots were asked for, but the pool has {len(self.shots)}")
        return self.shots[:num_shots]

    def _check_apart(self, problem: Problem, similar: Sequence[Shot]) -> None:
        if problem.question in self.questions or problem.question in {shot.question for shot in similar}:
            raise PromptError(f"the test item {problem.id!r} is one of the {len(self.shots) + len(similar)} shots; leave it out of them")


def build(
    shots: Sequence[Shot], layout: Layout, encode: Encode, *, kind: Kind = "solved", frame: Frame = RAW, solved: Sequence[Shot] = ()
) -> ManyShotPrompt:
    """The prompts of `shots` in this order, each encoded once.

    `solved` shots show how to answer in an unsupervised prompt, instead of the layout's instruction. `encode` must not add special tokens
    (`plain_encode` makes one); `frame` comes from `raw` or `in_chat`. Raises `PromptError`.
    """
    if kind != "zero_shot" and not shots:
        raise PromptError(f"a {kind} prompt needs shots, but the pool is empty")
    if kind == "zero_shot" and shots:
        raise PromptError(f"a zero-shot prompt takes no shots, found {len(shots)}")
    if kind == "unsupervised" and frame.shape == "turns":
        raise PromptError("an unsupervised prompt has no answers to stand in turns; use shape raw or one_message")
    if kind == "solved" and (bare := [shot.id for shot in shots if not shot.answer]):
        raise PromptError(f"{len(bare)} of {len(shots)} shots have no answer, e.g. {bare[0]!r}; a question alone is for kind unsupervised")
    opening = (*frame.start_ids, *encode(frame.opening + _opening(kind, layout, frame.shape)))
    pieces = [opening, *(encode(written(shot, kind, layout, frame)) for shot in shots)]
    return ManyShotPrompt(
        kind=kind,
        shots=tuple(shots),
        layout=layout,
        frame=frame,
        encode=encode,
        closing=_closing(kind, layout, frame.shape, solved),
        ids=tuple(itertools.chain.from_iterable(pieces)),
        ends=tuple(itertools.accumulate(map(len, pieces))),
        questions=frozenset(shot.question for shot in (*shots, *solved)),
    )


def plain_encode(tokenizer: "PreTrainedTokenizerBase") -> Encode:
    """Text to ids without special tokens, proven to join: ids of two parts decode to the two parts. Raises `TemplateError`."""

    def encode(text: str) -> TokenIds:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    def after_a_line(text: str) -> TokenIds:  # for a tokenizer that puts a space before whatever it is given
        before, both = encode("\n"), encode("\n" + text)
        return both[len(before) :]

    for each in (encode, after_a_line):
        joined = "".join(parts := ("1 + 1", "= 2. So", " it is"))
        if tokenizer.decode([i for part in parts for i in each(part)], clean_up_tokenization_spaces=False).lstrip() == joined:
            return each
    name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
    raise TemplateError(f"{name}: the tokenizer changes texts that are joined, so shots encoded one by one would not read as written")


def raw(tokenizer: "PreTrainedTokenizerBase") -> Frame:
    """Plain text, after the begin-of-sequence id if the tokenizer puts one."""
    first = tokenizer("x")["input_ids"][:1]
    return Frame(start_ids=tuple(first) if first == [tokenizer.bos_token_id] else ())


def in_chat(chat: ChatFormat, shape: Literal["one_message", "turns"]) -> Frame:
    """The template's own text around the messages; raises `TemplateError` if a message's place changes it."""
    first, second, third, fourth = MARKS
    if shape == "one_message":
        opening, _, reply = chat.render([Message(role="user", content=first)]).partition(first)
        return Frame(shape=shape, opening=opening, reply=reply)
    roles: tuple[Literal["user", "assistant"], ...] = ("user", "assistant", "user", "assistant", "user")
    told = [Message(role=role, content=mark) for role, mark in zip(roles, (first, second, third, fourth, first))]
    rest = chat.render(told[:3])
    parts = []
    for mark in MARKS[:3]:
        part, _, rest = rest.partition(mark)
        parts.append(part)
    opening, answer, following = parts
    expected = f"{opening}{first}{answer}{second}{following}{third}{answer}{fourth}{following}{first}{rest}"
    if chat.render(told) != expected:
        raise TemplateError(
            "the chat template writes later messages in another way than earlier ones, so shots as turns would not nest; "
            "use shape one_message or raw"
        )
    return Frame(shape=shape, opening=opening, answer=answer, next=following, reply=rest)


def _opening(kind: Kind, layout: Layout, shape: Shape) -> str:
    text = {"solved": layout.preamble, "unsupervised": layout.announce and layout.announce + layout.list_divider}.get(kind, "")
    return text if shape == "raw" else text.lstrip()


def _closing(kind: Kind, layout: Layout, shape: Shape, solved: Sequence[Shot]) -> str:
    if kind == "solved" or (kind == "zero_shot" and not layout.instruction):
        return ""
    if kind == "zero_shot":
        return layout.instruction + layout.list_divider
    frame = Frame(shape=shape)
    if not solved:
        return _rule(layout) + (layout.instruction + layout.list_divider if layout.instruction else "")
    return _rule(layout) + layout.demonstrate + layout.list_divider + "".join(written(shot, "solved", layout, frame) for shot in solved)


def _rule(layout: Layout) -> str:
    """The line between the list of questions and what follows, where the layout's divider draws one."""
    return layout.divider.lstrip("\n") if layout.divider.strip() else ""


def written(shot: Shot, kind: Kind, layout: Layout, frame: Frame) -> str:
    """A shot as it stands in a prompt of this kind, with what divides it from the next."""
    if kind == "unsupervised":
        return f"{layout.question_label}{shot.question}{layout.list_divider}"
    if frame.shape == "turns":
        question, answer = _turns(shot, layout)
        return f"{question}{frame.answer}{answer}{frame.next}"
    return f"{layout.question_label}{shot.question}{layout.answer_label}{shot.answer}{layout.divider}"


def _asked(question: str, layout: Layout, shape: Shape) -> str:
    """The item, up to where the answer begins. A space at its end is left to the answer, whose first token it is part of."""
    if shape == "turns":
        return _question(question, layout)
    text = f"{layout.question_label}{question}{layout.answer_label}"
    return text.rstrip(" ") if shape == "raw" else text.rstrip()


def _turns(shot: Shot, layout: Layout) -> tuple[str, str]:
    return _question(shot.question, layout), shot.answer.strip()


def _question(question: str, layout: Layout) -> str:
    return f"{layout.question_label}{question}".strip()
