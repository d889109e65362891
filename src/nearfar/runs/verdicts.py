"""What the seeds of a chapter say together about its claims."""

from collections import Counter


def over_seeds(records: list[dict]) -> list[dict]:
    """Claims of one chapter at one tier over its seeds.

    Each row: id, text, verdict (of most seeds; `mixed` on a tie), summary, which adds the count when seeds disagree,
    and evidence: [(seed, verdict, text)], for each verdict that of its first seed, the verdict of most seeds first.
    """
    found: dict[str, list[tuple[int, dict]]] = {}
    for record in records:
        for claim in record["claims"]:
            found.setdefault(claim["id"], []).append((record["seed"], claim))
    rows = []
    for name, seeds in found.items():
        votes = [claim["verdict"] for _, claim in seeds]
        (verdict, most), *others = Counter(votes).most_common()
        if others and others[0][1] == most:
            winner, summary = "mixed", f"mixed over {len(votes)} seeds"
        else:
            winner, summary = verdict, verdict + (f" in {most} of {len(votes)} seeds" if others else "")
        firsts = [seeds[votes.index(each)] for each, _ in Counter(votes).most_common()]
        evidence = [(seed, claim["verdict"], claim["evidence"]) for seed, claim in firsts]
        text = seeds[0][1]["text"]
        rows.append({"id": name, "text": text, "verdict": winner, "summary": summary, "evidence": evidence})
    return rows
