"""The runs of a study as jobs that name the jobs they build on, done one after the other or several at a time.

A job is done in full or taken up where it stopped, so a study that was killed goes on with the same command.
"""

import contextlib
import ctypes
import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.evaluation.run import evaluate_model
from posttrain.evaluation.suite import Suite

PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of one seed, resolved: what trains it (None: nothing), and how its model is evaluated."""

    folder: Path
    model: Path
    trainer: str | None
    """The module with `main(config, out, resume) -> exit code`."""
    recipe: Any
    suites: dict[str, Suite]
    """Name -> evaluation of its model; empty where it is not evaluated."""
    label: str | None
    needs: frozenset[Path]
    """Folders of the jobs that come before this one; one that is not among the jobs of a call was done before it."""


def do(job: Job) -> int:
    """Train, then evaluate; what is finished is left as it is. Returns the exit code."""
    if job.trainer and (code := importlib.import_module(job.trainer).main(job.recipe, job.folder, True)):
        return code
    for name, suite in job.suites.items():
        evaluate_model(suite, f"{job.label}, {name}", str(job.model), job.folder / "eval" / name)
    return 0


def do_all(jobs: Sequence[Job], workers: int) -> int:
    """All jobs, `workers` at a time, each after those it needs; returns the exit code of the first that stopped, 0 if all are done."""
    if workers == 1:
        return next((code for job in jobs if (code := do(job))), 0)
    waiting, undone, code = list(jobs), {job.folder for job in jobs}, 0
    running: dict[Future[tuple[int, float]], Job] = {}
    threads = max(1, (os.cpu_count() or 1) // workers)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker, (threads,)) as pool:
        while (waiting and not code) or running:
            for job in [] if code else _ready(waiting, undone)[: workers - len(running)]:
                waiting.remove(job)
                running[pool.submit(_do_quietly, job)] = job
            for ended in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(ended)
                job_code, seconds = ended.result()
                undone.remove(job.folder)
                code = code or job_code
                how = f"stopped with exit code {job_code}; it says why in {job.folder / 'log.txt'}" if job_code else f"{seconds:.0f} s"
                print(f"[{len(jobs) - len(undone)}/{len(jobs)}] {job.folder}: {how}", file=sys.stderr, flush=True)
    return code


def _ready(waiting: Sequence[Job], undone: Collection[Path]) -> list[Job]:
    return [job for job in waiting if job.needs.isdisjoint(undone)]


def _orphaned() -> bool:
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


def _start_worker(threads: int) -> None:
    """A worker shares the cores with its neighbours, and gets SIGTERM when the study is gone, so that its run is saved."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if _orphaned():  # it died while this worker was starting: no signal will come
        os._exit(1)

    import torch
    from transformers.utils import logging

    torch.set_num_threads(threads)
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _do_quietly(job: Job) -> tuple[int, float]:
    """`do` with its bars and warnings in the job's log.txt, as those of several jobs would tear each other apart; and its seconds."""
    job.folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with open(job.folder / "log.txt", "a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        code = do(job)
    if _orphaned():  # nobody is left to give this worker another job, or to end it
        os._exit(code)
    return code, time.monotonic() - began
