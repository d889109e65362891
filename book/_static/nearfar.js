// Names for what the theme leaves nameless, and buttons that show some of a page's cards or table rows only; without this script everything is shown.
document.addEventListener("DOMContentLoaded", () => {
  for (const summary of document.querySelectorAll(".bd-sidebar-primary summary")) {
    summary.setAttribute("aria-label", "Show or hide the chapters of this part");
  }
  for (const table of document.querySelectorAll(".bd-article table")) {
    if (table.scrollWidth > table.clientWidth) table.tabIndex = 0; // can be scrolled by keyboard
  }
  for (const box of document.querySelectorAll(".nf-filter")) {
    box.hidden = false;
    const apply = () => {
      const groups = [...box.querySelectorAll("[role=group]")]
        .map((group) => [...group.querySelectorAll("[aria-pressed=true]")].map((button) => button.dataset.class))
        .filter((chosen) => chosen.length);
      for (const item of document.querySelectorAll(box.dataset.items)) {
        const has = (name) => item.classList.contains(name) || item.querySelector("." + name) !== null;
        item.classList.toggle("nf-hidden", !groups.every((chosen) => chosen.some(has)));
      }
    };
    box.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
      apply();
    });
  }
});
