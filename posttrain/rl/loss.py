"""The two terms of the objective as losses to be minimised, per attempt and invariant to how a batch is split.

Every function returns a *sum* over its rows divided by counts of the whole batch, so the losses of micro-batches add up to the loss of
the batch, and so do their gradients.
"""

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from posttrain.rl.batch import Batch

KLEstimator: TypeAlias = Literal["k1_in_reward", "k2_in_loss", "k3_in_loss"]


def reinforce(logp_BT: Tensor, advantage_BK: Tensor, batch: Batch, rows_K: Tensor, importance_cap: float | None = None) -> Tensor:
    """-sum_k 1/N_k sum_i A_ik log pi(y_ik), a scalar; N_k = `rows_K`, the rows of the whole batch that count for attempt k.

    An attempt's log-probability is the sum over its tokens (no length normalisation, as in RLOO). With `importance_cap` c each token
    is weighted by min(pi_trainer / pi_sampler, c), gradient stopped, for engines whose probabilities differ from the trainer's.
    """
    weight_BT = batch.spread(advantage_BK / rows_K)
    if importance_cap is not None:
        weight_BT = weight_BT * (logp_BT.detach() - batch.sampler_logp).exp().clamp(max=importance_cap)
    return -(weight_BT * logp_BT * (batch.turn > 0)).sum()


def kl_estimate(logp_BT: Tensor, reference_BT: Tensor, batch: Batch, estimator: KLEstimator) -> Tensor:
    """Single-sample estimate of KL(policy || reference) of each attempt, summed over its tokens: [B, K].

    With d = log pi - log ref per token: k1 = d (unbiased, for the reward); k2 = d^2 / 2 (its gradient is that of the KL);
    k3 = exp(-d) - 1 + d (positive; its gradient is not that of the KL).
    """
    delta_BT = (logp_BT - reference_BT) * (batch.turn > 0)
    match estimator:
        case "k1_in_reward":
            return batch.per_attempt(delta_BT)
        case "k2_in_loss":
            return batch.per_attempt(delta_BT.square() / 2)
        case "k3_in_loss":
            return batch.per_attempt(torch.expm1(-delta_BT) + delta_BT)


def kl_loss(logp_BT: Tensor, reference_BT: Tensor, batch: Batch, coef_K: Tensor, num_rows: int, estimator: KLEstimator) -> Tensor:
    """sum_k coef_k * mean over the whole batch's rows of the estimate; 0 for the estimator that is paid through the reward."""
    if estimator == "k1_in_reward":
        return logp_BT.new_zeros(())
    return (kl_estimate(logp_BT, reference_BT, batch, estimator) * coef_K).sum() / num_rows
