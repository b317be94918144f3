"""A set of policies in one network: how they act side by side, what each of them meets, and the choice of one by trials.

Environments take turns: environment b is policy b % N's.
"""

import torch
from torch import Tensor, nn

from posttrain.agents.kernel.envs.vector import VectorEnv
from posttrain.agents.kernel.nets import mlp
from posttrain.agents.kernel.ppo import drawn


class PolicySet(nn.Module):
    """pi(a | s, z), V(s, z) and Psi(s, z): three networks that see the observation and which policy it is, a latent of one number in N.

    The latent also stands as a product with the observation, which gives every policy a first layer of its own beside the common one.
    """

    def __init__(self, num_obs: int, num_actions: int, num_policies: int, num_features: int, hidden: int) -> None:
        super().__init__()
        self.num_policies = num_policies
        num_inputs = num_obs + num_policies * (num_obs + 1)
        self.actor, self.value, self.ahead = (mlp([num_inputs, hidden, hidden, outputs]) for outputs in (num_actions, 1, num_features))

    def inputs(self, obs: Tensor, policy: Tensor) -> Tensor:
        """What the three networks read, [..., D], [...] -> [..., D + N + N D]."""
        latent = nn.functional.one_hot(policy, self.num_policies).to(obs)
        return torch.cat([obs, latent, (latent[..., :, None] * obs[..., None, :]).flatten(-2)], -1)


@torch.no_grad()
def act(net: PolicySet, obs: Tensor, policy_B: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Actions of each environment's policy, with their log-probabilities, each [B]."""
    return drawn(net.actor(net.inputs(obs, policy_B)), draws)


def by_policy(x: Tensor, num: int) -> Tensor:
    """The mean of each policy over time and its environments, which take turns, [T, B, ...] -> [N, ...]."""
    return x.unflatten(1, (-1, num)).mean((0, 1))


@torch.no_grad()
def play(net: PolicySet, env: VectorEnv, steps: int, draws: torch.Generator, starts: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mean reward of a step of every policy's environments [N, E], and what was seen on the way [T, N, E, D]."""
    policy_B = torch.arange(env.num_envs, device=env.device) % net.num_policies
    obs, seen, rewards = env.reset(starts), [], []
    for _ in range(steps):
        seen.append(obs)
        obs, reward, _, _ = env.step(act(net, obs, policy_B, draws)[0])
        rewards.append(reward)
    apart = (-1, net.num_policies)
    return torch.stack(rewards).mean(0).unflatten(0, apart).T, torch.stack(seen).unflatten(1, apart).transpose(1, 2)


def tried(value_NE: Tensor, k: int) -> dict[str, float]:
    """The first policy, the mean of all, and the one that did best in its first `k` trials, judged on the further ones."""
    trials_N, judged_N = value_NE[:, :k].mean(1), value_NE[:, k:].mean(1)
    found = {"single": judged_N[0], "all": judged_N.mean(), "picked": judged_N[trials_N.argmax()]}
    return {name: x.item() for name, x in found.items()}
