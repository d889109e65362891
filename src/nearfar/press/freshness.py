"""Which records are older than the code, for all of them at once: what was worked out is kept between builds."""

import hashlib
import json
import sys
from pathlib import Path

from nearfar.chapters import notebooks, papers
from nearfar.errors import NearFarError
from nearfar.runs import tuning
from nearfar.runs.run import write_atomically


def _sources() -> bytes:
    """Digest of all that a chapter's code hash depends on besides notebooks."""
    digest = hashlib.sha256(sys.version.encode())
    press = Path(__file__).parent  # makes the site and stands above all that a notebook runs on
    for path in sorted(press.parent.rglob("*.py")):
        digest.update(b"" if path.is_relative_to(press) else path.read_bytes())
    return digest.digest()


def marked(records: list[dict], store: Path) -> list[dict]:
    """The records with a field `stale`, which `results.is_stale` reads.

    store: file of code hashes by slug and tier; an entry counts as long as `nearfar`, the notebook and those
    that it borrows from stay the same.
    """
    try:
        known = json.loads(store.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}  # no build before this one, or a broken file
    sources, found = _sources(), {}

    def code(slug: str, tier: str) -> str | None:
        name = f"{slug} {tier}"
        if name not in found:
            try:
                held = b"".join(path.read_bytes() for path in notebooks.files(papers.notebook(slug)))
                inputs = hashlib.sha256(sources + held).hexdigest()
                before = known.get(name, ["", ""])
                found[name] = before if before[0] == inputs else [inputs, notebooks.code_hash(slug, tier)]
            except NearFarError:
                found[name] = ["", None]  # its chapter is gone
        return found[name][1]

    result = []
    for record in records:
        hashed = code(record["slug"], record["tier"])
        fresh = hashed and notebooks.fingerprint(hashed, record["dataset"].values()) == record["fingerprint"]
        result.append({**record, "stale": not fresh or tuning.otherwise(record)})
    write_atomically(store, json.dumps(found, indent=1) + "\n")
    return result
