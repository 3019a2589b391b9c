"""Every figure against scipy, statsmodels or a published worked example, on random data where there is a peer."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import optimize, stats
from statsmodels.stats.anova import AnovaRM
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa
from statsmodels.stats.proportion import proportion_confint

from medreward.bench.statistics import Floats
from medreward.bench.statistics.accuracy import (
    bootstrap,
    by_length,
    by_position,
    credits_of,
    design_effect,
    grouped_wilson,
    macro_bootstrap,
)
from medreward.bench.statistics.agreement import MISSING, cohen, fleiss, krippendorff, majority, observed
from medreward.bench.statistics.calibration import BINS, calibration
from medreward.bench.statistics.many import cochran_q, friedman, letters, ranks, repeated_measures_anova
from medreward.bench.statistics.paired import (
    adjusted,
    cases_needed,
    difference,
    mcnemar,
    non_inferiority,
    odds_ratio,
    power_of_mcnemar,
    smallest_difference,
    tango,
)


@pytest.fixture
def chance() -> np.random.Generator:
    return np.random.default_rng(7)


def drawn(chance: np.random.Generator, n: int, *shares: float) -> list[Floats]:
    """A column of right and wrong for each share."""
    return [(chance.random(n) < share).astype(np.float64) for share in shares]


def alone(values: Floats) -> npt.NDArray[np.int64]:
    return np.arange(len(values))


def test_a_tie_is_half_a_credit_and_no_answer_is_none() -> None:
    labels, choices = np.array([1.0, 1, -1, -1, 1]), np.array([1.0, -1, -1, 0, np.nan])
    assert credits_of(labels, choices).tolist() == [1, 0, 1, 0.5, 0]


def test_the_design_effect_is_that_of_statsmodels_clustered_errors(chance: np.random.Generator) -> None:
    groups = chance.integers(0, 60, 200)
    values = (chance.random(60)[groups] > chance.random(200)).astype(np.float64)
    fit = sm.OLS(values, np.ones(200))
    clustered = fit.fit(cov_type="cluster", cov_kwds={"groups": groups}).bse[0]
    effect = design_effect(values, groups)
    assert effect == pytest.approx((clustered / fit.fit(cov_type="HC1").bse[0]) ** 2, rel=1e-9)
    assert effect > 1.2
    n = 200 / effect
    expected = proportion_confint(values.mean() * n, n, method="wilson")
    assert grouped_wilson(values, groups) == pytest.approx(expected, abs=1e-9)
    assert design_effect(values, alone(values)) == pytest.approx(1, rel=1e-9)


def test_the_bootstrap_draws_images_and_not_cases(chance: np.random.Generator) -> None:
    groups = np.repeat(np.arange(100), 4)
    values = np.repeat(drawn(chance, 100, 0.7)[0], 4)  # four cases of one image are always alike
    found = bootstrap(values, groups)
    assert found is not None
    share = values.mean()
    assert found == pytest.approx(stats.norm.interval(0.95, share, math.sqrt(share * (1 - share) / 100)), abs=0.015)
    peer = stats.bootstrap(
        (values,), np.mean, vectorized=True, n_resamples=2000, method="percentile", rng=np.random.default_rng(0)
    )
    assert bootstrap(values, alone(values)) == pytest.approx(tuple(peer.confidence_interval))
    assert bootstrap(values[:4], groups[:4]) is None


def test_the_macro_bootstrap_weighs_parts_alike(chance: np.random.Generator) -> None:
    parts = np.repeat(["large", "small"], [900, 100])
    values = np.concatenate([np.ones(900), drawn(chance, 100, 0.5)[0]])
    found = macro_bootstrap(values, parts, alone(values))
    assert found is not None
    assert sum(found) / 2 == pytest.approx((1 + values[900:].mean()) / 2, abs=0.01)
    assert found[1] - found[0] == pytest.approx(2 * 1.96 * 0.05 / 2, rel=0.1)
    assert macro_bootstrap(values[:901], parts[:901], alone(values[:901])) is None


@pytest.mark.parametrize(("n", "shares"), [(30, (0.6, 0.8)), (400, (0.7, 0.65)), (1026, (0.66, 0.7))])
def test_mcnemars_test_is_that_of_statsmodels(n: int, shares: tuple[float, float], chance: np.random.Generator) -> None:
    first, second = drawn(chance, n, *shares)
    found = mcnemar(first, second)
    table = pd.crosstab(first, second).to_numpy()
    assert found.p == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue, rel=1e-9)
    assert (found.better, found.worse, found.n) == (table[1, 0], table[0, 1], n)
    one_sided = stats.binom.cdf(found.better, found.discordant, 0.5)
    assert mcnemar(first, second, "less").p == pytest.approx(one_sided, rel=1e-9)
    assert mcnemar(first, first).p == 1


def test_a_tie_is_worse_than_right_and_better_than_wrong() -> None:
    found = mcnemar(np.array([1, 0.5, 0.5, 0]), np.array([0.5, 0, 0.5, 1]))
    assert (found.better, found.worse) == (2, 1)


def test_corrections_are_those_of_a_worked_example() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    assert adjusted(p, "holm") == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjusted(p, "bonferroni") == pytest.approx([0.04, 0.16, 0.12, 0.02])
    assert adjusted([], "holm") == []


def test_the_odds_ratio_has_the_exact_interval() -> None:
    ratio, (low, high) = odds_ratio(30, 12)
    bounds = stats.beta.ppf(0.025, 30, 13), stats.beta.ppf(0.975, 31, 12)
    assert ratio == pytest.approx(2.5)
    assert (low, high) == pytest.approx(tuple(bound / (1 - bound) for bound in bounds))
    assert odds_ratio(5, 0)[0] == math.inf
    assert odds_ratio(5, 0)[1][1] == math.inf
    assert odds_ratio(0, 0) == (None, (0, math.inf))


def score_by_optimiser(better: int, worse: int, n: int, delta: float) -> float:
    """Tango's statistic, with the shares found by an optimiser instead of the closed form."""

    def loss(share_worse: float) -> float:
        shares = [share_worse + delta, share_worse, 1 - 2 * share_worse - delta]
        counts = [better, worse, n - better - worse]
        return -sum(count * math.log(max(share, 1e-300)) for count, share in zip(counts, shares, strict=True) if count)

    bounds = max(0, -delta), (1 - delta) / 2
    found = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    return float((better - worse - n * delta) / math.sqrt(n * (2 * found + delta - delta**2)))


@pytest.mark.parametrize(("better", "worse", "n"), [(12, 2, 50), (0, 5, 30), (60, 71, 1026), (3, 0, 400), (25, 25, 60)])
def test_tangos_bounds_are_where_the_score_statistic_is_the_normal_quantile(better: int, worse: int, n: int) -> None:
    low, high = tango(better, worse, n)
    z = stats.norm.ppf(0.975)
    assert score_by_optimiser(better, worse, n, low) == pytest.approx(z, abs=2e-3)
    assert score_by_optimiser(better, worse, n, high) == pytest.approx(-z, abs=2e-3)


def test_tangos_interval_is_that_of_a_published_example() -> None:
    """Airway reactivity of 21 children before and after a transplantation (Fagerland, Lydersen and Laake 2014)."""
    assert tango(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_without_a_discordant_case_few_cases_show_little() -> None:
    z2 = stats.norm.ppf(0.975) ** 2
    assert tango(0, 0, 20) == pytest.approx((-z2 / (20 + z2), z2 / (20 + z2)), abs=1e-6)
    assert tango(7, 0, 7)[1] == 1
    assert tango(0, 7, 7)[0] == -1


def test_the_interval_of_the_difference_covers_it_as_often_as_it_says(chance: np.random.Generator) -> None:
    """Also where two cases share an image and every fifth answer is a tie: 400 sets, 369 is two deviations below."""
    covered = {"independent": 0, "grouped": 0}
    for _ in range(400):
        first, second = drawn(chance, 200, 0.7, 0.6)
        seen = difference(first, second, alone(first))
        covered["independent"] += seen.low <= 0.1 <= seen.high
        ties = chance.random(200) < 0.2
        first, second, ties = np.repeat(first, 2), np.repeat(second, 2), np.repeat(ties, 2)
        seen = difference(np.where(ties, 0.5, first), second, np.repeat(np.arange(200), 2))
        covered["grouped"] += seen.low <= 0.8 * 0.7 + 0.2 * 0.5 - 0.6 <= seen.high
    assert min(covered.values()) >= 369


def test_non_inferiority_has_the_power_it_was_planned_for_and_not_more_error_than_alpha(
    chance: np.random.Generator,
) -> None:
    """With runs that differ on a tenth of the cases and a margin of 3 points; 300 of each, three deviations allowed."""
    n = cases_needed(0.1, 0.03)
    assert 600 < n < 800

    def shown(true_difference: float) -> int:
        better, worse = (0.1 + true_difference) / 2, (0.1 - true_difference) / 2
        count = 0
        for _ in range(300):
            kinds = chance.choice(3, size=n, p=[better, worse, 0.9])
            first, second = (kinds == 0).astype(np.float64), (kinds == 1).astype(np.float64)
            found = non_inferiority(first, second, alone(first), 0.03)
            assert not (found.shown and found.refuted)
            count += found.shown
        return count

    assert 219 <= shown(0.0) <= 261
    assert shown(-0.03) <= 26


def test_how_many_cases_are_needed_grows_with_what_makes_it_harder() -> None:
    usual = cases_needed(0.1, 0.03)
    assert cases_needed(0.2, 0.03) > 1.8 * usual
    assert cases_needed(0.1, 0.02) > 2 * usual
    assert cases_needed(0.1, 0.03, power=0.9) > usual
    assert cases_needed(0.1, 0.03, true_difference=-0.01) > usual
    assert cases_needed(0.1, 0.03, design_effect=2) == pytest.approx(2 * usual, abs=1)
    few = cases_needed(0.0, 0.03)
    assert tango(0, 0, few, 0.9)[0] > -0.03 > tango(0, 0, few - 1, 0.9)[0]
    with pytest.raises(ValueError, match="never shown"):
        cases_needed(0.1, 0.03, true_difference=-0.03)


def test_the_power_of_the_paired_test_is_what_it_finds_in_simulation(chance: np.random.Generator) -> None:
    n, discordant, delta = 300, 0.2, 0.08
    counts = chance.multinomial(n, [(discordant + delta) / 2, (discordant - delta) / 2, 1 - discordant], size=2000)
    tables = [[[0, int(better)], [int(worse), 0]] for better, worse, _ in counts]
    found = np.mean([statsmodels_mcnemar(table, exact=True).pvalue <= 0.05 for table in tables])
    assert power_of_mcnemar(n, discordant, delta) == pytest.approx(found, abs=0.035)
    assert 0.02 < power_of_mcnemar(n, discordant, 0.0) <= 0.05


def test_the_smallest_difference_that_could_have_been_shown_has_the_power_asked_for() -> None:
    found = smallest_difference(1026, 0.15)
    assert found is not None
    assert power_of_mcnemar(1026, 0.15, found) == pytest.approx(0.8, abs=1e-3)
    assert 0.03 < found < 0.04
    assert smallest_difference(5, 1.0) is None
    assert smallest_difference(100, 0.0) is None


def test_cochrans_q_is_friedmans_statistic_on_right_and_wrong(chance: np.random.Generator) -> None:
    credit = np.column_stack(drawn(chance, 300, 0.6, 0.65, 0.75, 0.7))
    q, peer = cochran_q(credit == 1), stats.friedmanchisquare(*credit.T)
    assert q is not None
    assert (q.statistic, q.p) == pytest.approx((peer.statistic, peer.pvalue), rel=1e-9)
    assert q.df == (3,)
    found = friedman(credit)
    assert found is not None
    assert found.p == pytest.approx(q.p, rel=1e-9)
    alike = np.repeat(credit[:, :1], 3, axis=1)
    assert (cochran_q(alike == 1), friedman(alike), repeated_measures_anova(alike)) == (None, None, None)


def test_the_anova_is_that_of_statsmodels(chance: np.random.Generator) -> None:
    credit = np.column_stack(drawn(chance, 40, 0.5, 0.6, 0.8))
    long = [(case, run, credit[case, run]) for case in range(40) for run in range(3)]
    frame = pd.DataFrame(long, columns=["case", "run", "credit"])
    row = AnovaRM(frame, "credit", "case", within=["run"]).fit().anova_table.loc["run"]
    found = repeated_measures_anova(credit)
    assert found is not None
    assert (found.statistic, found.p) == pytest.approx((row["F Value"], row["Pr > F"]), rel=1e-8)
    assert found.df == (row["Num DF"], row["Den DF"])


def test_runs_share_a_letter_if_and_only_if_they_do_not_differ(chance: np.random.Generator) -> None:
    for size in (2, 3, 5, 8):
        accuracy = chance.random(size).tolist()
        upper = np.triu(chance.random((size, size)) < 0.5, 1)
        differ = upper | upper.T
        found = letters(accuracy, differ)
        for one in range(size):
            for other in range(size):
                if one != other:
                    assert bool({*found[one]} & {*found[other]}) is not bool(differ[one, other])
        assert "a" in found[int(np.argmax(accuracy))]
        holders = [{n for n, own in enumerate(found) if letter in own} for letter in {*"".join(found)}]
        assert not any(some < others for some in holders for others in holders)  # no letter says what another says


def test_who_cannot_be_told_from_the_best_shares_the_first_rank() -> None:
    differ = np.zeros((3, 3), dtype=np.bool_)
    differ[0, 2] = differ[2, 0] = True
    assert ranks([0.8, 0.75, 0.6], differ) == [1, 1, 2]
    assert letters([0.8, 0.75, 0.6], differ) == ["a", "ab", "b"]


def test_the_calibration_error_is_the_weighed_gap_of_scipys_bins(chance: np.random.Generator) -> None:
    margins = chance.normal(0, 2, 500)
    labels = np.where(chance.random(500) < 1 / (1 + np.exp(-margins)), 1.0, -1.0)
    found = calibration(labels, np.append(margins[:-1], np.nan))
    assert found is not None
    confidence = 1 / (1 + np.exp(-np.abs(margins[:-1])))
    right = (np.sign(margins[:-1]) == labels[:-1]).astype(float)
    sums, _, _ = stats.binned_statistic(confidence, right - confidence, "sum", bins=BINS, range=(0.5, 1))
    assert found.ece == pytest.approx(np.abs(sums).sum() / 499, abs=1e-12)
    assert found.n == sum(one.n for one in found.bins) == 499
    assert found.ece < found.by_luck * 1.5
    p_label = 1 / (1 + np.exp(-labels * margins))[:-1]
    assert found.brier == pytest.approx(((1 - p_label) ** 2).mean())
    assert found.log_loss == pytest.approx(-np.log(p_label).mean())
    assert calibration(labels, np.full(500, np.nan)) is None


def test_an_overconfident_model_is_further_off_than_luck(chance: np.random.Generator) -> None:
    margins = chance.normal(0, 2, 1000)
    labels = np.where(chance.random(1000) < 1 / (1 + np.exp(-margins)), 1.0, -1.0)
    honest, loud = calibration(labels, margins), calibration(labels, 3 * margins)
    assert honest is not None
    assert loud is not None
    assert honest.ece < honest.by_luck
    assert loud.ece > 2 * loud.by_luck


def test_cohens_kappa_is_that_of_a_worked_example() -> None:
    """20 both yes, 5 and 10 apart, 15 both no: (0.7 - 0.5) / (1 - 0.5)."""
    one = np.repeat([0, 0, 1, 1, 0], [20, 5, 10, 15, 3])
    other = np.repeat([0, 1, 0, 1, MISSING], [20, 5, 10, 15, 3])
    found = cohen(one, other)
    assert found is not None
    assert found[0] == pytest.approx(0.4)
    assert found[1][0] < 0.4 < found[1][1]
    assert cohen(np.zeros(5, dtype=np.int64), np.zeros(5, dtype=np.int64)) is None


def test_fleiss_kappa_is_that_of_the_worked_example_of_1971_style_tables() -> None:
    """Ten subjects, fourteen raters, five categories; kappa is 0.210."""
    table = [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
    ratings = np.array([np.repeat(np.arange(5), row) for row in table])
    assert fleiss(ratings) == pytest.approx(0.210, abs=5e-4)


def test_krippendorffs_alpha_is_that_of_his_worked_examples() -> None:
    """Computing Krippendorff's Alpha-Reliability (2011), examples A and C."""
    two = np.array([[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]])
    assert krippendorff(two.T) == pytest.approx(0.095, abs=5e-4)
    four = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, -1, -1, -1],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, -1, 3],
            [-1, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, -1],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, -1],
        ]
    )
    assert krippendorff(four.T) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff(np.zeros((4, 2), dtype=np.int64)) is None


def test_alpha_is_fleiss_kappa_but_for_the_small_sample(chance: np.random.Generator) -> None:
    truth = chance.integers(0, 2, 80)
    ratings = np.stack([np.where(chance.random(80) < 0.8, truth, 1 - truth) for _ in range(3)], axis=1)
    kappa = fleiss_kappa(aggregate_raters(ratings)[0])
    assert fleiss(ratings) == pytest.approx(kappa)
    assert krippendorff(ratings) == pytest.approx(1 - (1 - kappa) * (240 - 1) / 240)


def test_agreement_that_was_seen_is_of_pairs_of_ratings() -> None:
    ratings = np.array([[0, 0, 1], [1, 1, 1], [0, MISSING, MISSING]])
    assert observed(ratings) == pytest.approx((1 + 3) / 6)


def test_the_majority_may_be_equal_or_nobody() -> None:
    nan = np.nan
    votes = np.array([[1, 1, -1], [1, -1, nan], [nan, nan, nan], [0, -1, nan]])
    assert majority(votes).tolist()[:2] == [1, 0]
    assert np.isnan(majority(votes)[2])
    assert majority(votes)[3] == -1


def test_shortcuts_know_their_better_direction() -> None:
    labels = np.array([1.0, 1, -1, -1, -1])
    lengths = np.array([[1, 5], [1, 5], [5, 1], [5, 1], [3, 3]])
    assert by_length(labels, lengths).tolist() == [1, 1, 1, 1, 0.5]
    assert by_position(labels).tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("figure", [fleiss, krippendorff, observed])
def test_no_pair_of_ratings_has_no_agreement(figure: Callable[[npt.NDArray[np.int64]], float | None]) -> None:
    assert figure(np.array([[0, MISSING], [MISSING, 1]])) is None
