"""The processes that train together: each samples its own problems and takes its own micro-batches, and only the first one writes.

Everything else is the same on every rank: all hold the whole batch of episodes, so advantages, counts and figures are computed by the
very code that one process runs, and what crosses between ranks is episodes, per-token numbers and one gradient. One process is the
rank of a world of one, where every function here gives back what it was given.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from posttrain.config import ConfigError

T = TypeVar("T")
LONGEST_WAIT = timedelta(hours=2)  # for the slowest rank's rollout: then the others give up, and the launcher ends the run


class OtherRankError(RuntimeError):
    """Another rank failed; the message holds its words."""

    exit_code: ClassVar[int] = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """This process's number among those that train together, from 0, and the device that it talks through."""

    rank: int = 0
    num: int = 1
    device: str = "cpu"
    kind: str = "NO"
    """accelerate's `DistributedType`."""

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's part: the parts are runs of items, in order, and their lengths differ by one at most."""
        return items[self.rank * len(items) // self.num : (self.rank + 1) * len(items) // self.num]

    def deal(self, items: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
        """This rank's part, the items dealt out one by one; and one to repeat without effect where others have one more."""
        own = items[self.rank :: self.num]
        return own, items[:1] if len(own) * self.num < len(items) else []

    def gather(self, own: Sequence[T]) -> list[T]:
        """Every rank's items in rank order, on every rank. What `share` took apart comes out in its order."""
        if self.num == 1:
            return list(own)
        parts: list[list[T]] = [[] for _ in range(self.num)]
        dist.all_gather_object(parts, list(own))
        return [item for part in parts for item in part]

    def sum(self, value: Tensor) -> Tensor:
        """The sum over ranks, on the CPU; exact where all ranks but one have 0."""
        if self.num == 1:
            return value
        total = value.detach().to(self.device, copy=True)
        dist.all_reduce(total)
        return total.cpu()

    def any(self, claim: bool) -> bool:
        return bool(self.sum(torch.tensor(float(claim))))

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What fails inside on one rank fails on all: with its own error there, with `OtherRankError` elsewhere.

        For work in which ranks do not wait for each other, or those that did not fail would wait inside.
        """
        failed: Exception | None = None
        try:
            yield
        except Exception as error:
            failed = error
        said = self.gather([f"rank {self.rank}: {failed}" if failed else ""])
        if failed:
            raise failed
        if any(said):
            raise OtherRankError("; ".join(text for text in said if text))


ALONE = Ranks()


def join(device: str) -> Ranks:
    """The ranks that a launcher (torchrun, accelerate launch) started, this one among them; a world of one where none did.

    Raises `ConfigError` where the launcher wants GPUs that are not there, or settings that are the recipe's.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    from accelerate import PartialState

    on_cpu = device == "cpu" or not torch.cuda.is_available()
    if not on_cpu and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > torch.cuda.device_count():
        raise ConfigError(
            f"{os.environ['LOCAL_WORLD_SIZE']} ranks on this machine, which has {torch.cuda.device_count()} GPUs: start one rank per GPU"
        )
    for plugin in ("DEEPSPEED", "FSDP"):
        if os.environ.get(f"ACCELERATE_USE_{plugin}", "false") == "true":
            raise ConfigError(f"accelerate launch: its {plugin} settings are not used: launch without them and set policy.shard instead")
    state = PartialState(cpu=on_cpu, timeout=LONGEST_WAIT)
    return Ranks(rank=state.process_index, num=state.num_processes, device=str(state.device), kind=state.distributed_type.value)


def leave(ranks: Ranks) -> None:
    """Take leave of the other ranks, at the end of a run that went well."""
    if ranks.num > 1:
        dist.destroy_process_group()
