"""An evaluation of 2,000 samples killed at random moments, gone on with by other numbers of workers, against one that nothing stopped.

    python evals/bench_resume.py [--kills 20] [--seed 0]

A kill is SIGKILL to the evaluation a moment after its log has got a number of samples that is drawn evenly from those still to come;
its worker processes are left to notice. After each kill every whole chunk of the log must still be there, byte for byte, until the
evaluation is finished: then the episodes and the summary must be those of the undisturbed one.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from posttrain.run import commit
from tests.sums_base import make_sums_base

ROOT = Path(__file__).parents[1]
SUITE = """\
kind: eval
task: {kind: sums, pick: 2, numbers: 6, largest: 30, test_size: 1000}
samples: 2
sampling: {max_tokens: 8, temperature: 1.0}
chunk: 25
"""
SAMPLES, PER_CHUNK = 2000, 50
WORKERS = (1, 2, 3)
PER_EVALUATION = 5
MOMENT_S = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    print(f"make bench-resume, commit {commit()}, seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "suite.yaml").write_text(SUITE)
        model = make_sums_base(folder / "model")
        began = time.monotonic()
        finish(folder, model, folder / "whole", 1)
        whole_s = time.monotonic() - began
        print(f"{SAMPLES} samples, undisturbed: {whole_s:.0f} s", flush=True)
        kills = caught = lost = number = 0
        while kills < args.kills:
            out, number = folder / f"out{number}", number + 1
            told = []
            for _ in range(min(PER_EVALUATION, args.kills - kills)):
                workers = rng.choice(WORKERS)
                kept = whole_chunks(out)
                if (kept_samples := log_of(out).count(b"\n")) == SAMPLES:
                    break  # the last kill came after the last sample
                until = rng.randint(kept_samples, SAMPLES - 1)
                run = start(folder, model, out, workers)
                while run.poll() is None and log_of(out).count(b"\n") <= until:
                    time.sleep(0.005)
                time.sleep(rng.random() * MOMENT_S)
                ended = run.poll() is not None
                run.send_signal(signal.SIGKILL)
                run.wait()
                kills, caught = kills + 1, caught + (not ended)
                whole = log_of(out).count(b"\n") == SAMPLES  # then it stands in problem order
                lost += not whole and not log_of(out).startswith(kept)
                told.append(f"{workers} workers, {log_of(out).count(10)} samples" + (" (had ended)" if ended else ""))
            workers = rng.choice(WORKERS)
            finish(folder, model, out, workers)
            same = all((out / name).read_bytes() == (folder / "whole" / name).read_bytes() for name in ("episodes.jsonl", "summary.json"))
            keys = [(row["problem"]["id"], row["sample"]) for row in map(json.loads, log_of(out).splitlines())]
            print(
                f"  kills at: {'; '.join(told)}; finished by {workers}: {len(keys)} samples, {len(keys) - len(set(keys))} twice, ", end=""
            )
            print("the same bytes" if same else "OTHER BYTES", flush=True)
            if not same or len(set(keys)) != SAMPLES:
                sys.exit(1)
        print(f"{kills} kills ({caught} before the end): nothing missing, nothing twice; kept chunks lost or changed: {lost}")
        sys.exit(lost > 0)


def start(folder: Path, model: Path, out: Path, workers: int) -> subprocess.Popen:
    words = ["eval", str(folder / "suite.yaml"), "--model", str(model), "--out", str(out), "--shards", str(workers)]
    with open(folder / "said", "w") as said:
        return subprocess.Popen([sys.executable, "-m", "posttrain.cli", *words], cwd=ROOT, stdout=said, stderr=said)


def finish(folder: Path, model: Path, out: Path, workers: int) -> None:
    """Run it to its end; ends the benchmark with what it said where it fails."""
    if start(folder, model, out, workers).wait():
        sys.exit(f"the evaluation failed:\n{(folder / 'said').read_text()[-3000:]}")


def log_of(out: Path) -> bytes:
    file = out / "episodes.jsonl"
    return file.read_bytes() if file.exists() else b""


def whole_chunks(out: Path) -> bytes:
    lines = log_of(out).splitlines(keepends=True)
    return b"".join(lines[: len(lines) // PER_CHUNK * PER_CHUNK])


if __name__ == "__main__":
    main()
