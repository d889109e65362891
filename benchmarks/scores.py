"""Scores of features: kNN and linear probe, beside scikit-learn."""

import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks import measure, record

BUDGET = {  # training rows, test rows
    "full": {"rows": 50_000, "queries": 10_000, "repeats": 3, "sizes": (1_000, 2_000, 5_000, 10_000, 20_000, 50_000)},
    "quick": {"rows": 600, "queries": 200, "repeats": 1, "sizes": (300, 600)},
}
DIMENSION, CLASSES, NEIGHBOURS, PENALTY = 512, 10, 20, 1e-3
GOAL = 5
GROWTH_QUERIES = 2_000


def features(rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features as a network gives them, simulated: a Gaussian for each class, all with one spectrum that decays, turned
    at random so that no axis is special.  (N, D) float32, (N,) labels; a linear rule is right about 8 times in 10."""
    world = torch.Generator().manual_seed(1)  # the same classes for training and test rows
    order = torch.arange(1, DIMENSION + 1)
    deviation = order.pow(-0.75)
    means = torch.randn(CLASSES, DIMENSION, generator=world) * deviation * 0.4 * (order <= 40)
    turn = torch.linalg.qr(torch.randn(DIMENSION, DIMENSION, generator=world)).Q
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (rows,), generator=generator)
    noise = torch.randn(rows, DIMENSION, generator=generator) * deviation
    return (means[labels] + noise) @ turn + 0.01, labels


def knn_ours(train_z, train_y, test_z) -> Callable:
    from nearfar import evaluate

    return lambda: evaluate.knn_predict(train_z, train_y, test_z, k=NEIGHBOURS)


def knn_theirs(train_z, train_y, test_z) -> Callable:
    from sklearn.neighbors import KNeighborsClassifier

    def run():
        model = KNeighborsClassifier(NEIGHBOURS, metric="cosine", algorithm="brute", n_jobs=1)
        return torch.as_tensor(model.fit(train_z.numpy(), train_y.numpy()).predict(test_z.numpy()))

    return run


def probe_ours(train_z, train_y, test_z, test_y) -> Callable:
    from nearfar import evaluate

    return lambda: evaluate.linear_probe(
        train_z, train_y, test_z, test_y, penalties=(PENALTY,), iterations=1000, standardise=True
    )["predictions"]


def probe_theirs(train_z, train_y, test_z, test_y) -> Callable:
    """The same sum, which scikit-learn multiplies by C N: C = 1 / (λ N).  Features are standardised inside as well."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def run():
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (PENALTY * len(train_z)), max_iter=1000))
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            model.fit(train_z.numpy(), train_y.numpy())
        return torch.as_tensor(model.predict(test_z.numpy()))

    return run


def agreement(a: Tensor, b: Tensor) -> float:
    return float((a == b).double().mean())


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    return 100 * agreement(predictions, labels)


def measure_all(budget: str) -> Iterator[dict]:
    plan = BUDGET[budget]
    rows, queries = plan["rows"], plan["queries"]
    train_z, train_y = features(rows, seed=2)
    test_z, test_y = features(queries, seed=3)
    with measure.threads(1):
        runs = {"ours": knn_ours(train_z, train_y, test_z), "scikit-learn": knn_theirs(train_z, train_y, test_z)}
        found, timed = remember(runs)
        seconds = measure.interleaved(timed, plan["repeats"])
        share = agreement(*found.values())
        measure.require(share >= 0.999, f"kNN predictions agree on {share:.2%} only")
        work = f"kNN (k = {NEIGHBOURS}) of {queries:,} in {rows:,} × {DIMENSION}"
        checked = f"{share:.2%} of the predictions are the same"
        peer = "scikit-learn, KNeighborsClassifier"
        yield record.row(work, peer, seconds["ours"], seconds["scikit-learn"], "s", GOAL, "1", checked)

        sets = (train_z, train_y, test_z, test_y)
        found, timed = remember({"ours": probe_ours(*sets), "scikit-learn": probe_theirs(*sets)})
        seconds = measure.interleaved(timed, plan["repeats"])
        scores = {who: accuracy(predictions, test_y) for who, predictions in found.items()}
        apart = abs(scores["ours"] - scores["scikit-learn"])
        measure.require(apart <= 0.1001 or budget == "quick", f"accuracies of the probes: {scores}")
        work = f"linear probe, {rows:,} × {DIMENSION}, {CLASSES} classes, one penalty"
        checked = f"accuracy {scores['ours']:.2f} % and {scores['scikit-learn']:.2f} %, " + (
            f"{agreement(*found.values()):.2%} of the predictions are the same"
        )
        peer = "scikit-learn, LogisticRegression (lbfgs)"
        yield record.row(work, peer, seconds["ours"], seconds["scikit-learn"], "s", GOAL, "1", checked)
        yield from growth(plan, *sets)


def remember(runs: dict[str, Callable]) -> tuple[dict, dict[str, Callable]]:
    """A place where each side's last result goes, and the calls that put it there."""
    found: dict = {}

    def keeping(who: str) -> Callable:
        def run():
            found[who] = runs[who]()

        return run

    return found, {who: keeping(who) for who in runs}


def growth(plan: dict, train_z, train_y, test_z, test_y) -> Iterator[dict]:
    """Time against the number of training rows, for fewer queries."""
    few_z, few_y = test_z[:GROWTH_QUERIES], test_y[:GROWTH_QUERIES]
    for size in plan["sizes"]:
        z, y = train_z[:size], train_y[:size]
        works = {
            f"kNN of {len(few_z):,} queries": {
                "ours": knn_ours(z, y, few_z), "scikit-learn": knn_theirs(z, y, few_z),
            },
            "linear probe": {
                "ours": probe_ours(z, y, few_z, few_y), "scikit-learn": probe_theirs(z, y, few_z, few_y),
            },
        }  # fmt: skip
        for work, runs in works.items():
            for who, seconds in measure.interleaved(runs, plan["repeats"] if size < plan["rows"] else 1).items():
                yield record.point(work, who, "training rows", size, seconds, "s")
