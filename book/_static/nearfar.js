// Names for what the theme leaves nameless, and buttons that show some of a page's cards or table rows only; without this script everything is shown.
document.addEventListener("DOMContentLoaded", () => {
  for (const summary of document.querySelectorAll(".bd-sidebar-primary summary")) {
    summary.setAttribute("aria-label", "Show or hide the chapters of this part");
  }
  for (const summary of document.querySelectorAll(".tag_hide-input > details > summary")) {
    summary.removeAttribute("aria-label"); // the line names what it opens; the label says so for all alike
  }
  for (const table of document.querySelectorAll(".bd-article table")) {
    if (table.scrollWidth > table.clientWidth) table.tabIndex = 0; // can be scrolled by keyboard
  }
  for (const box of document.querySelectorAll(".nf-filter")) {
    const items = [...document.querySelectorAll(box.dataset.items)];
    const section = box.closest("section"); // the filter stays where it is when less stands below it
    const inner = [...section.querySelectorAll("section")];
    const apply = () => {
      const groups = [...box.querySelectorAll("[role=group]")]
        .map((group) => [
          ...[...group.querySelectorAll("[aria-pressed=true]")].map((button) => button.dataset.class),
          ...[...group.querySelectorAll("select")].map((menu) => menu.value).filter(Boolean),
        ])
        .filter((chosen) => chosen.length);
      const shown = items.filter((item) => {
        const has = (name) => item.classList.contains(name) || item.querySelector("." + name) !== null;
        const wanted = groups.every((chosen) => chosen.some(has));
        item.classList.toggle("nf-hidden", !wanted);
        return wanted;
      });
      for (const part of inner) {
        part.classList.toggle("nf-hidden", items.some((item) => part.contains(item)) && !shown.some((item) => part.contains(item)));
      }
      section.classList.toggle("nf-filtered", groups.length > 0);
      box.querySelector("output").textContent = `${shown.length} of ${items.length} ${box.dataset.noun} shown`;
    };
    box.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
      apply();
    });
    box.addEventListener("change", apply);
    apply();
    box.hidden = false;
  }
});
