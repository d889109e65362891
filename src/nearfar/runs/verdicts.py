"""What one run says about a claim, and what the seeds of a chapter say together.

The seed is the unit.  Each run brings one number per claim, already averaged over sizes, and the tests are over these
numbers: results at several sizes of one seed belong together, and a test over all of them wins by chance too often.
"""

import math
from collections import Counter

VERDICTS = ("held", "failed", "undecided", "mixed", "not tested")  # of seeds together, as pages count them
OF_ONE_RUN = {True: "held", False: "failed", None: "not tested"}
KINDS = ("mechanism", "superiority", "equivalence")
SEEDS, LEVEL = 3, 0.05  # fewer seeds decide nothing; level of each one-sided test


# ---------------------------------------------------------------------------------------------------------- one run
def of_run(kind: str = "mechanism", holds=..., difference=..., margin: float | None = None) -> dict:
    """Kind and verdict of a claim in one run, with difference and margin where there are: fields of a record's claim.

    Arguments as in `Run.claim`; `...` is what was not given.  Raises ValueError for a combination that says nothing.
    """
    if kind not in KINDS:
        raise ValueError(f"a claim's kind is one of {', '.join(KINDS)}, not {kind!r}.")
    if kind == "mechanism":
        if difference is not ... or margin is not None:
            raise ValueError("a mechanism claim takes holds; difference and margin are for superiority, equivalence.")
        if holds is ...:
            raise ValueError("a mechanism claim needs holds: True, False, or None where this tier cannot test it.")
        return {"kind": kind, "verdict": OF_ONE_RUN[None if holds is None else bool(holds)]}
    if holds is not ...:
        raise ValueError(f"{kind} is judged by difference and margin; leave holds out.")
    if difference is ... or margin is None:
        raise ValueError(f"{kind} needs a difference (None where this tier cannot test it) and a margin.")
    margin = float(margin)
    _check_margin(kind, margin)
    if difference is None:
        return {"kind": kind, "verdict": OF_ONE_RUN[None], "margin": margin}
    difference = float(difference)
    if not math.isfinite(difference):
        raise ValueError(f"the difference is {difference}; it must be a finite number.")
    holds = difference > margin if kind == "superiority" else abs(difference) <= margin
    return {"kind": kind, "verdict": OF_ONE_RUN[holds], "difference": difference, "margin": margin}


def _check_margin(kind: str, margin: float) -> None:
    if not math.isfinite(margin) or margin < 0 or (kind == "equivalence" and margin == 0):
        least = "above zero" if kind == "equivalence" else "of at least zero"
        raise ValueError(f"the margin of {kind} must be a finite number {least}, got {margin:g}.")


def check(claim: dict) -> None:
    """Raises ValueError where the fields of a recorded claim do not belong together; records of old have no kind."""
    where, kind = f"claim {claim['id']}", claim.get("kind", "mechanism")
    if claim["verdict"] not in OF_ONE_RUN.values():
        raise ValueError(f"{where} has the unknown verdict {claim['verdict']!r}")
    numbers = {name: claim[name] for name in ("difference", "margin") if name in claim}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{where} has no proper {name!r}")
    untested = {"holds": None} if kind == "mechanism" else {"difference": None}
    try:
        said = of_run(kind, **{**untested, **numbers})
    except (ValueError, OverflowError) as problem:
        raise ValueError(f"{where}: {problem}") from None
    if kind != "mechanism" and said["verdict"] != claim["verdict"]:
        raise ValueError(f"{where} says {claim['verdict']!r}, its difference and margin say {said['verdict']!r}")


# ------------------------------------------------------------------------------------------------------- over seeds
def over_seeds(records: list[dict]) -> list[dict]:
    """Claims of one chapter at one tier over its seeds; the one place where verdicts of pages and tables come from.

    Each row: id, text, kind, verdict (one of `VERDICTS`), summary (the verdict with its numbers, in words), and
    evidence: [(seed, verdict of that run, text)], for each verdict that of its first seed, that of most seeds first.

    *Superiority*: a one-sided t-test over the seeds' differences less the margin.  *Equivalence*: two, one against
    each bound.  *Mechanism*: what all seeds say, `mixed` when they differ.  `not tested` below three seeds that
    could test it.
    """
    found: dict[str, list[tuple[int, dict]]] = {}
    for record in records:
        for claim in record["claims"]:
            found.setdefault(claim["id"], []).append((record["seed"], claim))
    rows = []
    for name, seeds in found.items():
        verdict, numbers = _judged([claim for _, claim in seeds], len(records))
        votes = [claim["verdict"] for _, claim in seeds]
        firsts = [seeds[votes.index(each)] for each, _ in Counter(votes).most_common()]
        first = seeds[0][1]
        rows.append({
            "id": name, "text": first["text"], "kind": first.get("kind", "mechanism"),
            "verdict": verdict, "summary": verdict + numbers,
            "evidence": [(seed, claim["verdict"], claim["evidence"]) for seed, claim in firsts],
        })  # fmt: skip
    return rows


def _judged(claims: list[dict], runs: int) -> tuple[str, str]:
    """Verdict and what follows it in the summary.  claims: one claim, of each run that has it; runs: how many ran."""
    tested = [claim for claim in claims if claim["verdict"] != "not tested"]
    if not tested:
        return "not tested", ""
    if len(tested) < SEEDS:
        silent = f", {runs - len(tested)} could not test it" if runs > len(tested) else ""
        return "not tested", f": {len(tested)} seed{'s' if len(tested) > 1 else ''} of {SEEDS}{silent}"
    if len({(claim.get("kind", "mechanism"), claim.get("margin")) for claim in tested}) > 1:
        return "undecided", ": the seeds were judged by different margins; run them again"
    silent = f"; {runs - len(tested)} of {runs} seeds could not test it" if runs > len(tested) else ""
    kind = tested[0].get("kind", "mechanism")
    if kind != "mechanism":
        verdict, numbers = _tested(kind, [claim["difference"] for claim in tested], tested[0]["margin"])
        return verdict, f"{numbers}, {len(tested)} seeds{silent}"
    held = sum(claim["verdict"] == "held" for claim in tested)
    if 0 < held < len(tested):
        return "mixed", f": held in {held} of {len(tested)} seeds{silent}"
    return tested[0]["verdict"], silent


def _tested(kind: str, differences: list[float], margin: float) -> tuple[str, str]:
    """Verdict over the seeds' differences and its numbers, from one-sided t-tests at `LEVEL`."""
    over, under = _p_above(differences, margin), _p_above([-d for d in differences], -margin)
    if kind == "superiority":  # held: above the margin; failed: below it
        held, failed = over, under
        bound = f"margin {margin:g}"
    else:  # held: below the upper bound and above the lower one; failed: beyond one of them
        held = max(under, _p_above(differences, -margin))
        failed = min(over, _p_above([-d for d in differences], margin))
        bound = f"margin ±{margin:g}"
    verdict = "held" if held < LEVEL else "failed" if failed < LEVEL else "undecided"
    p = failed if verdict == "failed" else held
    mean = math.fsum(differences) / len(differences)
    return verdict, f": mean difference {_signed(mean)} ({bound}), {'p < 0.001' if p < 0.001 else f'p {p:.2g}'}"


def _p_above(values: list[float], bound: float) -> float:
    """One-sided p of Student's t that the mean of `values` is above `bound`; without spread the sign decides."""
    from scipy.special import stdtr  # without the second that scipy.stats takes to load

    count, mean = len(values), math.fsum(values) / len(values)
    error = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1) / count)
    away, rounding = mean - bound, 1e-12 * max(abs(bound), *map(abs, values))
    if abs(away) <= rounding:
        return 0.5
    if error <= rounding:
        return 0.0 if away > 0 else 1.0
    return float(stdtr(count - 1, -away / error))


def _signed(value: float) -> str:
    """Two digits, at least one before the point, with a sign."""
    decimals = 1 if value == 0 else max(0, 1 - math.floor(math.log10(abs(value))))
    return f"{value:+.{decimals}f}".replace("-", "−")
