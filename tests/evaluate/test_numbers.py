"""Half precision, long sums, labels of any size, features of any length."""

import math

import pytest
import torch

from nearfar import evaluate

HALF = (torch.float16, torch.bfloat16)


def clusters(n=300, d=8, classes=5, seed=0):
    """Gaussian clusters with the same centres for every seed: features (n, d), float64, and labels (n,)."""
    generator = torch.Generator().manual_seed(100)
    centres = 2 * torch.randn(classes, d, generator=generator, dtype=torch.float64)
    generator.manual_seed(seed)
    y = torch.randint(classes, (n,), generator=generator)
    return centres[y] + 1.5 * torch.randn(n, d, generator=generator, dtype=torch.float64), y


(Z, Y), (TEST_Z, TEST_Y) = clusters(), clusters(100, seed=1)

MEASURES = {  # of features alone, test features, and labels where they are the same for all
    "alignment": lambda z, t: evaluate.alignment(z[: len(t)], t),
    "auroc": lambda z, t: evaluate.auroc(z[:, 0], Y > 1),
    "calibration_error": lambda z, t: evaluate.calibration_error(z.softmax(dim=1), Y),
    "fpr_at_tpr": lambda z, t: evaluate.fpr_at_tpr(z[:, 0], Y > 1),
    "knn_accuracy": lambda z, t: evaluate.knn_accuracy(z, Y, t, TEST_Y, 20, 0.07),
    "knn_predict": lambda z, t: evaluate.knn_predict(z, Y, t),
    "linear_probe": lambda z, t: evaluate.linear_probe(z, Y, t, TEST_Y, penalties=(1e-2,))["weight"],
    "recall_at_k": lambda z, t: evaluate.recall_at_k(t, TEST_Y, z, Y, 3),
    "retrieval_map": lambda z, t: evaluate.retrieval_map(t, TEST_Y, z, Y),
    "uniformity": lambda z, t: evaluate.uniformity(z),
}
OF_INTEGERS = {"clustering_accuracy", "group_metrics", "nmi"}


@pytest.mark.parametrize("name", sorted(set(evaluate.__all__) - OF_INTEGERS))
@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_is_the_exact_value_of_rounded_features(name, dtype):
    z, t = Z.to(dtype), TEST_Z.to(dtype)
    exact, result = (MEASURES[name](*given) for given in ((z.double(), t.double()), (z, t)))
    if name == "calibration_error":  # softmax itself is in half precision: 8 or 11 bits of each confidence
        assert float(result) == pytest.approx(float(exact), abs=torch.finfo(dtype).eps)
    elif name == "linear_probe":  # objectives within 1e-8 of the minimum, whose curvature is at least the penalty
        assert result.dtype == torch.float32
        assert float((result.double() - exact).norm()) < (2 * 1e-8 / 1e-2) ** 0.5
    elif name == "knn_predict":
        assert (result == exact).double().mean() >= 0.99  # neighbours that are equally near in float32
    else:
        assert result.dtype in (torch.float32, torch.float64)
        torch.testing.assert_close(result.double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dtype", "n"), [*((dtype, 20_000) for dtype in HALF), (torch.float32, 10_000_000)])
def test_calibration_of_many_rows(dtype, n):
    p = torch.tensor([0.02, 0.98]).to(dtype).expand(n, 2)
    result = evaluate.calibration_error(p, torch.zeros(n, dtype=torch.long))
    assert float(result) == pytest.approx(float(p[0, 1]), rel=1e-6) and result.dtype == torch.float32


@pytest.mark.parametrize("dtype", HALF)
def test_many_votes_are_counted(dtype):
    bank, y = torch.ones(600, 2, dtype=dtype), (torch.arange(600) >= 270).long()
    assert evaluate.knn_predict(bank, y, bank[:1], k=600).tolist() == [1]  # 330 votes against 270


@pytest.mark.parametrize("dtype", HALF)
def test_probe_of_small_features_in_half_precision(dtype):
    z, t = (1e-3 * Z).to(dtype), (1e-3 * TEST_Z).to(dtype)  # whose weights are large
    exact = evaluate.linear_probe(z.double(), Y, t.double(), TEST_Y, penalties=(1e-4,))
    result = evaluate.linear_probe(z, Y, t, TEST_Y, penalties=(1e-4,))
    assert (result["predictions"] == exact["predictions"]).double().mean() >= 0.99
    assert result["weight"].dtype == torch.float32


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1e20])
def test_measures_do_not_see_the_size_of_features(scale):
    z, t = Z.float(), TEST_Z.float()
    for name in ("knn_accuracy", "retrieval_map", "recall_at_k", "uniformity", "alignment"):
        torch.testing.assert_close(MEASURES[name](z * scale, t * scale), MEASURES[name](z, t), rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------- labels
def test_labels_may_be_any_numbers_from_zero():
    far, test_far = 10**9 * Y, 10**9 * TEST_Y
    found = (Y + (torch.arange(300) % 4 == 0)) % 5
    for measure in (evaluate.nmi, evaluate.clustering_accuracy):
        torch.testing.assert_close(measure(far, 10**7 * found), measure(Y, found))
        torch.testing.assert_close(measure(far, found), measure(Y, found))
    for temperature in (None, 0.07):
        plain = evaluate.knn_predict(Z, Y, TEST_Z, 20, temperature)
        assert torch.equal(evaluate.knn_predict(Z, far, TEST_Z, 20, temperature), 10**9 * plain)
    assert evaluate.recall_at_k(TEST_Z, test_far, Z, far) == evaluate.recall_at_k(TEST_Z, TEST_Y, Z, Y)


def test_absent_numbers_change_no_measure_of_clusters():
    y, found = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 0, 1, 2, 2, 2])
    mutual = evaluate.nmi(y, found)
    for spread in (3, 10**6):  # a small table is kept with its empty rows, a large one is not
        torch.testing.assert_close(evaluate.nmi(spread * y, spread * found), mutual, rtol=1e-12, atol=0)
        assert float(evaluate.clustering_accuracy(spread * y, spread * found)) == 5 / 6


def test_probe_of_classes_without_training_rows():
    plain = evaluate.linear_probe(Z, Y, TEST_Z, TEST_Y)
    for step, classes in ((2, 12), (10**5, None)):
        y, test_y = step * Y, step * TEST_Y
        result = evaluate.linear_probe(Z, y, TEST_Z, test_y, classes=classes)
        assert len(result["weight"]) == (classes or 4 * step + 1)
        absent = torch.ones(len(result["weight"]), dtype=torch.bool)
        absent[step * torch.arange(5)] = False
        assert not result["weight"][absent].any() and (result["bias"][absent] == -math.inf).all()
        assert torch.equal(result["weight"][~absent], plain["weight"])
        assert torch.equal(result["predictions"], step * plain["predictions"])
        assert result["accuracy"] == plain["accuracy"]
        logits = TEST_Z @ result["weight"].T + result["bias"]
        assert torch.equal(logits.argmax(dim=1), result["predictions"])


def test_groups_without_samples_stay_in_the_table():
    labels = torch.tensor([0, 1, 1, 0])
    result = evaluate.group_metrics(torch.tensor([0, 1, 0, 0]), labels, torch.tensor([0, 0, 10**6, 10**6]))
    assert len(result["per_group"]) == 10**6 + 1 and result["per_group"][[0, -1]].tolist() == [1, 0.5]
    assert float(result["per_group"].isnan().sum()) == 10**6 - 1
    assert float(result["worst"]) == float(result["gap"]) == 0.5


@pytest.mark.parametrize("call", [
    lambda: evaluate.group_metrics(Y, Y, 10**12 * Y),
    lambda: evaluate.linear_probe(Z, 10**12 * Y, TEST_Z, TEST_Y),
    lambda: evaluate.nmi(torch.arange(10**5), torch.arange(10**5)),
    lambda: evaluate.clustering_accuracy(torch.arange(10**5), torch.arange(10**5)),
])  # fmt: skip
def test_tables_that_cannot_be_held_are_named(call):
    with pytest.raises(ValueError, match=r"need a table of .*; number them from zero without gaps") as caught:
        call()
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------- mixed precision
def test_precisions_that_do_not_go_together_are_named():
    z, t = Z.float(), TEST_Z
    for call, name in [
        (lambda: evaluate.knn_predict(z, Y, t), "test_z"),
        (lambda: evaluate.linear_probe(z, Y, t, TEST_Y), "test_z"),
        (lambda: evaluate.retrieval_map(t, TEST_Y, z, Y), "gallery_z"),
        (lambda: evaluate.recall_at_k(t, TEST_Y, z, Y), "gallery_z"),
        (lambda: evaluate.alignment(t, z[:100]), "z_b"),
    ]:
        with pytest.raises(ValueError, match=f"^{name} must have the same D, dtype and device as .*float32") as caught:
            call()
        assert "\n" not in str(caught.value)
