"""STaR and Pair-SFT: sample attempts, keep what `sft/traces.py` selects, train the base on it, and again from the better model.

The supervised rivals of SCoRe in arXiv 2409.12917, sec. 4 (STaR: 2203.14465, Pair-SFT: 2211.00053). Samples and updates are counted as in
`rl/score.py`, so that methods can be compared at equal cost.

    RUN/round_1/episodes.jsonl · RUN/round_1/model · ... · RUN/model (the last round's)
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from posttrain.config import config
from posttrain.evaluation.model import open_chat
from posttrain.evaluation.run import sampler_of
from posttrain.rollout.log import sample_into
from posttrain.rollout.problems import draw_problems
from posttrain.rollout.self_correct import Rollout
from posttrain.run import RunFolder, keep_source, seed_for
from posttrain.sampling.engine import EngineConfig, HFEngineConfig, open_engine
from posttrain.sft.fit import FitConfig, fit, load_model, rows_of, save
from posttrain.sft.traces import Traces, balance, select
from posttrain.tasks import TaskConfig, make_task
from posttrain.tasks.decontaminate import note, training_set
from posttrain.types import Episode, Problem, Sampling


class NothingSelected(RuntimeError):
    """No sampled episode is of the kind to be trained on; the message has the counts."""

    exit_code: ClassVar[int] = 1


@config
class DrawConfig:
    """How attempts are sampled in a round."""

    problems: PositiveInt | None
    """Training problems of a round; each round goes on in the shuffled training set. null: all of it, in every round."""
    samples: PositiveInt = 8
    """Episodes per problem."""
    max_tokens: PositiveInt
    """Per attempt."""
    temperature: float = Field(default=1.0, gt=0)
    chunk: PositiveInt = 64
    """Problems sampled together, and the most that an interruption loses."""


@config
class Config:
    """Supervised training on a model's own attempts: STaR and Pair-SFT."""

    kind: Literal["self_training"] = "self_training"
    model: str
    """Folder or hub id of the model that the first round samples from, and that every round trains."""
    task: TaskConfig
    split: str = "train"
    decontaminate: tuple[str, ...] | None = None
    """Evaluation sets whose questions are not trained on: splits of the task, or suites' files. null: its own test split, [] none."""
    traces: Traces
    """What to train on: successful revisions (star) or made-up ones (pairs), plus: right answers that stay right as well; or verdicts."""
    rounds: PositiveInt = 1
    """3 for STaR and 1 for Pair-SFT in the paper."""
    draw: DrawConfig
    per_problem: PositiveInt = 4
    """The most traces of a kind that one problem gives. Not given by the paper."""
    learn: tuple[Literal[1, 2, 3], ...] = (2,)
    """The turns whose tokens carry loss. A first attempt that is wrong should not be learnt."""
    fit: FitConfig
    """Updates of one round."""
    engine: EngineConfig = HFEngineConfig()
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.learn:
            raise ValueError("learn is empty: nothing would be trained; name attempt 2, or 1 and 2")
        if self.engine.kind == "server":
            raise ValueError("engine: each round samples from new weights, which a server does not have; use hf or vllm")


def main(cfg: Config, out: Path, resume: bool) -> int:
    """Run all rounds into `out`; under `resume` finished rounds are left as they are. Raises `NothingSelected`, `ConfigError`."""
    folder = RunFolder(out, cfg, resume=resume)
    keep_source(out, make_task(cfg.task).source)
    clean = training_set(cfg.task, cfg.split, cfg.decontaminate)
    note(folder, clean)
    done = sum((out / f"round_{i}" / "model").is_dir() for i in range(1, cfg.rounds + 1))
    folder.forget_after(done * cfg.fit.steps)
    sampler = str(out / f"round_{done}" / "model") if done else cfg.model
    for number in range(done + 1, cfg.rounds + 1):
        part = out / f"round_{number}"
        part.mkdir(exist_ok=True)
        episodes = _sample(cfg, clean.problems, sampler, part, number)
        sampler = _train(cfg, episodes, folder, part, number)
    if not (out / "model").is_dir():
        shutil.copytree(sampler, out / ".model.tmp", dirs_exist_ok=True)
        (out / ".model.tmp").rename(out / "model")
    return 0


def _sample(cfg: Config, problems: Sequence[Problem], model: str, part: Path, number: int) -> list[Episode]:
    """The round's episodes, from its file as far as they are there."""
    task = make_task(cfg.task)
    drawn = draw_problems(problems, cfg.draw.problems or len(problems), number, cfg.seed)
    chat, pad_id = open_chat(model)
    sampled_in = "bfloat16" if cfg.fit.precision == "bf16_autocast" else "float32"  # as it is trained, whatever the folder is in
    engine = open_engine(cfg.engine, model, eos_ids=chat.eos_ids, pad_id=pad_id, dtype=sampled_in)
    how = Rollout(
        sampling=Sampling(max_tokens=cfg.draw.max_tokens, temperature=cfg.draw.temperature),
        samples=cfg.draw.samples,
        seed=cfg.seed,
        step=number,
    )
    try:
        name = f"{part.parent.name}: sampling, round {number}"
        sampler = sampler_of(task, engine, chat, how)
        return sample_into(part / "episodes.jsonl", drawn, [sampler], samples=cfg.draw.samples, chunk=cfg.draw.chunk, name=name)
    finally:
        engine.close()


def _train(cfg: Config, episodes: list[Episode], folder: RunFolder, part: Path, number: int) -> str:
    """The base trained on what the round's episodes give; returns its folder."""
    chat, _ = open_chat(cfg.model)
    seed = seed_for(cfg.seed, "traces", number)
    traces = select(episodes, cfg.traces, chat, make_task(cfg.task), per_problem=cfg.per_problem, seed=seed)
    if not traces:
        raise NothingSelected(f"{part}: none of {len(episodes)} episodes is a trace for {cfg.traces}; draw more samples or problems")
    model, tokenizer = load_model(cfg.model)
    after = (number - 1) * cfg.fit.steps
    sampled = [turn for episode in episodes for turn in episode.turns]
    budget = {"samples": len(sampled), "tokens": sum(len(turn.completion.ids) for turn in sampled)}
    counts = {f"traces/{name}": count for name, count in balance(traces).items()}
    folder.log(after + 1, {**{f"train/{k}": v for k, v in budget.items()}, **counts})
    fit(model, tokenizer, rows_of(traces, cfg.learn), cfg.fit, seed=cfg.seed, folder=folder, after=after)
    save(model, tokenizer, part / "model")
    return str(part / "model")
