"""Options: their loss beside a slow twin, what it teaches, what an option sees, and decisions out of single steps."""

import math

import pytest
import torch

from posttrain.agents.kernel.options import (
    OptionModel,
    Segments,
    bottleneck_loss,
    decisions_of,
    followed,
    option_loss,
    relabelled,
    segments_at,
)


def test_the_loss_is_an_expectation_over_codes_and_a_price_for_them():
    posterior, prior = torch.randn(3, 4), torch.randn(3, 4)
    logp, known = -torch.rand(2, 3, 4), torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    expected = 0.0
    for i in range(3):
        q, p = posterior[i].softmax(0).tolist(), prior[i].softmax(0).tolist()
        for code in range(4):
            expected -= q[code] * sum(logp[t, i, code].item() for t in range(2) if known[t, i])
            expected += 0.3 * q[code] * math.log(q[code] / p[code])
    loss, parts = bottleneck_loss(posterior, prior, logp, known, beta=0.3, usage=0.0)
    assert loss.item() == pytest.approx(expected / 3, abs=1e-5)
    mean = [sum(posterior[i].softmax(0)[code].item() for i in range(3)) / 3 for code in range(4)]
    short = math.log(4) + sum(p * math.log(p) for p in mean)
    assert bottleneck_loss(posterior, prior, logp, known, 0.3, usage=0.7)[0].item() == pytest.approx(expected / 3 + 0.7 * short, abs=1e-5)
    assert parts["nll"].item() * 5 + 3 * 0.3 * parts["rate"].item() == pytest.approx(expected, abs=1e-5)


def test_codes_in_use_are_counted():
    certain = torch.eye(4) * 200  # beyond which a probability is exactly 0
    posterior = certain[[0, 0, 1, 1]].requires_grad_()
    loss, parts = bottleneck_loss(posterior, torch.zeros(4, 4), torch.zeros(1, 4, 4), torch.ones(1, 4), 1.0, 0.5)
    assert parts["perplexity"].item() == pytest.approx(2.0)
    assert parts["rate"].item() == pytest.approx(math.log(4))
    loss.backward()
    assert posterior.grad.isfinite().all()


def straight(num, steps=3):
    """Stretches that repeat one of four actions, whatever is seen."""
    action = torch.randint(4, (num,)).expand(steps, -1)
    return Segments(torch.randn(steps + 1, num, 2), action, torch.ones(steps + 1, num, dtype=torch.bool))


@pytest.mark.parametrize(("beta", "told"), [(0.05, True), (5.0, False)])
def test_a_code_tells_what_was_done_where_it_is_worth_its_price(beta, told):
    """Log 4 nats of code save 3 log 4 of actions: worth it at .05 a nat, not at 5."""
    torch.manual_seed(0)
    model = OptionModel((2,), 4, codes=8, steps=3, hidden=16)
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(300):
        adam.zero_grad()
        option_loss(model, straight(64), beta, 0.0)[0].backward()
        adam.step()
    _, parts = option_loss(model, straight(2000), beta, 0.0)
    assert (parts["nll"] < 0.1) == told
    assert parts["nll"].item() == pytest.approx(0.0 if told else math.log(4), abs=0.1)
    assert parts["rate"].item() == pytest.approx(math.log(4) if told else 0.0, abs=0.15)


def test_one_code_and_all_codes_act_alike_and_an_option_sees_only_its_part():
    model = OptionModel((5,), 4, codes=3, steps=2, hidden=8, sees=2)
    obs = torch.randn(6, 5)
    code = torch.tensor([0, 1, 2, 0, 1, 2])
    assert torch.allclose(model.act(obs, code), model.act_all(obs)[torch.arange(6), code], atol=1e-6)
    other = torch.cat([obs[:, :2], torch.randn(6, 3)], 1)
    assert torch.equal(model.act(obs, code), model.act(other, code))
    assert not torch.equal(model.prior(obs), model.prior(other))


def test_what_comes_after_an_end_is_not_read():
    obs, action = torch.randn(6, 2, 3), torch.randint(4, (6, 2))
    ended = torch.zeros(6, 2, dtype=torch.bool)
    ended[2, 0] = True
    segments = segments_at(obs, action, ended, torch.tensor([1, 1, 4]), torch.tensor([0, 1, 0]), 3)
    assert segments.known.T.tolist() == [[True, True, False, False], [True] * 4, [True] * 4]
    assert torch.equal(segments.obs[:, 1], obs[1:5, 1])
    assert torch.equal(segments.action[:, 1], action[1:4, 1])
    model = OptionModel((3,), 4, codes=3, steps=3, hidden=8)
    changed = segments_at(obs + 5 * (torch.arange(6) > 2)[:, None, None], action, ended, torch.tensor([1]), torch.tensor([0]), 3)
    assert torch.equal(model.encode(changed), model.encode(segments_at(obs, action, ended, torch.tensor([1]), torch.tensor([0]), 3)))


def decided_slowly(begins, reward, terminated, truncated, num, gamma):
    """One column, in plain Python."""
    starts = [t for t, begun in enumerate(begins) if begun]
    rows = []
    for start, end in zip(starts, [*starts[1:], len(begins)], strict=True):
        steps = range(start, end)
        total = sum(gamma**i * reward[t] for i, t in enumerate(steps))
        rows.append(
            (start, end - start, total, gamma ** (end - start), any(terminated[t] for t in steps), any(truncated[t] for t in steps))
        )
    return rows[:num]


def test_decisions_are_as_the_slow_twin_says():
    generator = torch.Generator().manual_seed(0)
    begins = torch.rand(40, 50, generator=generator) < 0.4
    begins[-8:] = True
    reward = torch.randn(40, 50, generator=generator)
    ends = torch.rand(40, 50, generator=generator)
    terminated, truncated = ends < 0.05, ends > 0.95
    got = decisions_of(begins, reward, terminated, truncated, 7, 0.9)
    for column in range(50):
        expected = decided_slowly(*(x[:, column].tolist() for x in (begins, reward, terminated, truncated)), 7, 0.9)
        for k, row in enumerate(expected):
            assert [x[k, column].item() for x in got] == pytest.approx(list(row), abs=1e-5)


def test_choices_of_one_step_are_the_steps_themselves():
    reward, no = torch.randn(9, 4), torch.zeros(9, 4, dtype=torch.bool)
    got = decisions_of(~no, reward, no, no, 9, 0.97)
    assert torch.equal(got.reward, reward)
    assert torch.equal(got.discount, torch.full((9, 4), 0.97))


def test_too_few_decisions_are_refused():
    no = torch.zeros(9, 4, dtype=torch.bool)
    begins = no.clone()
    begins[::3] = True
    with pytest.raises(ValueError, match="need 4 decisions in every column, found one with 3"):
        decisions_of(begins, no.float(), no, no, 4, 0.9)


def test_relabelling_reads_what_each_decision_did_and_nothing_after_it():
    torch.manual_seed(0)
    model, no = OptionModel((3,), 4, codes=5, steps=3, hidden=8), torch.zeros(12, 20, dtype=torch.bool)
    for layer in (model.posterior[0], model.posterior[-1]):
        layer.weight.data *= 30  # codes that are certain
    fields = {"obs": 5 * torch.randn(12, 20, 3), "action": torch.randint(4, (12, 20)), "terminated": no, "truncated": no}
    begins = no.clone()
    begins[[0, 3, 5, 6, 9]] = True
    found = decisions_of(begins, no.float(), no, no, 4, 0.9)
    code, logp = relabelled(model, fields, found, torch.Generator())
    for k, (start, length) in enumerate([(0, 3), (3, 2), (5, 1), (6, 3)]):
        for column in range(20):
            one = segments_at(fields["obs"], fields["action"], no, torch.tensor([start]), torch.tensor([column]), 3)
            known = torch.arange(4)[:, None] <= length
            assert code[k, column] == model.encode(one._replace(known=known)).argmax()
            prior = model.prior(fields["obs"][start, column][None]).log_softmax(-1)[0]
            assert logp[k, column].item() == pytest.approx(prior[code[k, column]].item(), abs=1e-5)
    assert len(set(code.flatten().tolist())) > 1


def test_a_mean_follows_what_its_choice_was_and_stays_where_there_was_none():
    after = followed(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 0, 2]), torch.tensor([5.0, 7.0, 3.0]), rate=0.25)
    assert after.tolist() == pytest.approx([1 + 0.25 * 5, 2.0, 3.0])
