"""Two ways for a policy's weights to reach servers: through a folder that both sides see, or over NCCL between their GPUs."""

import shutil
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from posttrain.sampling.endpoint import Endpoint, ServerError
from posttrain.sampling.weights import checked, expected_weights
from posttrain.types import EngineError


@dataclass(frozen=True, kw_only=True)
class Pushing:
    """How servers get the weights of a model that is trained."""

    model_folder: str
    """Whose architecture tells which weights there are."""
    dtype: str = "float32"
    """What they are sent in."""
    way: Literal["folder", "nccl"] = "folder"
    folder: Path = Path("/dev/shm")
    port: int = 29511
    """Where the servers' GPUs meet this one for NCCL."""
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    """The same on all ranks of a run, and on those of no other."""
    sends: bool = True
    """One rank sends; the others only know which version is due."""


class Pusher:
    """Gives servers weights, and a version to tell them by."""

    def __init__(self, servers: Sequence[Endpoint], how: Pushing) -> None:
        self.servers, self.how, self.num_pushes = servers, how, 0
        self._expected: dict[str, Tensor] = {}
        self._nccl: _OverNCCL | None = None

    @property
    def version(self) -> str:
        return f"{self.how.run}-{self.num_pushes}"

    def push(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Servers that take the weights are up from here on, and those that do not are down."""
        from transformers import AutoConfig

        self.num_pushes += 1
        for server in self.servers:
            server.down = ""
        if not self.how.sends:
            for _ in weights:  # gathering them may be the work of all ranks
                pass
            return
        if not self._expected:
            self._expected = expected_weights(AutoConfig.from_pretrained(self.how.model_folder).get_text_config())
        pushed, dtype = checked(weights, self._expected, "servers"), getattr(torch, self.how.dtype)
        each(self.servers, lambda server: server.control("weight_info"))  # one that hangs is not waited for any longer
        live = [server for server in self.servers if not server.down]
        if self.how.way == "nccl":
            self._nccl = self._nccl or _OverNCCL(live, self._expected, dtype, socket.gethostname(), self.how.port)
            self._nccl.push(pushed)
        elif live:
            _through_folder(live, pushed, self.how.folder / f"posttrain-{self.version}", dtype)
        live = [server for server in live if not server.down]
        each(live, lambda server: server.control("update_weight_version", {"new_version": self.version}))

    def check(self, server: Endpoint) -> None:
        """Raises `ServerError` where a server has other weights than those of the last push."""
        found = server.control("weight_info")["weight_version"]
        if found != self.version:
            raise ServerError(f"server {server.url}: it has weights {found!r} where {self.version!r} are due: was it started again?")


def each(servers: Sequence[Endpoint], work: Callable[[Endpoint], Any]) -> list[Endpoint]:
    """`work` on all servers at once; those on which it fails are down, and returned."""

    def fails(server: Endpoint) -> bool:
        try:
            work(server)
        except ServerError as error:
            server.fail(error)
            return True
        return False

    with ThreadPoolExecutor(max(1, len(servers))) as pool:
        return [server for server, failed in zip(servers, pool.map(fails, servers)) if failed]


def _through_folder(servers: Sequence[Endpoint], weights: Iterator[tuple[str, Tensor]], folder: Path, dtype: torch.dtype) -> None:
    """Write the weights, have each server read them, and remove them. A server that fails is down, with its own words.

    Raises `EngineError` where the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.to("cpu", dtype).contiguous() for name, tensor in weights}, folder / "model.safetensors")
        each(servers, lambda server: _reload(server, folder))
    except (OSError, SafetensorError) as error:
        raise EngineError(f"engine.push_folder: cannot write the weights to {folder}: {error}; name a place that has room") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _reload(server: Endpoint, folder: Path) -> None:
    server.control("collective_rpc", {"method": "take_weights", "kwargs": {"folder": str(folder)}}, server.timeout_s)
    forget_prefixes(server)


def forget_prefixes(server: Endpoint) -> None:
    """What runs on after its row was given up is stopped for it; raises `ServerError` where the cache stays."""
    if not server.control("reset_prefix_cache?reset_running_requests=true", {}, server.timeout_s)["success"]:
        raise ServerError(f"server {server.url}: the prefix cache could not be reset after a push of weights")


class _OverNCCL:
    """vLLM's own NCCL transfer, from this process's GPU to all GPUs of all servers at once. It needs vLLM in this environment too.

    Written against vLLM 0.31 (vllm/distributed/weight_transfer/nccl_engine.py) and NOT RUN: no machine with several GPUs was at hand.
    Servers are started with --weight-transfer-config '{"backend": "nccl"}'. One that dies takes the group with it: the run stops, and is
    resumed without it.
    """

    def __init__(self, servers: Sequence[Endpoint], shapes: dict[str, Tensor], dtype: torch.dtype, address: str, port: int) -> None:
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo, NCCLTrainerWeightTransferEngine

        sizes = [server.control("get_world_size")["world_size"] for server in servers]
        self._source = _Source(shapes, dtype)
        info = NCCLTrainerInitInfo(rank=0, master_address=address, master_port=port, world_size=1 + sum(sizes))
        self._engine = NCCLTrainerWeightTransferEngine.trainer_init(info, client=_Fanout(servers, sizes), source=self._source)

    def push(self, weights: Iterator[tuple[str, Tensor]]) -> None:
        self._source.weights = weights
        self._engine.send_weights()


class _Fanout:
    """vLLM's `VLLMWeightSyncClient` for several servers: each step of the exchange on all of them at once."""

    def __init__(self, servers: Sequence[Endpoint], sizes: Sequence[int]) -> None:
        self.servers, self.sizes = servers, sizes

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """The group's ranks: this process, then the workers of each server."""
        first = [init_info["rank_offset"] + sum(self.sizes[:i]) for i in range(len(self.servers))]
        self._post("init_weight_transfer_engine", [{"init_info": init_info | {"rank_offset": rank}} for rank in first])

    def start_weight_update(self) -> None:
        self._post("start_weight_update", [{}] * len(self.servers))

    def update_weights(self, update_info: Any) -> None:
        self._post("update_weights", [{"update_info": update_info}] * len(self.servers))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._post("finish_weight_update", [{}] * len(self.servers))
        for server in self.servers:
            forget_prefixes(server)

    def _post(self, path: str, bodies: Sequence[dict[str, Any]]) -> None:
        with ThreadPoolExecutor(len(self.servers)) as pool:
            list(pool.map(lambda server, body: server.control(path, body, server.timeout_s), self.servers, bodies))


class _Source:
    """vLLM's `WeightSource`: what is to come, and then it, each tensor once."""

    def __init__(self, shapes: dict[str, Tensor], dtype: torch.dtype) -> None:
        self.shapes, self.dtype = shapes, dtype
        self.weights: Iterator[tuple[str, Tensor]] = iter(())

    def metadata(self) -> list[Any]:
        from vllm.distributed.weight_transfer.base import ParamMeta

        return [ParamMeta(name, self.dtype, tuple(tensor.shape)) for name, tensor in self.shapes.items()]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name, (pushed, tensor) in zip(self.shapes, self.weights, strict=True):
            if name != pushed:
                raise EngineError(f"weights come in another order than announced: {pushed!r} where {name!r} was due")
            yield name, tensor.to("cuda", self.dtype)
