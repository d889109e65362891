"""The study: train these variants on these training-set sizes, read all with one read-out, record, compare.

A chapter shows what is its own: how a variant's network and training step are built, and how a trained network is read.
The study does the rest the same way for method and baseline: start weights, order of batches, random draws, steps,
checkpoints, labels of the progress bars, records, curves.  A variant is a dictionary:

    {"build": function, "lr": 0.003, "tau": 0.1}

`build(rows, seed, draws, **options)` returns the network and its `step(batch, number)` as `train.fit` takes it, where
`batch` counts within `rows` (training rows of one size); `draws` is the generator that the step draws from.  As a
third value it may return more arguments of `train.fit`, such as {"modules": …, "after": …}.  A step of None trains
nothing (an untrained network, a closed form).  Of a variant's keys those that `train.fit` knows, `steps` and `batch`
among them, say how it is trained; all others are options of `build`.
"""

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from nearfar import randomness, train
from nearfar.runs import run as runs
from nearfar.runs import tuning

Variant = Mapping[str, object]
TRAINING = {"lr", "optimiser", "weight_decay", "momentum", "schedule", "warmup", "precision", "steps", "batch"}
_BATCHES, _DRAWS = 5, 10  # streams of random numbers


class Study:
    """All trainings of one run.

    run: from `nearfar.start`.  subsets: {size: rows (size,)}, as `data.subsets` gives them.
    read(network, rows, held): {metric: value} of a trained network; rows: what it was trained on; held: `test`, or in a
    search of settings `validation`, so that no search sees the test set.
    steps, batch and further `training` settings (lr, optimiser, schedule, …) hold where a variant says nothing else.
    lower_is_better: metrics that are errors.

    networks, histories: {(variant, size): …} of what was trained.
    """

    def __init__(
        self,
        run: runs.Run,
        subsets: Mapping[int, Tensor],
        read: Callable[..., Mapping[str, float]],
        *,
        test,
        validation=None,
        steps: int,
        batch: int,
        lower_is_better: Sequence[str] = (),
        **training,
    ):
        self.run, self.subsets, self.read = run, dict(subsets), read
        self.test, self.validation = test, validation
        self.training = {"steps": steps, "batch": batch, **training}
        self.lower = set(lower_is_better)
        self.networks: dict[tuple[str, int], object] = {}
        self.histories: dict[tuple[str, int], dict[str, list[float]]] = {}
        self.searches: dict[str, dict] = {}

    # ------------------------------------------------------------------------------------------ training
    def grid(self, variants: Mapping[str, Variant], sizes: Sequence[int] | None = None):
        """Train and read every variant at every size; record, and keep network and history.  Returns `run.table()`.

        sizes: default all; ablations take one.  Raises ValueError for a size without rows and what `train.fit` raises.
        """
        for size in sizes or self.subsets:
            for name, variant in variants.items():
                network, history = self.fit(name, variant, size)
                self.networks[name, size], self.histories[name, size] = network, history
                self._record(name, size, self.read(network, self._rows(size), self.test))
        return self.run.table()

    def fit(self, name: str, variant: Variant, size: int, seed: int | None = None) -> tuple[object, dict]:
        """One variant trained on one size: (network, history).  seed: default the run's."""
        rows, seed = self._rows(size), self.run.seed if seed is None else seed
        settings = self.training | dict(variant)
        build = settings.pop("build")
        how = {key: settings.pop(key) for key in list(settings) if key in TRAINING}
        steps, batch = how.pop("steps"), how.pop("batch")
        draws = randomness.generator(seed, _DRAWS)
        torch.manual_seed(seed)  # every variant that draws its weights in the same order starts from the same
        network, step, *more = build(rows, seed, draws, **settings)
        if step is None:
            return network.to(self.run.device) if isinstance(network, torch.nn.Module) else network, {}
        given = {"modules": network, **(more[0] if more else {})}
        history = train.fit(
            step, given.pop("modules"),
            batches=train.index_batches(len(rows), batch, steps, randomness.generator(seed, _BATCHES)),
            device=self.run.device, generator=draws, label=f"{name}, n = {size:,}",
            checkpoint=self.run.checkpoint(name, size, steps, batch, seed, _written(how), _written(settings)),
            **how, **given,
        )  # fmt: skip
        return network, history

    def doubled(self, name: str, variant: Variant, size: int, metric: str) -> float:
        """By how much twice the steps move a variant's score, in the metric's unit; positive is better.

        Trains once more, and records the score as that of "<name>, twice the steps".
        """
        steps = (self.training | dict(variant))["steps"]
        self.grid({f"{name}, twice the steps": {**variant, "steps": 2 * steps}}, sizes=[size])
        return gains(self.run.table(), metric, f"{name}, twice the steps", name)[size].item()

    # ------------------------------------------------------------------------------------------ search of settings
    def tune(
        self,
        variants: Mapping[str, Variant],
        choices: Mapping[str, Mapping[str, Sequence]],
        *,
        size: int,
        by: str | Callable[[Mapping[str, float]], float],
        about: Mapping[str, object] | None = None,
    ) -> dict[str, dict]:
        """Each variant with its best settings: {name: variant}, for `grid`.

        choices: {name: {setting: values}}; all combinations are trained once, at the study's steps, on the rows of
        `size`, with seed 0 whatever the run's, and read on `validation`; one that diverges loses.  by: the metric that
        decides, or a function of the read-out of which more is better.  about: what else the search depends on, such as
        the budget.
        The table lies beside the records, in results/<tier>/<slug>/tuning.json: a search that stands there, with the
        same settings and the same `about`, is not made again, so let the first run be seed 0's.  The record notes what
        was chosen; another choice makes it older than the code.
        Raises ValueError without a validation set or for a variant without choices.
        """
        if self.validation is None:
            raise ValueError("a search of settings needs Study(…, validation=…), a part of the training data.")
        if set(variants) != set(choices):
            raise ValueError(f"variants and choices must name the same: {sorted(variants)} and {sorted(choices)}.")
        known, found = tuning.found(self.run.tier, self.run.slug), {}
        for name, variant in variants.items():
            asked = self._asked(variant, choices[name], size, by, about or {})
            search = known.get(name)
            if search is None or search["asked"] != asked:
                search = {"asked": asked, "tried": self._tried(name, variant, choices[name], size, by)}
                tuning.keep(self.run.tier, self.run.slug, name, search)
            self.searches[name] = search
            self.run.tuning[name] = best = tuning.best(search)["settings"]
            found[name] = {**variant, **best}
        return found

    def tuning_table(self):
        """All searches as a pandas table: variant, one column for each setting, validation score, chosen."""
        import pandas

        rows = []
        for name, search in self.searches.items():
            best = tuning.best(search)
            for row in search["tried"]:
                chosen = "←" if row is best else ""
                rows.append({"variant": name, **row["settings"], "validation": row["score"], "chosen": chosen})
        table, last = pandas.DataFrame(rows).astype(object).fillna(""), ["validation", "chosen"]
        return table[[*table.columns.drop(last), *last]]

    def _asked(self, variant: Variant, choices: Mapping[str, Sequence], size: int, by, about: Mapping) -> dict:
        """What a search is about, as it stands in its file."""
        fixed = {key: value for key, value in (self.training | dict(variant)).items() if key not in choices}
        by = by if isinstance(by, str) else by.__name__
        asked = {
            "choices": choices,
            "fixed": _written(fixed),
            "size": size,
            "by": by,
            "data": sorted(self.run.datasets),
            "about": _written(about),
        }
        return json.loads(json.dumps(asked))

    def _tried(self, name: str, variant: Variant, choices: Mapping[str, Sequence], size: int, by) -> list[dict]:
        rows = []
        for values in itertools.product(*choices.values()):
            settings = dict(zip(choices, values, strict=True))
            label = f"{name}, " + ", ".join(f"{key} {value}" for key, value in settings.items())
            try:
                network, _ = self.fit(f"search: {label}", {**variant, **settings}, size, seed=0)
            except FloatingPointError:  # its loss is no longer finite
                rows.append({"settings": settings, "score": None, "read": {}})
                continue
            scores = {key: float(value) for key, value in self.read(network, self._rows(size), self.validation).items()}
            rows.append({"settings": settings, "score": self._score(scores, by), "read": scores})
        return rows

    def _score(self, scores: Mapping[str, float], by) -> float:
        if callable(by):
            return float(by(scores))
        return -scores[by] if by in self.lower else scores[by]

    # ------------------------------------------------------------------------------------------ small things
    def _rows(self, size: int) -> Tensor:
        if size not in self.subsets:
            raise ValueError(f"no training set of {size} rows; there are {', '.join(map(str, self.subsets))}.")
        return self.subsets[size].to(self.run.device)

    def _record(self, name: str, size: int, scores: Mapping[str, float]) -> None:
        for metric, value in scores.items():
            self.run.record(metric, value, method=name, size=size, higher_is_better=metric not in self.lower)


def gains(table, metric: str, method: str, baseline: str, relative: bool = False):
    """By how much `method` is better than `baseline`: a pandas table, one row per seed, one column per size.

    table: rows with metric, method, size, value, higher_is_better and seed, as `run.table()` and `results.table()`
    give; seeds are paired.  relative: the logarithm of the ratio instead of the difference.  Positive is better.
    Sizes that only one of the two has do not count.  Raises ValueError for a method without rows, without a common
    size, and where the seeds of the two differ.
    """
    rows = table[table["metric"] == metric]
    wide = {}
    for name in (method, baseline):
        mine = rows[rows["method"] == name]
        if mine.empty:
            raise ValueError(f"table has no {metric!r} of {name!r}.")
        wide[name] = mine.pivot_table("value", "seed", "size")
    sizes = wide[method].columns.intersection(wide[baseline].columns)
    ours, theirs = wide[method][sizes], wide[baseline][sizes]
    if (
        not len(sizes)
        or list(ours.index) != list(theirs.index)
        or ours.isna().any(axis=None)
        or theirs.isna().any(axis=None)
    ):
        raise ValueError(f"{metric!r} of {method!r} and {baseline!r} is not recorded for the same seeds and sizes.")
    sign = 1.0 if rows["higher_is_better"].iloc[0] else -1.0
    if relative:
        return sign * (ours / theirs).map(math.log)
    return sign * (ours - theirs)


def _written(settings: Mapping[str, object]) -> dict:
    """Settings as text and numbers, functions by their names, for files and for the names of checkpoints."""
    plain = (str, int, float, bool, type(None))

    def text(value):
        if isinstance(value, plain):
            return value
        if isinstance(value, Mapping):
            return _written(value)
        if isinstance(value, list | tuple):
            return [text(each) for each in value]
        return getattr(value, "__qualname__", None) or repr(value)

    return {key: text(settings[key]) for key in sorted(settings)}
