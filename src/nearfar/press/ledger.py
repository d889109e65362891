"""The book's results page: data multipliers, the paper's numbers beside ours, claims, and what could not be read."""

import os
from collections.abc import Sequence

from nearfar.chapters import notebooks, papers
from nearfar.press import names, reported, results_table
from nearfar.press.pages import badge, cell, filters, highest
from nearfar.runs import results, verdicts

Grouped = dict[tuple[str, str], list[dict]]


def _multipliers(records: list[dict]) -> list[str]:
    """The table of all chapters; what it does not hold is named below it."""
    lines = ["## All chapters", "",
             "The *data multiplier* says how many times more training data the baseline needs to reach the method's "
             "score. One is a tie; in brackets, and as a line, the 95 % t interval over seeds. A bound (> or <) stands "
             "where the shift of the curves leaves the range of sizes. [How to read a chapter](how-to-read.md) says "
             "how it is estimated.", "",
             "```{raw} html", results_table.table(records), "```", ""]  # fmt: skip
    compared = [slug for slug in highest(records) if slug in papers.PARTS]
    lines += [f"- {papers.PARTS[slug]}, all methods on one protocol: see [its part's page](parts/{slug}.md)."
              for slug in compared]  # fmt: skip
    return [*lines, ""]


def _reported(rows: Sequence[reported.Row], links: dict[str, str]) -> list[str]:
    lines = ["## The paper's numbers and ours", "",
             "Method against baseline, as the paper reports them in its own setting and as we measured them at the "
             "highest tier that has been run: mean and 95 % t interval over seeds, at the largest training set. "
             "*Found* numbers were checked at their source, *recalled* ones were not. The settings differ: compare the "
             "sign and the rough size of the change, not the levels.", "",
             "| chapter, claim | the paper | ours | change, paper | change, ours |",
             "|---|---|---|---|---|"]  # fmt: skip
    for row in rows:
        claim = f"{row.claim} {badge(row.verdict)}" if row.verdict else row.claim
        ours = f"{cell(row.ours)}<br>{cell(row.where)}" if row.ours else cell(row.where)
        paper = f"{cell(row.paper)}<br>{cell(row.what)}"
        lines.append(f"| {links[row.slug]}<br>{claim} | {paper} | {ours} | {row.change_paper} | {row.change_ours} |")
    return [*lines, ""] if rows else []


def _evidence(claim: dict) -> str:
    """Of one seed when all agree, of one for each verdict when they do not."""
    told = [
        (seed, verdict, cell(text) if text.strip() else "no evidence recorded")
        for seed, verdict, text in claim["evidence"]
    ]
    if len(told) == 1:
        return told[0][2]
    return "<br>".join(f"*{verdict}, seed {seed}:* {text}" for seed, verdict, text in told)


def _claims(grouped: Grouped, titles: dict[str, str]) -> list[str]:
    kinds = {f"nf-{v.replace(' ', '-')}": v for v in verdicts.VERDICTS}
    tiers = {f"nf-tier-{tier}": tier for tier in notebooks.TIERS if any(t == tier for _, t in grouped)}
    lines = ["## Claims ledger", "",
             "A claim that fails is a result. Verdicts are those of all seeds together: *undecided* where a t-test "
             "over seeds sees too little, *mixed* where seeds disagree, *not tested* where the tier cannot test the "
             "claim or fewer than three seeds did. Evidence is that of the first seed, and "
             "where seeds disagree, of one seed for each verdict.", "",
             filters({"Verdict": kinds, "Tier": tiers}, "#claims-ledger tbody tr", "claims"), ""]  # fmt: skip
    for slug in highest([record for mine in grouped.values() for record in mine]):
        rows = []
        for tier in notebooks.TIERS:
            for claim in verdicts.over_seeds(grouped.get((slug, tier), [])):
                verdict = badge(claim["verdict"]) + cell(claim["summary"]).removeprefix(claim["verdict"])
                where = f'<span class="nf-tier-{tier}">{tier}</span>'
                rows.append(f"| {cell(claim['id'])} {cell(claim['text'])} | {where} | {verdict} | {_evidence(claim)} |")
        table = ["| claim | tier | verdict | evidence |", "|---|---|---|---|", *rows]
        lines += [f"### {titles[slug]}", "", *(table if rows else ["No claims are recorded."]), ""]
    return lines


def results_page(records: list[dict], problems: list[str], compared: Sequence[reported.Row] = ()) -> str:
    """Markdown of the results page; unreadable records are listed, not hidden.

    compared: the papers' numbers beside ours, from `reported.compare`.
    """
    lines = ["# Results", "",
             "All our numbers on this page are read from the recorded runs; nothing is typed by hand.", ""]  # fmt: skip
    if problems:
        lines += [":::{warning} Records that could not be read", ""]
        shown = (line.replace(f"{papers.root()}{os.sep}", "") for line in problems)
        lines += [*(f"- {cell(line)}" for line in shown), "", ":::", ""]
    if not records:
        return "\n".join([*lines, "No runs are recorded yet. `nearfar run <slug>` records one.", ""])
    known = papers.slugs()
    mine = [record for record in records if record["slug"] in known]
    links = {slug: f"[{cell(names.short(slug))}](../notebooks/{part}/{slug}.ipynb)" for slug, part in known.items()}
    titles = {paper.slug: cell(names.full(paper)) for paper in papers.all_papers()}
    titles |= {paper.slug: cell(paper.title) for paper in papers.comparisons()}
    lines += [*_multipliers(mine), *_reported(compared, links), *_claims(results.groups(mine), titles)]
    lines += ["## Download", "",
              "{download}`measurements.csv <_generated/measurements.csv>` holds every recorded number, "
              "{download}`claims.csv <_generated/claims.csv>` every verdict, of each seed and of all together, "
              "{download}`reported.csv <_generated/reported.csv>` the papers' numbers beside ours.", ""]  # fmt: skip
    return "\n".join(lines)
