"""The four losses: identities, worked numbers, finite differences."""

import math

import pytest
import torch

from laser.training.losses import Objective, PairLogps, dpo_loss, kto_loss, nll_loss

LOSSES = ["dpo", "nll", "nll+dpo", "kto"]


def random_logps(num_pairs=7, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw():
        return -20 * torch.rand(num_pairs, generator=generator, dtype=torch.float64)

    lengths = torch.randint(1, 30, (num_pairs,), generator=generator).double()
    return PairLogps(draw().requires_grad_(), draw().requires_grad_(), draw(), draw(), lengths)


def test_dpo_is_log_two_where_policy_and_reference_agree():
    chosen, rejected = torch.tensor([-3.0, -40.0]), torch.tensor([-9.0, -1.0])
    loss = dpo_loss(chosen, rejected, chosen, rejected, beta=0.1)
    torch.testing.assert_close(loss, torch.full((2,), math.log(2.0)))


def test_swapping_chosen_and_rejected_changes_dpo_by_exactly_the_logit():
    logps = random_logps()
    args = (logps.policy_chosen, logps.policy_rejected, logps.reference_chosen, logps.reference_rejected)
    swapped = (args[1], args[0], args[3], args[2])
    logit = 0.3 * ((args[0] - args[2]) - (args[1] - args[3]))
    difference = dpo_loss(*swapped, beta=0.3) - dpo_loss(*args, beta=0.3)
    torch.testing.assert_close(difference, logit)


def test_dpo_worked_number():
    """r_w = -1 - (-2) = 1 and r_l = -3 - (-2) = -1, so with beta = 0.5 the loss is -log sigmoid(1) = log(1 + e^-1)."""
    one = torch.ones(1, dtype=torch.float64)
    loss = dpo_loss(-1 * one, -3 * one, -2 * one, -2 * one, beta=0.5)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-1)), abs=1e-12)


def test_nll_divides_each_response_by_its_own_length():
    loss = nll_loss(torch.tensor([-6.0, -6.0]), torch.tensor([2.0, 12.0]))
    assert loss.tolist() == [3.0, 0.5]


def test_kto_is_one_half_at_the_reference_point():
    """With policy = reference and z0 = 0 both kinds of response lose 1 - sigmoid(0) = 1/2."""
    logps = torch.tensor([-4.0, -5.0])
    loss = kto_loss(logps, logps, torch.tensor([True, False]), torch.zeros(()), beta=0.1)
    assert loss.tolist() == [0.5, 0.5]


def test_kto_worked_number():
    """Log-ratio 3 over z0 = 1 is an advantage of 2: desirable 1 - sigmoid(1), undesirable 1 - sigmoid(-1)."""
    policy, reference = torch.tensor([-2.0, -2.0]), torch.tensor([-5.0, -5.0])
    loss = kto_loss(policy, reference, torch.tensor([True, False]), torch.tensor(1.0), beta=0.5)
    expected = [1 - 1 / (1 + math.exp(-1)), 1 - 1 / (1 + math.exp(1))]
    assert loss.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_match_finite_differences(name):
    logps = random_logps(num_pairs=3)
    objective = Objective(name, beta=0.2, nll_weight=0.7)

    def total(chosen, rejected):
        pairs = PairLogps(chosen, rejected, logps.reference_chosen, logps.reference_rejected, logps.chosen_lengths)
        return sum(part.sum() for part in objective.parts(pairs, torch.tensor(0.4, dtype=torch.float64)).values())

    assert torch.autograd.gradcheck(total, (logps.policy_chosen, logps.policy_rejected))


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_falls_when_the_chosen_response_becomes_likelier(name):
    logps = random_logps()
    parts = Objective(name).parts(logps, torch.zeros((), dtype=torch.float64))
    sum(part.sum() for part in parts.values()).backward()
    assert (logps.policy_chosen.grad < 0).all()


def test_nll_plus_dpo_is_the_weighted_sum_of_its_parts():
    logps = random_logps()
    zero = torch.zeros((), dtype=torch.float64)
    both = Objective("nll+dpo", beta=0.3, nll_weight=0.25).parts(logps, zero)
    torch.testing.assert_close(both["dpo"], Objective("dpo", beta=0.3).parts(logps, zero)["dpo"])
    torch.testing.assert_close(both["nll"], 0.25 * Objective("nll").parts(logps, zero)["nll"])
    assert set(both) == {"dpo", "nll"}


def test_only_nll_needs_no_reference():
    assert [name for name in LOSSES if not Objective(name).needs_reference] == ["nll"]
    assert [name for name in LOSSES if Objective(name).needs_kl] == ["kto"]
