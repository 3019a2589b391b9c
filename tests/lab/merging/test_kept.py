"""What the experiment with four experts says of itself: shares kept, leads and their intervals."""

import numpy as np
import pytest
from loadtest.kept import Trial, lead, share_kept, table


def right(count: int, of: int = 100) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.repeat([1.0, 0.0], [count, of - count])


def test_half_of_a_gain_is_half_kept() -> None:
    kept = share_kept([Trial(right(50), right(90), right(70))])
    assert kept
    assert kept.value == pytest.approx(0.5)
    assert kept.low < 0.5 < kept.high


def test_shares_are_averaged_over_trials_and_not_over_pairs() -> None:
    """The same as one number of the issue: 95% of each expert's gain, on average."""
    kept = share_kept([Trial(right(50), right(100), right(100)), Trial(right(60), right(80), right(60))])
    assert kept
    assert kept.value == pytest.approx((1 + 0) / 2)


def test_a_merge_below_the_base_keeps_less_than_nothing() -> None:
    kept = share_kept([Trial(right(50), right(100), right(40))])
    assert kept
    assert kept.value == pytest.approx(-0.2)


def test_an_expert_that_gained_next_to_nothing_says_nothing_of_a_merge() -> None:
    learnt, did_not = Trial(right(50), right(100), right(90)), Trial(right(96), right(100), right(90))
    assert share_kept([learnt, did_not]) == share_kept([learnt])
    assert share_kept([did_not]) is None


def test_an_expert_that_merges_without_loss_keeps_all_whichever_pairs_are_drawn() -> None:
    kept = share_kept([Trial(right(50), right(90), right(90))])
    assert kept
    assert (kept.value, kept.low, kept.high) == (1.0, 1.0, 1.0)


def test_the_lead_over_the_general_model_pairs_the_same_cases() -> None:
    found = lead([Trial(right(50), right(90), right(80))])
    assert found.value == pytest.approx(0.1)
    assert found.low == pytest.approx(0.05, abs=0.02), "pairs that both have right make no spread"
    assert found.high == pytest.approx(0.16, abs=0.02)


def test_the_table_names_every_seed_and_model_and_what_was_chosen() -> None:
    def seen(count: int) -> dict[str, dict[str, list[float]]]:
        return {name: {"seen": right(count).tolist(), "grey": right(50).tolist()} for name in ("foot", "heart")}

    models = {"base": seen(50), "general": seen(70), "expert": seen(90), "ties, chosen": seen(80)}
    told = table([{"seed": n, "chosen": {"ties": [0.1, n + 1]}, "credits": models} for n in (0, 1)])
    lines = told.splitlines()
    assert "| expert | 90 (85 to 93) | 90 (85 to 93) | 90 (87 to 93) | 50 (45 to 55) |" in lines
    assert any(line.startswith("| ties, chosen: 0.1 by 1, 0.1 by 2 | 75 | 75 | 75 (") for line in lines)
    assert any(line.startswith("| mean | 20 | 20 | 20 (") for line in lines)
