"""Verdicts of one run and of its seeds together, against tests worked out by hand or by scipy.stats."""

import numpy as np
import pytest
from scipy import stats

from nearfar.runs import verdicts


def records(claims):
    """One record per seed, each with the one claim that is given; None: a record without it."""
    return [
        {
            "seed": seed,
            "claims": [{"id": "C1", "text": "wins", "evidence": f"of seed {seed}", **claim}] if claim else [],
        }
        for seed, claim in enumerate(claims)
    ]


def together(kind, differences, margin):
    claims = [verdicts.of_run(kind, difference=d, margin=margin) for d in differences]
    (row,) = verdicts.over_seeds(records(claims))
    return row


def mechanism(*told):
    return records([verdicts.of_run(holds=holds) for holds in told])


@pytest.mark.parametrize(
    ("kind", "difference", "margin", "verdict"),
    [
        ("superiority", 1.1, 1, "held"), ("superiority", 1, 1, "failed"), ("superiority", -2, 1, "failed"),
        ("superiority", 0.1, 0, "held"), ("superiority", None, 1, "not tested"),
        ("equivalence", -1, 1, "held"), ("equivalence", 1.1, 1, "failed"), ("equivalence", -1.1, 1, "failed"),
        ("equivalence", None, 1, "not tested"),
    ],
)  # fmt: skip
def test_one_run(kind, difference, margin, verdict):
    said = verdicts.of_run(kind, difference=difference, margin=margin)
    assert (said["kind"], said["verdict"], said["margin"]) == (kind, verdict, margin)
    assert said.get("difference") == difference


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "magic", "holds": True}, "one of mechanism, superiority, equivalence, not 'magic'"),
        ({}, "needs holds"),
        ({"holds": True, "difference": 1.0}, "takes holds"),
        ({"holds": True, "margin": 1.0}, "takes holds"),
        ({"kind": "superiority", "difference": 1.0}, "and a margin"),
        ({"kind": "superiority", "margin": 1.0}, "needs a difference"),
        ({"kind": "superiority", "holds": True, "difference": 1.0, "margin": 0.5}, "leave holds out"),
        ({"kind": "superiority", "difference": float("nan"), "margin": 0.5}, "finite number"),
        ({"kind": "superiority", "difference": 1.0, "margin": -0.5}, "at least zero"),
        ({"kind": "superiority", "difference": 1.0, "margin": float("inf")}, "at least zero"),
        ({"kind": "equivalence", "difference": 1.0, "margin": 0}, "above zero"),
        ({"kind": "equivalence", "difference": None, "margin": -1}, "above zero"),
    ],
)
def test_what_says_nothing_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message) as told:
        verdicts.of_run(**arguments)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("differences", "margin", "said"),
    [
        ([2.0, 2.3, 2.6], 0.5, "held: mean difference +2.3 (margin 0.5), p 0.0046, 3 seeds"),
        ([-1.0, -1.3, -0.7], 0.0, "failed: mean difference −1.0 (margin 0), p 0.014, 3 seeds"),
        ([0.2, 0.3, 0.25], 2.0, "failed: mean difference +0.25 (margin 2), p < 0.001, 3 seeds"),
        ([3.0, -1.0, 2.0], 0.5, "undecided: mean difference +1.3 (margin 0.5), p 0.28, 3 seeds"),
        ([12.0, 12.0, 12.0], 11.0, "held: mean difference +12 (margin 11), p < 0.001, 3 seeds"),
        ([0.1 + 0.2, 0.3, 0.3], 0.3, "undecided: mean difference +0.30 (margin 0.3), p 0.5, 3 seeds"),
        ([0.0, 0.0, 0.0], 0.1, "failed: mean difference +0.0 (margin 0.1), p < 0.001, 3 seeds"),
    ],
)
def test_superiority_over_seeds(differences, margin, said):
    row = together("superiority", differences, margin)
    assert row["summary"] == said and row["verdict"] == said.partition(":")[0] and row["kind"] == "superiority"


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        ([0.1, -0.1, 0.0], "held: mean difference +0.0 (margin ±1), p 0.0017, 3 seeds"),
        ([3.0, 3.1, 3.2], "failed: mean difference +3.1 (margin ±1), p < 0.001, 3 seeds"),
        ([-3.0, -3.1, -3.2], "failed: mean difference −3.1 (margin ±1), p < 0.001, 3 seeds"),
        ([0.9, 0.2, -0.9], "undecided: mean difference +0.067 (margin ±1), p 0.11, 3 seeds"),
        ([0.5, 0.5, 0.5], "held: mean difference +0.50 (margin ±1), p < 0.001, 3 seeds"),
    ],
)
def test_equivalence_over_seeds(differences, said):
    row = together("equivalence", differences, 1)
    assert row["summary"] == said and row["verdict"] == said.partition(":")[0]


def test_the_tests_are_those_of_scipy():
    rng = np.random.default_rng(0)
    for values in rng.normal(0.4, 0.5, size=(40, 4)):
        better = stats.ttest_1samp(values, 0.2, alternative="greater").pvalue
        worse = stats.ttest_1samp(values, 0.2, alternative="less").pvalue
        wanted = "held" if better < 0.05 else "failed" if worse < 0.05 else "undecided"
        assert together("superiority", values.tolist(), 0.2)["verdict"] == wanted
        inside = max(stats.ttest_1samp(values, -0.9, alternative="greater").pvalue,
                     stats.ttest_1samp(values, 0.9, alternative="less").pvalue)  # fmt: skip
        beyond = min(stats.ttest_1samp(values, -0.9, alternative="less").pvalue,
                     stats.ttest_1samp(values, 0.9, alternative="greater").pvalue)  # fmt: skip
        wanted = "held" if inside < 0.05 else "failed" if beyond < 0.05 else "undecided"
        assert together("equivalence", values.tolist(), 0.9)["verdict"] == wanted


@pytest.mark.parametrize(
    ("told", "verdict", "summary"),
    [
        ((True, True, True), "held", "held"),
        ((False, False, False), "failed", "failed"),
        ((True, True, False), "mixed", "mixed: held in 2 of 3 seeds"),
        ((True, False, False, False, False), "mixed", "mixed: held in 1 of 5 seeds"),
        ((None, None, None), "not tested", "not tested"),
        ((None,), "not tested", "not tested"),
        ((True,), "not tested", "not tested: 1 seed of 3"),
        ((True, False), "not tested", "not tested: 2 seeds of 3"),
        ((True, None, True), "not tested", "not tested: 2 seeds of 3, 1 could not test it"),
        ((True, None, True, True), "held", "held; 1 of 4 seeds could not test it"),
    ],
)
def test_mechanisms_over_seeds(told, verdict, summary):
    (row,) = verdicts.over_seeds(mechanism(*told))
    assert (row["verdict"], row["summary"]) == (verdict, summary)


def test_no_majority_makes_a_claim_held():
    for one in range(5):
        (row,) = verdicts.over_seeds(mechanism(*(seed != one for seed in range(5))))
        assert row["verdict"] == "mixed"
        assert [verdict for _, verdict, _ in row["evidence"]] == ["held", "failed"]
        assert row["evidence"][1] == (one, "failed", f"of seed {one}")


def test_a_seed_that_lacks_the_claim_could_not_test_it():
    held = verdicts.of_run("superiority", difference=2.0, margin=0.5)
    (row,) = verdicts.over_seeds(records([held, None, held, {**held, "difference": 2.1}]))
    assert row["verdict"] == "held" and row["summary"].endswith("3 seeds; 1 of 4 seeds could not test it")
    silent = verdicts.of_run("superiority", difference=None, margin=0.5)
    (row,) = verdicts.over_seeds(records([held, silent, held]))
    assert row["summary"] == "not tested: 2 seeds of 3, 1 could not test it"


def test_seeds_judged_by_different_margins_decide_nothing():
    claims = [verdicts.of_run("superiority", difference=5.0, margin=margin) for margin in (0.5, 0.5, 1.0)]
    (row,) = verdicts.over_seeds(records(claims))
    assert row["verdict"] == "undecided" and "different margins; run them again" in row["summary"]


def test_claims_of_old_records_have_no_kind():
    old = [{"verdict": "held"}] * 3
    (row,) = verdicts.over_seeds(records(old))
    assert (row["verdict"], row["kind"]) == ("held", "mechanism")
