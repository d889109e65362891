"""Pages of the book that are made from the course file: the list of all papers, and what each of them builds on."""

from collections.abc import Mapping
from pathlib import Path

from nearfar import plots
from nearfar.chapters import papers
from nearfar.press import names
from nearfar.press.course import Course, Entry, arrows, order

Segment = tuple[str, str]


def layers(course: Course, part: str) -> tuple[list[list[str]], list[Segment]]:
    """Columns of one part's drawing, and the lines from each column to the next.

    What comes from outside the part stands first, then each paper one column after all it needs.  An arrow that skips
    a column gets a way-point in it, named `need column`, so that it never runs behind a box.  Within a column
    names are ordered by the mean height of what they are joined to (barycentre rule), so that few lines cross.
    """
    pairs = arrows(course, part)
    inside = [slug for slug in order(course) if course.entries[slug].part == part]
    depth: dict[str, int] = {}
    for slug in inside:
        depth[slug] = 1 + max((depth.get(need, 0) for need, paper in pairs if paper == slug), default=0)
    columns = [[slug for slug in inside if depth[slug] == d] for d in range(1, max(depth.values()) + 1)]
    columns.insert(0, list(dict.fromkeys(need for need, _ in pairs if need not in depth)))
    segments: dict[Segment, None] = {}
    for need, paper in pairs:
        stops = [need, *(f"{need} {d}" for d in range(depth.get(need, 0) + 1, depth[paper])), paper]
        segments |= dict.fromkeys(zip(stops, stops[1:]))
        for d, stop in enumerate(stops[1:-1], start=depth.get(need, 0) + 1):
            columns[d] += [] if stop in columns[d] else [stop]
    for sweep in range(12):  # to and fro
        steps = list(zip(columns[1:], columns)) if sweep % 2 == 0 else list(zip(columns[-2::-1], columns[:0:-1]))
        for here, there in steps:
            place = {name: (n + 0.5) / len(there) for n, name in enumerate(there)}
            own = {name: (n + 0.5) / len(here) for n, name in enumerate(here)}
            reach = {name: [place[a if b == name else b] for a, b in segments
                            if name in (a, b) and (a if b == name else b) in place] for name in here}  # fmt: skip
            here.sort(key=lambda name: sum(reach[name]) / len(reach[name]) if reach[name] else own[name])
    return columns, list(segments)


def graph_figure(course: Course, part: str, path: Path) -> None:
    """Draws what the papers of one part need, left to right, into `path` (.svg or .png; the same bytes each time).

    Written chapters are filled, planned ones hollow, concepts dashed; papers of other parts are grey.
    """
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    columns, segments = layers(course, part)
    height = max(map(len, columns))
    at = {name: (3.4 * x, height * (n + 0.5) / len(column)) for x, column in enumerate(columns)
          for n, name in enumerate(column)}  # fmt: skip
    with mpl.rc_context():
        plots.theme()
        mpl.rcParams.update({"svg.hashsalt": f"nearfar-{part}", "figure.constrained_layout.use": False})
        figure = plt.figure(figsize=(3.1 * len(columns) + 0.2, 0.42 * height + 0.3))
        ax = figure.add_axes((0, 0, 1, 1))
        real = course.entries.keys() | course.concepts.keys()
        for start, end in segments:
            (x0, y0), (x1, y1) = at[start], at[end]
            ax.annotate("", (x1 - 1.28, y1), (x0 + 1.28, y0), arrowprops={
                "arrowstyle": "-|>" if end in real else "-", "color": "#9CA3AF", "linewidth": 0.9,
                "shrinkA": 0, "shrinkB": 0})  # fmt: skip
        for name, (x, y) in at.items():
            if name not in real:
                ax.plot([x - 1.28, x + 1.28], [y, y], color="#9CA3AF", linewidth=0.9)
                continue
            ax.add_patch(_box(course, part, name, x, y))
            ink = "white" if name in course.written else "#1F2937"
            label = _called(course, name)
            ax.text(x, y, label, ha="center", va="center", color=ink, fontsize=8.6 if len(label) < 27 else 7.4)
        ax.set(xlim=(-1.5, 3.4 * (len(columns) - 1) + 1.5), ylim=(height, 0))
        ax.axis("off")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        plt.close(figure)


def _called(course: Course, name: str) -> str:
    """Short name of a paper, id of a concept; a planned paper without a short title of its own keeps its slug."""
    if name in course.concepts:
        return name
    if name in course.written:
        return names.short(name)
    own = names.shortened(course.entries[name].title)
    return name if own.endswith("…") else own


def _box(course: Course, part: str, name: str, x: float, y: float):
    from matplotlib.patches import FancyBboxPatch

    own = name in course.entries and course.entries[name].part == part
    edge = plots.colour("method") if own else plots.colour("neutral")
    face = edge if name in course.written else "white"
    return FancyBboxPatch(
        (x - 1.28, y - 0.3), 2.56, 0.6, boxstyle="round,pad=0,rounding_size=0.12", facecolor=face, edgecolor=edge,
        linewidth=1.3, linestyle="--" if name in course.concepts else "-", zorder=3,
    )  # fmt: skip


def _cell(text: str) -> str:
    """Plain text that may stand in a cell of a Markdown table."""
    for sign in "\\|*_$<`":
        text = text.replace(sign, f"\\{sign}")
    return text


def _title(course: Course, entry: Entry) -> str:
    """A paper's title: a link to its chapter when written, else to arXiv where it is known."""
    text = _cell(entry.title)
    if entry.slug in course.written:
        return f"**[{text}](../../notebooks/{entry.part}/{entry.slug}.ipynb)**"
    return f"[{text}](https://arxiv.org/abs/{entry.arxiv})" if entry.arxiv else text


def _need(course: Course, name: str) -> str:
    if name in course.written:
        return f"[{_cell(_called(course, name))}](../../notebooks/{course.entries[name].part}/{name}.ipynb)"
    if name in course.entries:
        return _cell(_called(course, name))
    concept = course.concepts[name]
    if concept.term:
        return f"{{term}}`{concept.title} <{concept.term}>`"
    return f"[{concept.title}]({concept.link})"


def _by(entry: Entry) -> str:
    return f"{papers.by(entry.authors) or 'authors not known to us'}, {entry.year}"


def _counts(course: Course, part: str) -> str:
    entries = course.of(part)
    written = sum(entry.slug in course.written for entry in entries)
    return f"{len(entries)} papers, {written} written, {len(entries) - written} planned."


def papers_page(course: Course) -> str:
    """Markdown of the list of all papers by part: idea, topics, needs, and a link where the chapter is written."""
    lines = ["# All papers", "",
             f"{len(course.entries)} papers are planned for this book; {len(course.written)} chapters are written. "
             "**Bold** titles lead to a chapter, the others to the paper itself. The slug is the chapter's name on "
             "the command line.", ""]  # fmt: skip
    for part, caption in course.parts().items():
        lines += [f"## {caption}", "", _counts(course, part), "",
                  "| paper | idea | topics | know first |", "|---|---|---|---|"]  # fmt: skip
        for entry in course.of(part):
            needs = ", ".join(_need(course, name) for name in entry.needs)
            state = "" if entry.slug in course.written else ", planned"
            lines.append(
                f"| {_title(course, entry)}<br>{_by(entry)}; `{entry.slug}`{state} | {_cell(entry.idea)} | "
                f"{', '.join(entry.topics)} | {needs} |"
            )
        lines.append("")
    return "\n".join(lines)


def prerequisites_page(course: Course, figures: Mapping[str, str]) -> str:
    """Markdown of the graphs.  figures: {part: path of its drawing, relative to the page}."""
    lines = ["# What to know first", "",
             "Arrows lead from what comes first to what builds on it. Filled boxes are written chapters, hollow ones "
             "are planned, dashed ones are concepts, grey ones are papers of another part. What follows from two "
             "arrows is not drawn a third time.", "",
             "## Concepts", "", "| concept | in the drawings | needed by |", "|---|---|---|"]  # fmt: skip
    for concept in course.concepts.values():
        users = sum(concept.id in entry.needs for entry in course.entries.values())
        lines.append(f"| {_need(course, concept.id)} | {concept.id} | {users} paper{'' if users == 1 else 's'} |")
    for part, caption in course.parts().items():
        pairs = arrows(course, part)
        alt = f"{caption}: " + "; ".join(
            f"{_called(course, entry.slug)} needs "
            + ", ".join(_called(course, need) for need, paper in pairs if paper == entry.slug)
            for entry in course.of(part)
        )
        lines += ["", f"## {caption}", "", f"```{{figure}} {figures[part]}", f":alt: {alt}.", f":name: needs-{part}",
                  "", f"What the papers of this part build on. {_counts(course, part)}", "```"]  # fmt: skip
    sequence = " · ".join(_need(course, slug) for slug in order(course))
    lines += ["", "## One order for all", "",
              "Every paper after all it needs, and part by part wherever that is free:", "", sequence, ""]  # fmt: skip
    return "\n".join(lines)
