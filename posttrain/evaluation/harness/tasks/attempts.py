"""Our tasks for lm-evaluation-harness: its models, our problems, prompts, instruction and grader.

    T=$(posttrain import --tasks)
    lm_eval --model hf --model_args pretrained=M --include_path $T --tasks posttrain_first --apply_chat_template \\
        --metadata '{"suite": "evals/suites/math500_two_attempts.yaml"}' --log_samples --output_path OUT
    lm_eval --model hf --model_args pretrained=M --include_path $T --tasks posttrain_second --apply_chat_template \\
        --metadata '{"suite": "evals/suites/math500_two_attempts.yaml", "first": "OUT/M/samples_posttrain_first_TIME.jsonl"}' ...

lm-eval asks a model once per task, so the second attempt is a task of its own that reads the first one's samples. Its prompt is rendered
as text from the conversation; `posttrain eval` goes on from the very tokens. Where a model's tokens are not what its text would be encoded
to, the two prompts differ.
"""

from pathlib import Path
from typing import Any

from datasets import Dataset
from lm_eval.api.metrics import mean
from lm_eval.api.task import ConfigurableTask

from posttrain.config import load
from posttrain.evaluation.harness.read import episodes_of
from posttrain.evaluation.suite import Suite
from posttrain.prompting.raw import RawFormat
from posttrain.tasks import make_task
from posttrain.types import Message, Verdict


class FirstAttempt(ConfigurableTask):
    """The problems of a suite, asked once. `metadata` names the suite file, and may hold `flags`, words as on its command line."""

    def __init__(self, config: dict[str, Any]) -> None:
        given = config.get("metadata") or {}
        if "suite" not in given:
            raise ValueError("""name a suite file: --metadata '{"suite": "evals/suites/math500_two_attempts.yaml"}'""")
        suite = load(Suite, [given["suite"]], given.get("flags", ()))
        self.task, self.gap = make_task(suite.task), getattr(suite.prompt, "gap", RawFormat.gap)
        self.problems = {problem.id: problem for problem in self.task.load(suite.split)[: suite.limit]}
        self.first = _first(given, list(self.problems)) if self.attempt == 2 else {}
        stops = list(getattr(suite.prompt, "stop", ()))
        how = {"max_gen_toks": suite.sampling.max_tokens, "temperature": suite.sampling.temperature, "until": stops}
        how["do_sample"] = suite.sampling.temperature > 0
        super().__init__(config={key: value for key, value in config.items() if key != "class"} | {"generation_kwargs": how})

    attempt = 1

    def download(self, dataset_kwargs: Any = None, **_: Any) -> None:
        docs = [{"id": p.id, "question": p.question, "level": p.level, "subject": p.subject} for p in self.problems.values()]
        earlier = [{"first_attempt": self.first[doc["id"]]} if self.attempt == 2 else {} for doc in docs]
        self.dataset = {"test": Dataset.from_list([doc | before for doc, before in zip(docs, earlier)])}

    def messages(self, doc: dict[str, Any]) -> list[Message]:
        return self.task.ask(self.problems[doc["id"]])

    def fewshot_context(self, doc: dict[str, Any], num_fewshot: int = 0, chat_template: Any = None, **_: Any) -> str:
        """The prompt as `posttrain eval` renders it: by the chat template, or without one as plain text."""
        messages = self.messages(doc)
        if chat_template is None:
            return self.gap.join(message.content for message in messages) + self.gap
        return chat_template([{"role": m.role, "content": m.content} for m in messages], add_generation_prompt=True)

    def doc_to_text(self, doc: dict[str, Any], *_: Any) -> str:
        return self.messages(doc)[-1].content

    def doc_to_target(self, doc: dict[str, Any], *_: Any) -> str:
        reference = self.problems[doc["id"]].reference
        return str(getattr(reference, "text", None) or getattr(reference, "code", ""))

    def process_results(self, doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
        return {"acc": float(self._verdict(doc, results[0]).correct)}

    def aggregation(self) -> dict[str, Any]:
        return {name: mean for name in self.higher_is_better()}

    def higher_is_better(self) -> dict[str, bool]:
        return {"acc": True}

    def _verdict(self, doc: dict[str, Any], text: str) -> Verdict:
        (verdict,) = self.task.grade([(self.problems[doc["id"]], text)])
        return verdict


class SecondAttempt(FirstAttempt):
    """The same problems after a first attempt and the instruction to correct it; `metadata` also names `first`, a samples_*.jsonl."""

    attempt = 2

    def messages(self, doc: dict[str, Any]) -> list[Message]:
        said = Message(role="assistant", content=doc["first_attempt"])
        return [*super().messages(doc), said, Message(role="user", content=self.task.revise)]

    def process_results(self, doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
        before, after = (self._verdict(doc, text).correct for text in (doc["first_attempt"], results[0]))
        found = {"acc_t1": before, "acc_t2": after, "delta": after - before, "fixed": after and not before, "broken": before and not after}
        return {name: float(value) for name, value in found.items()}

    def higher_is_better(self) -> dict[str, bool]:
        return {"acc_t1": True, "acc_t2": True, "delta": True, "fixed": True, "broken": False}


def _first(given: dict[str, Any], problems: list[str]) -> dict[str, str]:
    """Problem -> its first attempt's text."""
    if "first" not in given:
        raise ValueError("""name the first attempts: --metadata '{"suite": ..., "first": "OUT/M/samples_posttrain_first_TIME.jsonl"}'""")
    found = {episode.problem.id: episode.turns[0].text for episode in episodes_of(Path(given["first"]))}
    lacking = [problem for problem in problems if problem not in found]
    if lacking:
        raise ValueError(f"{given['first']}: has no first attempt at {len(lacking)} of {len(problems)} problems, e.g. {lacking[0]}")
    return found
