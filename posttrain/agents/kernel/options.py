"""Options: stretches of behaviour with a code, learnt from experience, and the decisions of an agent that chooses among them.

A variational model of n steps, as in a conditional autoencoder whose code z is one of K (after arXiv 2302.14451):

    L = E_{z ~ q(z | o_t ... o_{t+n}, a_t ... a_{t+n-1})} [ - sum_i log pi(a_{t+i} | o_{t+i}, z) ]  +  beta KL(q || p(z | o_t))
        +  usage (log K - H(mean q))

q reads the whole stretch, the prior p its first observation, and the option pi(a | o, z) what is seen now. The expectation is summed over
all codes, so nothing is sampled and no gradient is estimated. beta is what a nat of code costs: an information bottleneck on behaviour. The
last term, over a batch, keeps codes alive that no stretch asks for at first and that would never be asked for again.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, relu

from posttrain.agents.kernel.nets import mlp, torso


class Segments(NamedTuple):
    """N stretches of n actions and the n + 1 observations around them."""

    obs: Tensor
    """[n+1, N, *obs_shape]"""
    action: Tensor
    """[n, N]"""
    known: Tensor
    """Whether an observation belongs to the stretch, [n+1, N]: none does after the end of an episode."""


class OptionModel(nn.Module):
    """Encoder q, prior p and options pi of `codes` codes and `steps` steps."""

    def __init__(self, obs_shape: Sequence[int], num_actions: int, codes: int, steps: int, hidden: int, sees: int | None = None) -> None:
        """An option sees the first `sees` numbers of an observation, or all; q and p see all."""
        super().__init__()
        self.num_actions, self.codes, self.steps, self.sees = num_actions, codes, steps, sees
        self.read = torso(obs_shape, hidden)
        self.posterior = mlp([(steps + 1) * (hidden + 1) + steps * num_actions, 2 * hidden, codes])
        self.foresee, self.prior_head = torso(obs_shape, hidden), nn.Linear(hidden, codes)
        self.see = torso(obs_shape if sees is None else (sees,), hidden)
        self.from_code = nn.Embedding(codes, hidden)
        self.policy_head = nn.Linear(hidden, num_actions)

    def encode(self, segments: Segments) -> Tensor:
        """Logits of q, [N, K]."""
        known = segments.known[..., None].float()
        seen = self.read(segments.obs.flatten(0, 1)).unflatten(0, known.shape[:2]) * known
        done = one_hot(segments.action, self.num_actions) * known[:-1]
        return self.posterior(torch.cat([x.transpose(0, 1).flatten(1) for x in (seen, known, done)], 1))

    def prior(self, obs: Tensor) -> Tensor:
        """Logits of p, [N, *obs_shape] -> [N, K]."""
        return self.prior_head(relu(self.foresee(obs)))

    def act(self, obs: Tensor, code: Tensor) -> Tensor:
        """Logits of pi for one code each, [N, *obs_shape], [N] -> [N, A]."""
        return self.policy_head(relu(self._seen(obs) + self.from_code(code)))

    def act_all(self, obs: Tensor) -> Tensor:
        """Logits of pi for every code, [N, *obs_shape] -> [N, K, A]."""
        return self.policy_head(relu(self._seen(obs)[:, None] + self.from_code.weight))

    def _seen(self, obs: Tensor) -> Tensor:
        return self.see(obs if self.sees is None else obs[:, : self.sees])


def bottleneck_loss(
    posterior_NK: Tensor, prior_NK: Tensor, logp_TNK: Tensor, known_TN: Tensor, beta: float, usage: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss above and its parts, from logits of q and p and the log-probability of each action under each code.

    Parts are nats: `nll` a step, `rate` = KL(q || p) a stretch; `perplexity` = exp H(mean q) is how many codes are in use.
    """
    logq_NK = posterior_NK.log_softmax(-1)  # of which KL has a gradient even where q is 0
    q_NK = logq_NK.exp()
    nll_N = -(q_NK * (logp_TNK * known_TN[..., None]).sum(0)).sum(-1)
    rate_N = (q_NK * (logq_NK - prior_NK.log_softmax(-1))).sum(-1)
    mean_K = q_NK.mean(0)
    entropy = torch.special.entr(mean_K.clamp(min=1e-12)).sum()
    parts = {
        "nll": nll_N.sum() / known_TN.sum(),
        "rate": rate_N.mean(),
        "perplexity": entropy.exp(),
    }
    loss = (nll_N + beta * rate_N).mean() + usage * (math.log(q_NK.shape[1]) - entropy)
    return loss, {name: x.detach() for name, x in parts.items()}


def option_loss(model: OptionModel, segments: Segments, beta: float, usage: float) -> tuple[Tensor, dict[str, Tensor]]:
    """`bottleneck_loss` of some stretches."""
    steps, known_TN = segments.action.shape[0], segments.known[:-1]
    logits = model.act_all(segments.obs[:-1].flatten(0, 1)).unflatten(0, (steps, -1))  # [n, N, K, A]
    action = segments.action[..., None, None].expand(-1, -1, model.codes, 1)
    logp_TNK = logits.log_softmax(-1).gather(-1, action)[..., 0]
    return bottleneck_loss(model.encode(segments), model.prior(segments.obs[0]), logp_TNK, known_TN, beta, usage)


def segments_at(obs_PN: Tensor, action_PN: Tensor, ended_PN: Tensor, start_M: Tensor, column_M: Tensor, steps: int) -> Segments:
    """The stretches of `steps` actions that begin at some steps of some columns; what would leave the experience repeats its last step."""
    step_TM = (start_M + torch.arange(steps + 1, device=start_M.device)[:, None]).clamp(max=len(action_PN) - 1)
    ended_TM = ended_PN[step_TM, column_M]
    known_TM = torch.cat([torch.ones_like(ended_TM[:1]), ended_TM[:-1].cumsum(0) == 0])
    return Segments(obs_PN[step_TM, column_M], action_PN[step_TM[:-1], column_M], known_TM)


class Decisions(NamedTuple):
    """The first of every column's decisions, each [num, N]; of the last one only `step` is sure, as it may go on behind the experience."""

    step: Tensor
    """Where it begins."""
    length: Tensor
    """Steps until the next one."""
    reward: Tensor
    """sum_i gamma^i r_{t+i} over its steps."""
    discount: Tensor
    """gamma ** length"""
    terminated: Tensor
    truncated: Tensor


def decisions_of(begins_PN: Tensor, reward_PN: Tensor, terminated_PN: Tensor, truncated_PN: Tensor, num: int, gamma: float) -> Decisions:
    """A semi-Markov decision process from single steps, `begins_PN` saying at which of them a choice was made.

    Steps before a column's first choice belong to none and are left out. Raises `ValueError` where a column has fewer than `num`.
    """
    number_PN = begins_PN.long().cumsum(0) - 1
    if int(number_PN[-1].min()) < num - 1:
        raise ValueError(f"need {num} decisions in every column, found one with {int(number_PN[-1].min()) + 1}")
    steps, columns = begins_PN.shape
    of_PN = torch.where(number_PN < 0, num, number_PN.clamp(max=num))  # the row `num` takes what is left out
    place_P1 = torch.arange(steps, device=begins_PN.device)[:, None]
    empty = torch.zeros(num + 1, columns, device=begins_PN.device)

    def summed(x_PN: Tensor) -> Tensor:
        return empty.scatter_add(0, of_PN, x_PN.float())

    step = summed(place_P1 * begins_PN).long()
    weight_PN = gamma ** (place_P1 - step.gather(0, of_PN)).clamp(min=0).float()
    length = summed(torch.ones_like(reward_PN)).long()
    return Decisions(
        step[:num],
        length[:num],
        summed(weight_PN * reward_PN)[:num],
        gamma ** length[:num].float(),
        summed(terminated_PN)[:num] > 0,
        summed(truncated_PN)[:num] > 0,
    )


@torch.no_grad()
def relabelled(model: OptionModel, fields: dict[str, Tensor], found: Decisions, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Codes that q reads from what was done at each decision, and their log-probability by the prior, which stands for the behaviour's."""
    start, shape = found.step.flatten(), found.step.shape
    column = torch.arange(shape[1], device=start.device).repeat(shape[0])
    segments = segments_at(fields["obs"], fields["action"], fields["terminated"] | fields["truncated"], start, column, model.steps)
    within = torch.arange(model.steps + 1, device=start.device)[:, None] <= found.length.flatten()
    code = torch.multinomial(model.encode(segments._replace(known=segments.known & within)).softmax(-1), 1, generator=draws)
    logp = model.prior(segments.obs[0]).log_softmax(-1).gather(-1, code)
    return code.view(shape), logp.view(shape)


def followed(mean_Z: Tensor, choice_M: Tensor, x_M: Tensor, rate: float) -> Tensor:
    """`mean_Z` moved by `rate` towards the mean of `x_M` under each choice; a choice that is not among them keeps its own."""
    count_Z = torch.zeros_like(mean_Z).index_add(0, choice_M, torch.ones_like(x_M))
    new_Z = torch.zeros_like(mean_Z).index_add(0, choice_M, x_M) / count_Z.clamp(min=1)
    return torch.where(count_Z > 0, mean_Z.lerp(new_Z, rate), mean_Z)
