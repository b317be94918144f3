"""`posttrain publish RUN`: a folder that others can load and judge: model or adapter, card, recipe, provenance, episodes as Parquet.

    OUT/README.md · recipe.yaml · provenance.json · model files that plain transformers (or peft) loads · episodes/*.parquet

The card tells what was recorded and no more: figures with their intervals from evaluations of these very weights, data with licences as
far as they are known, commit, versions and seed.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from posttrain.config import ConfigError, build, read_yaml
from posttrain.evaluation.budget import recorded
from posttrain.publish.card import card
from posttrain.publish.episodes import write_parquet
from posttrain.run import TASK_FILE

NOT_PUBLISHED = ("training.pt", "state.json")  # of a checkpoint: what only going on with the run needs
EPILOG = """\
Examples:
    posttrain publish runs/score_math/stage2                               into runs/score_math/stage2/published
    posttrain publish runs/mine --adapter --license apache-2.0             the LoRA adapter alone, for peft
    posttrain publish runs/mine --push OWNER/NAME                          and upload it, as a private repository

Exit codes: 0 done, 1 the upload failed, 2 the call was wrong or the run has nothing to publish."""


class PublishError(RuntimeError):
    """The hub refused or could not be reached; what was made stays on disk."""

    exit_code: ClassVar[int] = 1


def cli(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="posttrain publish",
        description="Make a folder of a run's model that others can load and judge, and upload it where asked to.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder, with the model that it trained")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to (default: RUN/published); must not be there yet")
    parser.add_argument("--adapter", action="store_true", help="the LoRA adapter in place of the merged model")
    parser.add_argument("--license", metavar="ID", help="licence of what is published, e.g. apache-2.0; by default the card states none")
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload to this repository of the hub, made if it is not there")
    parser.add_argument("--public", action="store_true", help="with --push: make a new repository public; it is private otherwise")
    args = parser.parse_args(argv)
    if args.public and not args.push:
        raise ConfigError("flags: --public is for --push OWNER/NAME")
    if args.push:
        check_push(args.push)
    out: Path = args.out or args.run / "published"
    publish(args.run, out, adapter=args.adapter, licence=args.license)
    print(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    if args.push:
        print(push(out, args.push, private=not args.public))
    return 0


def publish(run: Path, out: Path, *, adapter: bool = False, licence: str | None = None) -> None:
    """Write `out`, whole or not at all. Raises `ConfigError` where the run has no such model or `out` is there already."""
    recipe = recorded(run)
    if not (run / "model" / "config.json").is_file() or not recipe:
        hint = "a study has one in each of its runs, e.g. seed0/score" if recipe.get("kind") == "study" else "expected a trained run"
        raise ConfigError(f"{run}: has no model to publish; {hint}")
    if out.exists():
        raise ConfigError(f"{out}: is there already; remove it or name another --out")
    making = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(making, ignore_errors=True)
    try:
        making.mkdir(parents=True)
        if adapter:
            _save_adapter(run, making)
        else:
            for file in sorted((run / "model").iterdir()):
                if file.is_file() and file.name not in NOT_PUBLISHED:
                    shutil.copyfile(file, making / file.name)
        for name, kept in (("config.yaml", "recipe.yaml"), ("provenance.json", "provenance.json"), (TASK_FILE, TASK_FILE)):
            if (run / name).is_file():
                shutil.copyfile(run / name, making / kept)
        tables = write_parquet(run, making / "episodes")
        (making / "README.md").write_text(card(run, adapter=adapter, licence=licence, tables=tables), encoding="utf-8")
        making.rename(out)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _save_adapter(run: Path, out: Path) -> None:
    """The run's adapter as peft saves one, with the tokenizer; raises `ConfigError` where the run trained all weights."""
    from posttrain.rl.checkpoint import found, restore
    from posttrain.rl.policy import load_policy
    from posttrain.rl.score import Config

    name, tree = read_yaml(run / "config.yaml")
    if tree.get("kind") != "score" or not (tree.get("policy") or {}).get("lora"):
        raise ConfigError(f"{run}: trained all weights, so there is no adapter; publish the model, without --adapter")
    cfg = build(Config, [(name, tree), ("publish", {"policy": {"device": "cpu"}})])
    chosen = (run / "model").resolve()
    (checkpoint,) = [each for each in found(run) if each.path.resolve() == chosen]
    policy = load_policy(cfg.model, None, cfg.policy, cfg.optim, cfg.sampling.temperature, cfg.seed)
    restore(checkpoint, policy)
    policy.model.save_pretrained(out)
    policy.tokenizer.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)  # peft's own card, of which nothing is filled in


def check_push(repository: str) -> None:
    """Raises `ConfigError` where an upload cannot work: no token, or a name that the hub does not take."""
    from huggingface_hub import get_token
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    if repository.count("/") != 1:
        raise ConfigError(f"--push: found {repository!r}, expected OWNER/NAME")
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ConfigError(f"--push: {' '.join(str(error).split())}") from None
    if not get_token():
        raise ConfigError("--push: there is no token of the hub here; run `hf auth login` or set HF_TOKEN, then try again")


def push(folder: Path, repository: str, *, private: bool) -> str:
    """Upload the folder and return its address; raises `PublishError` with what the hub said."""
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=repository, commit_message="Published by posttrain")
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        said = " ".join(str(error).split())[:300]
        raise PublishError(f"--push {repository}: {type(error).__name__}: {said}; the folder to upload is {folder}") from None
    return str(address)
