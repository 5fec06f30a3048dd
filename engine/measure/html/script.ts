/**
 * Script of the page: sorts the overview by its heads, and shows hints at the pointer. Without it,
 * the page has every figure, and hints appear as the browser's own.
 *
 * @module
 */

/** The script, as an element's text; it contains no end of an element. */
export const SCRIPT = `"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const read = (row) => {
      const cell = row.cells[i];
      if (cell.dataset.v === undefined) return cell.textContent;
      return cell.dataset.v === "" ? null : Number(cell.dataset.v);
    };
    button.addEventListener("click", () => {
      const numeric = head.classList.contains("n");
      const next = { none: numeric ? "descending" : "ascending", ascending: "descending",
        descending: "ascending" }[head.ariaSort ?? "none"];
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      const rows = [...body.rows].map((row) => [read(row), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        return sign * (numeric ? a - b : a.localeCompare(b, undefined, { numeric: true }));
      });
      body.append(...rows.map(([, row]) => row));
    });
  });
}
const tip = document.createElement("div");
tip.id = "tip";
tip.hidden = true;
tip.ariaHidden = "true";
document.body.append(tip);
const hints = new WeakMap();
for (const title of document.querySelectorAll(".plot :not(svg) > title")) {
  hints.set(title.parentNode, title.textContent);
  title.remove();
}
document.addEventListener("pointermove", (event) => {
  let mark = event.target;
  while (mark && !hints.has(mark)) mark = mark.parentNode;
  tip.hidden = !mark;
  if (!mark) return;
  tip.textContent = hints.get(mark);
  const { offsetWidth: w, offsetHeight: h } = tip;
  tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - w - 8)) + "px";
  tip.style.top = (event.clientY + h + 24 > innerHeight ? event.clientY - h - 10
    : event.clientY + 16) + "px";
});
document.addEventListener("pointerleave", () => tip.hidden = true);
document.addEventListener("scroll", () => tip.hidden = true, true);
`;

/** Hash of the script for the page's policy, which allows no other; a test computes it. */
export const SCRIPT_HASH = "sha256-IT18Htdyr13QskkX9WpD9Gms6lB9mRlWrFjbepx5XOU=";
