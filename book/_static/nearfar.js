// Names for what the theme leaves nameless, a search and menus that show some of a page's cards or table rows only, and
// tables that are sorted by a click; without this script everything is shown, in the book's order.
document.addEventListener("DOMContentLoaded", () => {
  for (const summary of document.querySelectorAll(".bd-sidebar-primary summary")) {
    summary.setAttribute("aria-label", "Show or hide the chapters of this part");
  }
  for (const summary of document.querySelectorAll(".tag_hide-input > details > summary")) {
    summary.removeAttribute("aria-label"); // the line names what it opens; the label says so for all alike
  }
  const reachable = () => {
    for (const formula of document.querySelectorAll(".bd-article span.math")) {
      const cut = formula.clientWidth && formula.scrollWidth > formula.clientWidth + 1; // the theme hides what is beyond
      if (cut) formula.classList.add("nf-long"); // longer than a line of its text
    }
    for (const box of document.querySelectorAll(".bd-article :is(table, pre, div.math, .nf-long, .nf-box)")) {
      if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0; // can be scrolled by keyboard
    }
  };
  reachable();
  window.addEventListener("load", () => {
    reachable(); // pictures have their widths by now, and formulas once they are typeset
    window.MathJax?.startup?.promise?.then(reachable);
  });
  window.addEventListener("resize", reachable);
  for (const head of document.querySelectorAll("th.nf-sortable")) {
    const rows = head.closest("table").tBodies[0];
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const key = (row) => row.cells[head.cellIndex].dataset.sort;
      const down = head.getAttribute("aria-sort") === "ascending";
      const before = (a, b) => {
        if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === ""); // without a value: last, both ways
        const order = key(a) - key(b) || key(a).localeCompare(key(b), "en", { numeric: true });
        return down ? -order : order;
      };
      rows.append(...[...rows.rows].sort(before));
      for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
    });
  }
  for (const box of document.querySelectorAll(".nf-filter")) {
    const items = [...document.querySelectorAll(box.dataset.items)];
    const section = box.closest("section"); // the filter stays where it is when less stands below it
    const inner = [...section.querySelectorAll("section")];
    const field = box.querySelector("input");
    const texts = new Map(items.map((item) => [item, item.textContent.toLowerCase()]));
    const apply = () => {
      const groups = [...box.querySelectorAll("[role=group]")]
        .map((group) => [
          ...[...group.querySelectorAll("[aria-pressed=true]")].map((button) => button.dataset.class),
          ...[...group.querySelectorAll("select")].map((menu) => menu.value).filter(Boolean),
        ])
        .filter((chosen) => chosen.length);
      const words = field ? field.value.toLowerCase().split(/\s+/).filter(Boolean) : [];
      const shown = items.filter((item) => {
        const has = (name) => item.classList.contains(name) || item.querySelector("." + name) !== null;
        const wanted = groups.every((chosen) => chosen.some(has)) && words.every((word) => texts.get(item).includes(word));
        item.classList.toggle("nf-hidden", !wanted);
        return wanted;
      });
      for (const part of inner) {
        part.classList.toggle("nf-hidden", items.some((item) => part.contains(item)) && !shown.some((item) => part.contains(item)));
      }
      section.classList.toggle("nf-filtered", groups.length + words.length > 0);
      box.querySelector("output").textContent = `${shown.length} of ${items.length} ${box.dataset.noun} shown`;
    };
    box.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
      apply();
    });
    box.addEventListener("change", apply);
    box.addEventListener("input", apply);
    apply();
    box.hidden = false;
  }
});
