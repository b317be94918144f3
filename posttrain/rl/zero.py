"""DeepSpeed's ZeRO (arXiv 1910.02054), stages 2 and 3, behind `sharding.Sharding`. Read against DeepSpeed 0.19.8.

Its engine is used bare, not through accelerate, which on CPUs silently trains without it: tests would not run what GPUs run.
"""

import os
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from posttrain.config import ConfigError
from posttrain.rl.ranks import Ranks
from posttrain.rl.sharding import AdamArguments, Inside, Kind

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MOMENTS = ("exp_avg", "exp_avg_sq")


class ZeRO:
    """Stage 2 shares out gradients and Adam's state, stage 3 the weights too."""

    def __init__(self, model: "PreTrainedModel", adam: AdamArguments, ranks: Ranks, *, stage: int, max_norm: float, autocast: bool) -> None:
        deepspeed = _deepspeed()
        self.name: Kind = "zero2" if stage == 2 else "zero3"
        self.stage, self.ranks = stage, ranks
        self.trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._adam = torch.optim.AdamW(self.trainable, **adam)
        self._settings = {key: value for key, value in self._adam.state_dict()["param_groups"][0].items() if key != "params"}
        self.engine, *_ = deepspeed.initialize(
            model=Inside(model),
            model_parameters=self.trainable,
            optimizer=self._adam,
            dist_init_required=False,
            config=_settings(ranks, stage, max_norm, autocast),
        )

    def inside(self, work: Callable[[], Tensor]) -> Tensor:
        return self.engine(work)

    def backward(self, loss: Tensor) -> None:
        self.engine.backward(loss * self.ranks.num)  # DeepSpeed takes the mean over ranks

    def step(self, lr: float, max_norm: float) -> float:
        """`max_norm` is the engine's since it was made."""
        for group in self._adam.param_groups:
            group["lr"] = lr
        self.engine.step()
        norm = float(self.engine.get_global_grad_norm())
        if not self.engine.was_step_applied() or not torch.isfinite(torch.tensor(norm)):
            raise FloatingPointError(f"the gradient norm is {norm}")
        return norm

    def whole(self, tensor: Tensor) -> Tensor:
        if not hasattr(tensor, "ds_id"):
            return tensor
        import deepspeed

        with deepspeed.zero.GatheredParameters([tensor]):
            return tensor.detach().clone()

    def fill(self, parameter: nn.Parameter, value: Tensor) -> None:
        """The weight and the copy of it that Adam works on."""
        import deepspeed
        from deepspeed.utils import safe_set_full_fp32_param

        value = value.to(self.ranks.device, torch.float32)
        if self.stage == 3:
            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
                parameter.data.copy_(value)
        else:
            parameter.data.copy_(value)
        safe_set_full_fp32_param(parameter, value)

    def optimizer_state(self, keep: bool = True) -> dict[str, Any]:
        from deepspeed.utils import safe_get_full_optimizer_state

        settings = self._settings | {"lr": self._adam.param_groups[0]["lr"], "params": list(range(len(self.trainable)))}
        if not self._adam.state:
            return {"state": {}, "param_groups": [settings]}
        step = next(iter(self._adam.state.values()))["step"]
        state = {}
        for i, parameter in enumerate(self.trainable):
            whole = ((key, safe_get_full_optimizer_state(parameter, key).view(_shape(parameter))) for key in MOMENTS)
            state[i] = {"step": torch.tensor(float(step)), **{key: value.cpu().clone() for key, value in whole if keep}}
        return {"state": state, "param_groups": [settings]}

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state

        if not state["state"]:
            return
        step = next(iter(state["state"].values()))["step"]
        sharded = self.engine.optimizer
        for part in sharded.fp32_partitioned_groups_flat if self.stage == 3 else sharded.single_partition_of_fp32_groups:
            self._adam.state[part] = {"step": step.clone(), **{key: torch.zeros_like(part) for key in MOMENTS}}
        if self.stage == 2:
            sharded._lazy_init_hp_params_optimizer_state()
        for i, parameter in enumerate(self.trainable):
            for key in MOMENTS:
                safe_set_full_optimizer_state(parameter, state["state"][i][key].to(self.ranks.device), key)


def _shape(parameter: Tensor) -> torch.Size:
    return getattr(parameter, "ds_shape", parameter.shape)


def _settings(ranks: Ranks, stage: int, max_norm: float, autocast: bool) -> dict[str, Any]:
    on_gpu = torch.device(ranks.device).type == "cuda"
    return {
        "train_micro_batch_size_per_gpu": 1,  # both are only looked at: the loss is scaled by counts of our own
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,  # backward() adds up until step()
        "gradient_clipping": max_norm,
        "zero_optimization": {
            "stage": stage,
            "overlap_comm": on_gpu,
            "reduce_bucket_size": 50_000_000,  # 200 MB of float32
            "stage3_param_persistence_threshold": 100_000 if on_gpu else 0,  # numbers in a tensor that stays whole
        },
        "zero_force_ds_cpu_optimizer": False,
        "torch_autocast": {"enabled": autocast, "dtype": "bfloat16"},
    }


def _deepspeed() -> Any:
    """The package, told which device it runs on; raises `ConfigError` where it is not there."""
    if find_spec("deepspeed") is None:
        raise ConfigError("policy.shard: zero2 and zero3 need DeepSpeed: pip install 'posttrain[deepspeed]'")
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    import deepspeed

    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")  # DeepSpeed's calls of older names
    deepspeed.utils.logger.setLevel("WARNING")
    if not torch.cuda.is_available():  # gloo alone will do, else the first start waits minutes for a compiler
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo", auto_mpi_discovery=False)
    return deepspeed
