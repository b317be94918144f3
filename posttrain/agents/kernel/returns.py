"""Returns of a sequence of experience, each one reverse loop over time.

Time-major: `reward_TB[t]` and `discount_TB[t]` follow the action of step t; a discount is gamma, or 0 where the episode ended, so nothing
crosses an end. `value_TB` are the values of the T states acted in, and `bootstrap_B` that of the state after them.
"""

import torch
from torch import Tensor


def n_step_return(reward_TB: Tensor, discount_TB: Tensor, value_TB: Tensor, bootstrap_B: Tensor, n: int) -> Tensor:
    """r_t + g_t r_{t+1} + ... + (g_t ... g_{t+n-1}) v(s_{t+n}), [T, B]; nearer the end of the sequence fewer than n steps are taken."""
    steps = len(reward_TB)
    after_TB = torch.cat([value_TB[1:], bootstrap_B[None]])  # v(s_{t+1})
    ends_TB = torch.cat([after_TB[n - 1 :], bootstrap_B.expand(min(n - 1, steps), -1)])[:steps]
    returns_TB = ends_TB
    for i in reversed(range(n)):
        kept = max(steps - i, 0)
        shorter_TB = reward_TB[i:] + discount_TB[i:] * returns_TB[:kept]
        returns_TB = torch.cat([shorter_TB, returns_TB[kept:]])
    return returns_TB


def lambda_return(reward_TB: Tensor, discount_TB: Tensor, value_TB: Tensor, bootstrap_B: Tensor, lambda_: float) -> Tensor:
    """G_t = r_t + g_t ((1 - lambda) v(s_{t+1}) + lambda G_{t+1}), [T, B]. Minus `value_TB` it is the GAE advantage (arXiv 1506.02438)."""
    after_TB = torch.cat([value_TB[1:], bootstrap_B[None]])
    return_B = bootstrap_B
    returns = []
    for reward_B, discount_B, after_B in _backwards(reward_TB, discount_TB, after_TB):
        return_B = reward_B + discount_B * ((1 - lambda_) * after_B + lambda_ * return_B)
        returns.append(return_B)
    return torch.stack(returns[::-1])


def retrace(
    reward_TB: Tensor, discount_TB: Tensor, q_TB: Tensor, value_TB: Tensor, bootstrap_B: Tensor, ratio_TB: Tensor, lambda_: float
) -> Tensor:
    """Off-policy corrected q-targets (arXiv 1606.02647), [T, B].

    G_t = q_t + sum_{k >= t} (g_t ... g_{k-1}) (c_{t+1} ... c_k) delta_k, delta_k = r_k + g_k v(s_{k+1}) - q_k, c = lambda min(1, ratio).
    `q_TB` are the values of the actions taken, `value_TB` the target policy's expected q, `ratio_TB` its probability of the action
    over the behaviour's.
    """
    after_TB = torch.cat([value_TB[1:], bootstrap_B[None]])
    trace_TB = lambda_ * ratio_TB.clamp(max=1.0)
    correction_B = torch.zeros_like(bootstrap_B)  # c_{t+1} (G_{t+1} - q_{t+1})
    returns = []
    for reward_B, discount_B, after_B, q_B, trace_B in _backwards(reward_TB, discount_TB, after_TB, q_TB, trace_TB):
        return_B = reward_B + discount_B * (after_B + correction_B)
        correction_B = trace_B * (return_B - q_B)
        returns.append(return_B)
    return torch.stack(returns[::-1])


def vtrace(
    reward_TB: Tensor, discount_TB: Tensor, value_TB: Tensor, bootstrap_B: Tensor, ratio_TB: Tensor, lambda_: float = 1.0
) -> tuple[Tensor, Tensor]:
    """V-trace value targets and policy-gradient advantages (arXiv 1802.01561), each [T, B].

    vs_t = v_t + delta_t + g_t c_t (vs_{t+1} - v_{t+1}), delta_t = rho_t (r_t + g_t v_{t+1} - v_t), rho = min(1, ratio), c = lambda rho;
    advantage_t = rho_t (r_t + g_t vs_{t+1} - v_t).
    """
    after_TB = torch.cat([value_TB[1:], bootstrap_B[None]])
    rho_TB = ratio_TB.clamp(max=1.0)
    delta_TB = rho_TB * (reward_TB + discount_TB * after_TB - value_TB)
    excess_B = torch.zeros_like(bootstrap_B)  # vs - v
    excesses = []
    for delta_B, discount_B, rho_B in _backwards(delta_TB, discount_TB, rho_TB):
        excess_B = delta_B + discount_B * lambda_ * rho_B * excess_B
        excesses.append(excess_B)
    target_TB = value_TB + torch.stack(excesses[::-1])
    after_target_TB = torch.cat([target_TB[1:], bootstrap_B[None]])
    return target_TB, rho_TB * (reward_TB + discount_TB * after_target_TB - value_TB)


def _backwards(*sequences: Tensor) -> zip:
    """The time steps of several [T, B] tensors together, last first; `unbind` as indexing makes the backward pass quadratic in T."""
    return zip(*(sequence.unbind(0)[::-1] for sequence in sequences), strict=True)
