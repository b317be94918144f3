"""How far Genie's dreams are from real clips, all of them together: python evals/genie_fvd.py RUN ... --features RUN_OF_ANOTHER_SEED ...

The Fréchet distance between Gaussian fits of features, as FVD has it (arXiv 1812.01717). No feature net that others trained knows pictures
of 16 x 16 pixels, so the features are those of a net that none of the runs was trained with: the encoder of another seed's tokenizer of the
same world, frozen. Its vectors, before codes take their place, are averaged over the places of a frame, and the frames stand side by side:
5 x 16 numbers a clip. The distances mean nothing beside those of a paper, and little beside those of another net.

Held-out clips are filmed anew and cut in halves. One half is what everything is compared with; all that is compared is made of the other,
as many clips. So its own distance is what chance makes of two samples of the same, and the other rows tell what was done to it.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from posttrain.agents import genie
from posttrain.agents.genie_films import WorldConfig, filmed
from posttrain.agents.genie_models import Genie, Tokenizer
from posttrain.agents.kernel.video import frechet_distance
from posttrain.config import ConfigError
from posttrain.run import commit, seed_for

CLIPS = 1024
"""In each half."""


@torch.no_grad()
def features(tokenizer: Tokenizer, x: Tensor) -> Tensor:
    """[N, T, C, H, W] -> [N, T D]."""
    return torch.cat([tokenizer.quantised(part).vector.mean(2).flatten(1) for part in x.split(256)])


@torch.no_grad()
def altered(models: Genie, x: Tensor, draws: torch.Generator) -> dict[str, Tensor]:
    """What is compared with real clips, made of as many others."""
    found = [(models.actions.quantised(part).chosen, models.tokenizer.quantised(part).code) for part in x.split(256)]
    action_NT, code_NTSD = (torch.cat(parts) for parts in zip(*found, strict=True))
    first, order_NT = x[:, :1], torch.rand(x.shape[:2], generator=draws).argsort(1)

    def dreamt(done_NT: Tensor) -> Tensor:
        pairs = zip(x[:, 0].split(256), done_NT.split(256), strict=True)
        return torch.cat([first, torch.cat([models.dream_on(start, done, draws) for start, done in pairs])], 1)

    return {
        "other real clips": x,
        "the same through the run's own tokenizer": torch.cat([first, models.tokenizer.shown(code_NTSD).clamp(0, 1)[:, 1:]], 1),
        "dreams with the clip's own actions": dreamt(action_NT),
        "dreams with another clip's actions": dreamt(action_NT.roll(1, 0)),
        "copies of the first frame": first.expand_as(x),
        "real clips, their frames shuffled": x[torch.arange(len(x))[:, None], order_NT],
    }


def distances(run: Path, judges: dict[Path, tuple[genie.Config, Genie]]) -> dict[Path, dict[str, float]]:
    """Of one finished run by each judge's features; raises `ConfigError` where these are the run's own or of another world."""
    cfg, models = genie.load_run(run)
    if not isinstance(cfg.films, WorldConfig):
        raise ConfigError(f"{run}: films.kind: found {cfg.films.kind}, expected world, of which more can be filmed")
    for path, (judge_cfg, _) in judges.items():
        if (cfg.films, cfg.frames) != (judge_cfg.films, judge_cfg.frames):
            raise ConfigError(f"--features {path}: its films are not those of {run}, expected the same world and frames")
        if cfg.seed == judge_cfg.seed:
            raise ConfigError(f"--features {path}: found seed {cfg.seed}, which {run} has too, expected another one")
    films = filmed(cfg.films, 2 * CLIPS, cfg.frames, cfg.seed, "cpu", held_out=True)
    real, others = films.batch(torch.arange(2 * CLIPS)).split(CLIPS)
    made = altered(models, others, torch.Generator().manual_seed(seed_for(cfg.seed, "frechet")))
    return {path: compared(judge.tokenizer, real, made) for path, (_, judge) in judges.items()}


def compared(judge: Tokenizer, real: Tensor, made: dict[str, Tensor]) -> dict[str, float]:
    known_ND = features(judge, real)
    return {name: frechet_distance(features(judge, x), known_ND) for name, x in made.items()}


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--features", type=Path, nargs="+", required=True, metavar="RUN_OF_ANOTHER_SEED")
    args = parser.parse_args()
    try:
        judges = {path: genie.load_run(path) for path in args.features}
        found = [distances(run, judges) for run in args.runs]
    except ConfigError as error:
        parser.error(str(error))
    print(f"Commit {commit()}, {CLIPS} clips on either side, {time.process_time():.0f} CPU seconds")
    for path in judges:
        columns = [each[path] for each in found]
        print(f"\n| features of {path} | " + " | ".join(str(run) for run in args.runs) + " |\n" + "|---" * (len(columns) + 1) + "|")
        for name in columns[0]:
            print(f"| {name} | " + " | ".join(f"{column[name]:.4f}" for column in columns) + " |")


if __name__ == "__main__":
    main()
