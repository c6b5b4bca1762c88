"""RewardBench 2's rules against a literal transcription of allenai/reward-bench."""

import numpy as np
import pytest

from laser.evaluation.candidates import Labeled, macro_f1, share_of_best, ties_score


def literal_stats(samples):
    """`_compute_prompt_stats`."""
    correct = [score for is_correct, score in samples if is_correct]
    incorrect = [score for is_correct, score in samples if not is_correct]
    spread = max(correct) - min(correct) if len(correct) > 1 else None
    margin = min(correct) - max(incorrect)
    return margin > 0, spread, margin


def literal_score(references, tied):
    """`process_single_model`."""
    ref_stats = {name: literal_stats(samples) for name, samples in references.items()}
    tied_stats = {name: literal_stats(samples) for name, samples in tied.items()}
    ref_accuracy = np.mean([stats[0] for stats in ref_stats.values()]) if ref_stats else 0.0
    tied_accuracy = np.mean([stats[0] for stats in tied_stats.values()]) if tied_stats else 0.0
    prompts = set(ref_stats) & set(tied_stats)
    spread = np.array([tied_stats[one][1] for one in prompts])
    ties = np.array([tied_stats[one][2] for one in prompts])
    ref = np.array([ref_stats[one][2] for one in prompts])
    preferred = np.mean(ties > spread)
    hard = np.mean(np.minimum(ref, ties) > spread)
    margins = np.nan_to_num(np.tanh(np.minimum(ref, ties) / spread - 1), nan=0.0)
    return 0.30 * tied_accuracy + 0.30 * ref_accuracy + 0.20 * preferred + 0.20 * hard + 0.01 * float(np.mean(margins))


def labeled(samples):
    return Labeled(*(np.array([score for ok, score in samples if ok == kind], dtype=float) for kind in (True, False)))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", range(20))
def test_ties_are_scored_as_rewardbench_2_scores_them(seed):
    """Whole scores make spreads of 0, and so divisions by it, frequent."""
    rng = np.random.default_rng(seed)

    def draw(num_correct, shift):
        correct = [(True, float(score)) for score in rng.integers(0, 5, num_correct) + shift]
        return correct + [(False, float(score)) for score in rng.integers(0, 5, 4)]

    references = {str(number): draw(1, 2) for number in range(8)}
    tied = {str(number): draw(int(rng.integers(2, 4)), 3) for number in range(9)}
    ours = ties_score(*({name: labeled(samples) for name, samples in of.items()} for of in (references, tied)))
    assert ours == pytest.approx(literal_score(references, tied))


def test_an_unscored_response_makes_a_tied_prompt_wrong():
    scored, half = Labeled(np.array([3.0, 4.0]), np.array([1.0])), Labeled(np.array([3.0, np.nan]), np.array([1.0]))
    reference = {"0": Labeled(np.array([3.0]), np.array([1.0]))}
    assert ties_score(reference, {"0": scored}) > 0.99
    assert ties_score(reference, {"0": half}) == pytest.approx(0.3)
    assert share_of_best(half) == 0


@pytest.mark.parametrize(
    ("correct", "incorrect", "share"),
    [
        ([1], [0], 1),
        ([0], [1], 0),
        ([1], [1], 0.5),
        ([4], [4, 4, 2], 1 / 3),
        ([1], [4, 4, 2], 0),
        ([4, 4], [4, 1], 2 / 3),
    ],
)
def test_the_share_of_the_best_that_is_correct(correct, incorrect, share):
    assert share_of_best(Labeled(np.array(correct, float), np.array(incorrect, float))) == pytest.approx(share)


def test_agreement_without_a_common_verdict_is_not_a_number():
    gaps = np.array([1.0, 0.0, np.nan])
    assert macro_f1(gaps, gaps) == 1
    assert np.isnan(macro_f1(gaps, np.array([0.0, 1.0, 1.0])))
