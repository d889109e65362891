import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from nearfar.evaluate import (
    alignment,
    auroc,
    calibration_error,
    clustering_accuracy,
    fpr_at_tpr,
    group_metrics,
    knn_accuracy,
    knn_predict,
    linear_probe,
    neighbours,
    nmi,
    recall_at_k,
    retrieval_map,
    uniformity,
)

DOUBLE = dict(dtype=torch.float64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def clusters(n=300, d=8, classes=5, spread=1.5, seed=0):
    """Gaussian clusters with the same centres for every seed: features (n, d) and labels (n,)."""
    centres = torch.randn(classes, d, generator=generator(100), **DOUBLE) * 2
    y = torch.randint(classes, (n,), generator=generator(seed))
    return centres[y] + spread * torch.randn(n, d, generator=generator(seed + 1), **DOUBLE), y


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(neighbours, "_BLOCK", 2000)


# ------------------------------------------------------------------------------------- neighbours
@pytest.mark.parametrize("k", [1, 5, 20])
def test_knn_is_scikit_learns(small_blocks, k):
    from sklearn.neighbors import KNeighborsClassifier

    (train_z, train_y), (test_z, test_y) = clusters(300), clusters(90, seed=7)
    theirs = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(train_z, train_y)
    assert knn_predict(train_z, train_y, test_z, k).tolist() == theirs.predict(test_z).tolist()
    assert float(knn_accuracy(train_z, train_y, test_z, test_y, k)) == pytest.approx(theirs.score(test_z, test_y))


def test_weighted_knn_is_its_formula(small_blocks):
    (train_z, train_y), (test_z, _) = clusters(120), clusters(40, seed=7)
    k, t = 15, 0.07
    expected = []
    for query in test_z:
        cosine = torch.nn.functional.cosine_similarity(query[None], train_z)
        votes = [0.0] * 5
        for i in cosine.argsort(descending=True)[:k].tolist():
            votes[int(train_y[i])] += math.exp(float(cosine[i]) / t)
        expected.append(max(range(5), key=votes.__getitem__))
    assert knn_predict(train_z, train_y, test_z, k, t).tolist() == expected
    assert knn_predict(train_z.float(), train_y, test_z.float(), k, 1e-4).shape == (40,)  # exp does not overflow


def test_knn_by_hand():
    train = torch.tensor([[1.0, 0], [0, 1], [0, -1]])
    test = torch.tensor([[5.0, 1], [-1, 9], [-1, -9]])
    assert knn_predict(train, torch.tensor([2, 0, 1]), test, k=1).tolist() == [2, 0, 1]
    assert knn_predict(train, torch.tensor([2, 0, 1]), test, k=3).tolist() == [0, 0, 0]  # a tie: the smallest


def awkward(kind):
    """A bank (3000, 24) and queries (150, 24), float32, with many near or exact ties."""
    noise, q_noise = (torch.randn(n, 24, generator=generator(n)) for n in (3000, 150))
    if kind == "random":
        return noise, q_noise
    if kind == "clustered":
        centres = torch.randn(6, 24, generator=generator(1))
        return centres.repeat(500, 1) + 0.01 * noise, centres.repeat(25, 1) + 0.01 * q_noise
    if kind == "duplicates":
        return noise[:60].repeat(50, 1), torch.cat([noise[:60], q_noise[:90]])
    if kind == "nearly the same":
        return 1 + 1e-6 * noise, 1 + 1e-6 * q_noise
    if kind == "offset":
        return 1 + 0.1 * noise, 1 + 0.1 * q_noise
    if kind == "scales":
        return noise * torch.logspace(-12, 12, 3000)[:, None], q_noise * torch.logspace(3, -3, 24)
    if kind == "one direction":  # all similarities to the queries are negative or zero
        return noise.abs() * (torch.arange(24) < 12), -q_noise.abs()
    return torch.ones(3000, 24), q_noise  # "the same"


AWKWARD = ("random", "clustered", "duplicates", "nearly the same", "offset", "scales", "one direction", "the same")


@pytest.mark.parametrize("kind", AWKWARD)
@pytest.mark.parametrize("fast", [False, True])
def test_screened_neighbours_are_the_exact_ones(monkeypatch, kind, fast):
    bank, queries = (torch.nn.functional.normalize(z) for z in awkward(kind))
    exact = (queries.double() @ bank.double().T).float()
    order = exact.sort(dim=1, descending=True, stable=True).indices
    monkeypatch.setattr(neighbours, "_SCREEN", 0)
    monkeypatch.setattr(neighbours, "_fast_bfloat16", lambda: fast)
    for k, block in ((1, 2**24), (7, 10**5), (20, 2**24)):
        monkeypatch.setattr(neighbours, "_BLOCK", block)
        values, index = neighbours.nearest(queries, bank, k)
        assert torch.equal(values, exact.gather(1, order[:, :k]))
        assert torch.equal(index.sort(dim=1).values, order[:, :k].sort(dim=1).values)
    y = torch.randint(5, (3000,), generator=generator())
    screened = knn_predict(bank, y, queries, 20), knn_predict(bank, y, queries, 20, 0.07), recall_at_k(bank, y, k=3)
    monkeypatch.setattr(neighbours, "_SCREEN", math.inf)
    plain = knn_predict(bank, y, queries, 20), knn_predict(bank, y, queries, 20, 0.07), recall_at_k(bank, y, k=3)
    assert all(torch.equal(a, b) for a, b in zip(screened, plain, strict=True))


def test_screening_answers_most_queries(monkeypatch):
    bank, queries = (torch.nn.functional.normalize(z) for z in awkward("random"))
    for precision in (torch.bfloat16, torch.float32):
        values, index = torch.empty(150, 5), torch.empty(150, 5, dtype=torch.long)
        left = neighbours._screen(queries, bank, 5, precision, torch.arange(150), values, index)
        assert len(left) < 75


# ------------------------------------------------------------------------------------- linear probe
def logistic_regression(z, y, penalty):
    """scikit-learn's minimiser of the same objective, to a gradient of 1e-10: weights and biases."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1 / (penalty * len(z)), tol=1e-10, max_iter=20000, solver="newton-cg").fit(z, y)
    return torch.as_tensor(model.coef_), torch.as_tensor(model.intercept_)


@pytest.mark.parametrize("case", ["plain", "ill-conditioned", "rare class", "constant column", "separable"])
@pytest.mark.parametrize("penalty", [1.0, 1e-2, 1e-5])
def test_probe_is_the_minimiser(monkeypatch, case, penalty):
    monkeypatch.setattr("nearfar.evaluate.probe._SAMPLE", 1)
    z, y = clusters(6000 if case == "plain" else 300, spread=0.2 if case == "separable" else 2.5)
    if case == "ill-conditioned":
        z = z @ torch.linalg.qr(torch.randn(8, 8, generator=generator(3), **DOUBLE))[0] * torch.logspace(1, -2, 8)
    if case == "rare class":
        keep = (y != 0) | (torch.arange(len(y)) < 20)
        z, y = z[keep], y[keep]
    if case == "constant column":
        z = torch.cat([z, torch.full((len(z), 1), 1e3, **DOUBLE)], dim=1)
    result = linear_probe(z, y, z, y, penalties=(penalty,), standardise=False, iterations=500)
    w, b = result["weight"].double().requires_grad_(), result["bias"].double().requires_grad_()
    loss = torch.nn.functional.cross_entropy(z @ w.T + b, y) + penalty / 2 * w.square().sum()
    centred = z - z.mean(dim=0)  # the gradient in the centred features, so that a large constant is no magnifier
    g, g_b = torch.autograd.grad(loss, (w, b))
    g = g - g_b[:, None] * z.mean(dim=0)
    assert float(g.abs().max()) < 1e-8 * float(centred.std()) + 1e-8 and float(g_b.abs().max()) < 1e-8
    if case == "constant column":  # scikit-learn is not exact here: its minimiser uses the column
        assert float(w[:, -1].detach().abs().max()) < 1e-9
        return
    coefficients, intercepts = logistic_regression(z, y, penalty)
    weight, bias = w.detach(), b.detach()
    torch.testing.assert_close(weight, coefficients, atol=1e-5 * float(coefficients.abs().max()), rtol=0)
    offset = (bias - bias.mean()) - (intercepts - intercepts.mean())
    assert float(offset.abs().max()) < 1e-5 * max(1.0, float(intercepts.abs().max()))


@pytest.mark.parametrize("penalty", [1.0, 1e-2, 1e-4])
def test_probe_is_scikit_learns_logistic_regression(penalty):
    from sklearn.linear_model import LogisticRegression

    (train_z, train_y), (test_z, test_y) = clusters(200), clusters(100, seed=7)
    result = linear_probe(train_z, train_y, test_z, test_y, penalties=(penalty,), standardise=False, iterations=2000)
    theirs = LogisticRegression(C=1 / (penalty * 200), tol=1e-8, max_iter=5000).fit(train_z, train_y)
    expected = torch.as_tensor(theirs.coef_)
    torch.testing.assert_close(result["weight"], expected, atol=2e-3 * float(expected.abs().max()), rtol=0)
    assert result["predictions"].tolist() == theirs.predict(test_z).tolist()
    assert float(result["accuracy"]) == pytest.approx(theirs.score(test_z, test_y))


def test_probe_standardises_and_weights_fit_the_features_as_given():
    (train_z, train_y), (test_z, test_y) = clusters(200), clusters(100, seed=7)
    constant = torch.full((200, 1), 3.0, **DOUBLE)
    stretch = torch.logspace(-3, 3, 8, **DOUBLE)
    plain = linear_probe(train_z, train_y, test_z, test_y)
    scaled = linear_probe(
        torch.cat([train_z * stretch + 5, constant], 1),
        train_y,
        torch.cat([test_z * stretch + 5, constant[:100]], 1),
        test_y,
    )
    assert plain["penalty"] == scaled["penalty"]
    assert (plain["predictions"] == scaled["predictions"]).double().mean() > 0.98
    logits = test_z @ plain["weight"].T + plain["bias"]
    assert torch.equal(logits.argmax(dim=1), plain["predictions"])
    assert plain["weight"].dtype == torch.float64
    single = linear_probe(train_z.float(), train_y, test_z.float(), test_y)
    assert float(single["accuracy"]) == pytest.approx(float(plain["accuracy"]), abs=0.02)


def test_probe_chooses_its_penalty_without_the_test_rows():
    (train_z, train_y), (test_z, test_y) = clusters(200, spread=3.0), clusters(200, seed=7, spread=3.0)
    noise = torch.randn(200, 100, generator=generator(), **DOUBLE)
    train_z = torch.cat([train_z, noise], dim=1)  # mostly noise: needs a strong penalty
    test_z = torch.cat([test_z, torch.randn(200, 100, generator=generator(1), **DOUBLE)], dim=1)
    for y in (test_y, 4 - test_y):
        assert linear_probe(train_z, train_y, test_z, y, penalties=(1.0, 1e-6))["penalty"] == 1.0
    few = linear_probe(train_z[:5], torch.arange(5), test_z, test_y, penalties=(1e-1, 1e-2, 1e-3))
    assert few["penalty"] == 1e-2  # nothing can be held out: the middle one
    assert linear_probe(train_z, train_y, test_z, test_y, seed=1)["penalty"] > 0


# ------------------------------------------------------------------------------------- clusters
def test_clustering_measures():
    from torchmetrics.functional.clustering import normalized_mutual_info_score

    labels = torch.randint(4, (200,), generator=generator())
    noise = torch.randint(6, (200,), generator=generator(2))
    found = torch.where(torch.rand(200, generator=generator(1)) < 0.7, (labels + 1) % 4, noise)
    assert float(nmi(labels, found)) == pytest.approx(sk.normalized_mutual_info_score(labels, found))
    assert float(nmi(labels, found)) == pytest.approx(float(normalized_mutual_info_score(found, labels)), abs=1e-5)
    from itertools import permutations

    table = np.zeros((4, 6))
    np.add.at(table, (labels.numpy(), found.numpy()), 1)
    best = max(sum(table[i, p[i]] for i in range(4)) for p in permutations(range(6), 4))
    assert float(clustering_accuracy(labels, found)) == pytest.approx(best / 200)
    assert float(clustering_accuracy(labels, 3 - labels)) == 1 and float(nmi(labels, 3 - labels)) == pytest.approx(1)
    one = torch.zeros(5, dtype=torch.long)
    assert float(nmi(one, one)) == 1 and float(nmi(torch.arange(5), one)) == pytest.approx(0, abs=1e-15)
    more = torch.tensor([0, 0, 1, 2])  # more clusters than labels
    assert float(clustering_accuracy(torch.tensor([0, 0, 0, 0]), more)) == 0.5


# ------------------------------------------------------------------------------------- retrieval
def test_retrieval_is_torchmetrics(small_blocks):
    from torchmetrics.retrieval import RetrievalHitRate, RetrievalMAP

    (query_z, query_y), (gallery_z, gallery_y) = clusters(40, spread=3.0), clusters(120, seed=7, spread=3.0)
    similarity = torch.nn.functional.normalize(query_z) @ torch.nn.functional.normalize(gallery_z).T
    index = torch.arange(40)[:, None].expand(40, 120)
    relevant = query_y[:, None] == gallery_y
    inputs = similarity.flatten() + 1, relevant.flatten(), index.flatten()  # torchmetrics ignores scores below zero
    result = float(retrieval_map(query_z, query_y, gallery_z, gallery_y))
    assert result == pytest.approx(float(RetrievalMAP()(*inputs)), abs=1e-5)
    for k in (1, 3):
        expected = float(RetrievalHitRate(top_k=k)(*inputs))
        assert float(recall_at_k(query_z, query_y, gallery_z, gallery_y, k)) == pytest.approx(expected, abs=1e-6)
    scores = [sk.average_precision_score(r, s) for r, s in zip(relevant, similarity, strict=True)]
    assert result == pytest.approx(np.mean(scores))


def test_retrieval_among_the_queries_leaves_the_query_out(small_blocks):
    z, y = clusters(90, spread=3.0)
    similarity = torch.nn.functional.normalize(z) @ torch.nn.functional.normalize(z).T
    scores, hits = [], []
    for i in range(90):
        others = [j for j in range(90) if j != i]
        scores.append(sk.average_precision_score(y[others] == y[i], similarity[i, others]))
        hits.append(bool(y[others][similarity[i, others].argmax()] == y[i]))
    assert float(retrieval_map(z, y)) == pytest.approx(np.mean(scores))
    assert float(recall_at_k(z, y)) == pytest.approx(np.mean(hits))


def test_retrieval_by_hand():
    gallery = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [1.0, 0.3]])
    query = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    result = retrieval_map(query, torch.tensor([1, 7]), gallery, torch.tensor([1, 0, 1, 0]))
    assert float(result) == pytest.approx((1 / 1 + 2 / 3) / 2)  # label 7 has no relevant item


# ------------------------------------------------------------------------------------- detection
@pytest.mark.parametrize("ties", [False, True])
def test_detection_is_scikit_learns(ties):
    positives = torch.rand(300, generator=generator()) < 0.4
    scores = torch.randn(300, generator=generator(1), **DOUBLE) + positives
    scores = (scores * 2).round() if ties else scores
    assert float(auroc(scores, positives)) == pytest.approx(sk.roc_auc_score(positives, scores))
    fpr, tpr, _ = sk.roc_curve(positives, scores, drop_intermediate=False)
    for target in (0.5, 0.95, 1.0):
        assert float(fpr_at_tpr(scores, positives, target)) == pytest.approx(fpr[np.argmax(tpr >= target - 1e-12)])


def test_detection_by_hand():
    scores, positives = torch.tensor([3.0, 2.0, 2.0, 1.0]), torch.tensor([True, True, False, False])
    assert float(auroc(scores, positives)) == (1 + 1 + 0.5 + 1) / 4
    assert float(fpr_at_tpr(scores, positives)) == 0.5 and float(fpr_at_tpr(scores, positives, 0.5)) == 0
    assert float(auroc(-scores, ~positives)) == float(auroc(scores, positives))


# ------------------------------------------------------------------------------------- calibration and groups
def test_calibration_is_torchmetrics():
    from torchmetrics.functional.classification import multiclass_calibration_error

    p = (2 * torch.randn(400, 4, generator=generator(), **DOUBLE)).softmax(dim=1)
    y = torch.randint(4, (400,), generator=generator(1))
    for bins in (1, 10, 15):
        expected = float(multiclass_calibration_error(p, y, 4, n_bins=bins, norm="l1"))
        assert float(calibration_error(p, y, bins)) == pytest.approx(expected, abs=1e-6)
    hand = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.0, 1.0]], **DOUBLE)
    assert float(calibration_error(hand, torch.tensor([0, 1, 0, 1]), 10)) == pytest.approx((0.4 * 2 + 0.4 + 0) / 4)


def test_group_metrics():
    predictions, labels = torch.tensor([0, 1, 1, 0, 2, 2]), torch.tensor([0, 1, 0, 0, 2, 1])
    groups = torch.tensor([0, 0, 0, 2, 2, 2])
    result = group_metrics(predictions, labels, groups, count=4)
    assert float(result["accuracy"]) == pytest.approx(sk.accuracy_score(labels, predictions))
    expected = [2 / 3, math.nan, 2 / 3, math.nan]
    assert result["per_group"].tolist() == pytest.approx(expected, nan_ok=True)
    assert result["count"].tolist() == [3, 0, 3, 0] and float(result["gap"]) == 0
    other = group_metrics(predictions, labels, torch.tensor([0, 0, 1, 0, 0, 1]))
    assert float(other["worst"]) == 0 and float(other["gap"]) == 1
    from torchmetrics.functional.classification import binary_groups_stat_rates

    y, p, g = (torch.randint(2, (100,), generator=generator(s)) for s in range(3))
    rates = binary_groups_stat_rates(p, y, g, 2)  # per group: tp, fp, tn, fn
    expected = [float(rates[f"group_{i}"][0] + rates[f"group_{i}"][2]) for i in range(2)]
    assert group_metrics(p, y, g)["per_group"].tolist() == pytest.approx(expected, abs=1e-6)


# ------------------------------------------------------------------------------------- geometry
def test_uniformity_and_alignment(small_blocks):
    a, b = (torch.randn(120, 5, generator=generator(s), **DOUBLE) for s in range(2))
    unit = torch.nn.functional.normalize
    expected = torch.pdist(unit(a)).square().mul(-2).exp().mean().log()  # the authors' own line
    torch.testing.assert_close(uniformity(a), expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(uniformity(unit(a), normalise=False), expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(alignment(a, b, 3.0), (unit(a) - unit(b)).norm(dim=1).pow(3).mean())
    assert float(alignment(a, 3 * a)) == pytest.approx(0) and float(uniformity(a[:1].repeat(4, 1))) == pytest.approx(0)
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], **DOUBLE)
    assert float(uniformity(opposite)) == pytest.approx(-8)
    assert float(alignment(opposite[:1], opposite[1:])) == pytest.approx(4)
    a = a[:6].clone().requires_grad_()
    assert torch.autograd.gradcheck(uniformity, (a,)) and torch.autograd.gradcheck(lambda a: alignment(a, b[:6]), (a,))


def test_measures_do_not_depend_on_scale_or_order():
    z, y = clusters(80, spread=3.0)
    order = torch.randperm(80, generator=generator())
    for measure in (retrieval_map, recall_at_k, lambda z, y: uniformity(z), lambda z, y: knn_accuracy(z, y, z, y, 5)):
        torch.testing.assert_close(measure(z, y), measure(7 * z[order], y[order]))


# ------------------------------------------------------------------------------------- on a fake CUDA device
def test_runs_on_cuda(fake_cuda):
    """All but clustering_accuracy and linear_probe (driven by scipy on the CPU) and nmi (its table's size is data)."""
    z, y = clusters(30)
    z = z.float()
    positives = y > 2
    with fake_cuda as fake:
        z, y, positives = fake(z), fake(y), fake(positives)
        results = [
            knn_predict(z, y, z, 5, classes=5),
            knn_accuracy(z, y, z, y, 5, 0.1, classes=5),
            retrieval_map(z, y, z, y),
            retrieval_map(z, y),
            recall_at_k(z, y, k=3),
            auroc(z[:, 0], positives),
            fpr_at_tpr(z[:, 0], positives),
            calibration_error(z.softmax(dim=1), y),
            *group_metrics(y, y, y, count=5).values(),
            uniformity(z),
            alignment(z, z),
        ]
        assert all(result.device.type == "cuda" for result in results)


# ------------------------------------------------------------------------------------- bad input
def test_bad_input_is_named():
    z, y = clusters(20)
    broken, empty = z.clone(), z.clone()
    broken[3, 1] = float("inf")
    empty[4] = 0
    scores, positives = z[:, 0], y > 1
    p = z.softmax(dim=1)
    for call, message in [
        (lambda: knn_predict(z, y, z, k=21), r"k must lie in 1 .. 20"),
        (lambda: knn_predict(z, y[:5], z), "train_y"),
        (lambda: knn_predict(z, y, z, 3, classes=2), "train_y must lie in 0 .. 1"),
        (lambda: knn_predict(z, y, z[:, :3], 3), "test_z"),
        (lambda: knn_predict(z, y, z, 3, temperature=0), "temperature"),
        (lambda: knn_predict(broken, y, z, 3), "train_z holds NaN or infinity"),
        (lambda: knn_predict(z, y, empty, 3), "test_z has an all-zero row"),
        (lambda: knn_accuracy(z, y, z, y[:3], 3), "test_y"),
        (lambda: linear_probe(z, y, z[:, :2], y), "test_z"),
        (lambda: linear_probe(z, y, z, y, classes=2), "train_y must lie"),
        (lambda: linear_probe(z, torch.zeros_like(y), z, y), "one class only"),
        (lambda: linear_probe(z, y, z, y, penalties=()), "penalties"),
        (lambda: linear_probe(broken, y, z, y), "train_z holds NaN"),
        (lambda: clustering_accuracy(y, y[:3]), "labels"),
        (lambda: nmi(y, -y - 1), "clusters"),
        (lambda: retrieval_map(z, y, z), "go together"),
        (lambda: recall_at_k(z, y, k=20), r"k must lie in 1 .. 19"),
        (lambda: retrieval_map(z, y, z, y[:4]), "gallery_y"),
        (lambda: auroc(scores, y), "positives must be boolean"),
        (lambda: auroc(scores, torch.ones(20, dtype=torch.bool)), "both kinds"),
        (lambda: auroc(broken[:, 1], positives), "scores holds NaN"),
        (lambda: fpr_at_tpr(scores, positives, 0), "tpr"),
        (lambda: calibration_error(z, y), "apply softmax"),
        (lambda: calibration_error(p[:, :3] / p[:, :3].sum(1, keepdim=True), y), "labels must lie in 0 .. 2"),
        (lambda: calibration_error(p, y, 0), "bins"),
        (lambda: group_metrics(y, y[:3], y), "labels"),
        (lambda: group_metrics(y, y, y, count=2), "groups must lie in 0 .. 1"),
        (lambda: uniformity(z[:1]), "single row"),
        (lambda: uniformity(z, 0), "t must"),
        (lambda: alignment(z, z[:3]), "z_b"),
        (lambda: alignment(z, z, 0), "alpha"),
    ]:
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
