from collections.abc import Callable

from posttrain.prompting.chat import ChatFormat
from posttrain.sampling.scripted import ScriptedEngine
from posttrain.types import TokenIds


class Recorder(ScriptedEngine):
    """A scripted engine that writes `answer(prompt, seed)` and remembers what it was asked."""

    def __init__(self, chat: ChatFormat, answer: Callable[[TokenIds, int], str]) -> None:
        super().__init__(lambda prompt, seed: (*chat.encode(answer(prompt, seed)), chat.eos_ids[0]))
        self.calls: list[tuple[list[TokenIds], list[int]]] = []

    def generate(self, prompts, sampling, seeds):
        self.calls.append((list(prompts), list(seeds)))
        return super().generate(prompts, sampling, seeds)
