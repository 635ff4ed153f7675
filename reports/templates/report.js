"use strict";
// Without this script the page shows everything; with it, tables sort and filter, and lists of runs open beside their cell.

const ORDERS = ["none", "ascending", "descending"];
const words = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

function makeSortable(table) {
  const original = [...table.tBodies]; // rows of one tbody belong together and are moved together
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    if (header.classList.contains("sources")) return;
    const button = document.createElement("button");
    button.type = "button";
    const label = document.createElement("span"); // the arrow hangs at its last word, which it could not at a button's
    label.append(...header.childNodes);
    button.append(label);
    header.append(button);
    header.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const order = ORDERS[(ORDERS.indexOf(header.getAttribute("aria-sort")) + 1) % 3];
      headers.forEach((other) => other.hasAttribute("aria-sort") && other.setAttribute("aria-sort", "none"));
      header.setAttribute("aria-sort", order);
      table.append(...(order === "none" ? original : sorted(original, column, order === "descending")));
    });
  });
}

function sorted(bodies, column, descending) {
  const numeric = bodies.some((body) => "order" in body.rows[0].cells[column].dataset);
  const keyed = bodies.map((body) => [body, numeric ? numberIn(body, column) : textIn(body, column)]);
  const compare = numeric ? (a, b) => a - b : words.compare;
  return keyed
    .sort(([, a], [, b]) => (a === null) - (b === null) || (a === null ? 0 : compare(a, b) * (descending ? -1 : 1)))
    .map(([body]) => body);
}

function numberIn(body, column) {
  const value = Number.parseFloat(body.rows[0].cells[column].dataset.order);
  return Number.isNaN(value) ? null : value;
}

function textIn(body, column) {
  const text = body.rows[0].cells[column].textContent.trim();
  return text === "" || text === "–" ? null : text;
}

function makeFilter(box) {
  const [input, shown] = [box.querySelector("input"), box.querySelector("output")];
  const bodies = [...box.parentElement.querySelector("table").tBodies];
  const texts = bodies.map((body) => [...body.rows[0].cells].map((cell) => cell.textContent.toLowerCase()).join(" "));
  const apply = () => {
    const terms = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    bodies.forEach((body, n) => (body.hidden = !terms.every((word) => texts[n].includes(word))));
    const left = bodies.filter((body) => !body.hidden).length;
    shown.value = terms.length ? `${left} of ${bodies.length}` : "";
  };
  input.addEventListener("input", apply);
  box.addEventListener("clear", () => {
    input.value = "";
    apply();
  });
  box.hidden = false;
  apply(); // a browser may restore the text that was typed before the page was loaded again
}

// All cells with the same runs share one list, so it is placed when it opens: below the cell, or above it if only that
// fits, and never beyond the window.
function place(popover, cell) {
  const edge = 8;
  const at = cell.getBoundingClientRect();
  const view = document.documentElement;
  const left = Math.max(edge, Math.min(at.left, view.clientWidth - popover.offsetWidth - edge));
  const below = at.bottom + 4;
  const above = at.top - 4 - popover.offsetHeight;
  const top = below + popover.offsetHeight > view.clientHeight && above > 0 ? above : below;
  popover.style.left = `${left + window.scrollX}px`;
  popover.style.top = `${top + window.scrollY}px`;
}

function makePopovers() {
  let cell = null;
  document.addEventListener("click", (event) => (cell = event.target.closest("[popovertarget]") ?? cell), true);
  for (const popover of document.querySelectorAll("[popover]")) {
    popover.addEventListener("toggle", (event) => {
      if (event.newState !== "open" || !cell) return;
      place(popover, cell);
      popover.classList.add("placed");
    });
    popover.addEventListener("beforetoggle", () => popover.classList.remove("placed"));
    popover.addEventListener("click", (event) => event.target.closest("a.to-run") && popover.hidePopover());
  }
}

// The target of a link may be folded or filtered out.
function reveal(hash) {
  const target = hash.length > 1 && document.getElementById(decodeURIComponent(hash.slice(1)));
  if (!target) return;
  const folded = target.closest("details");
  if (folded) folded.open = true;
  if (target.closest("tbody")?.hidden) folded.querySelector(".filter").dispatchEvent(new Event("clear"));
  target.scrollIntoView({ block: "nearest" });
}

function unfoldForPrint() {
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((details) => (details.open = true));
  });
  window.addEventListener("afterprint", () => closed.forEach((details) => (details.open = false)));
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
document.querySelectorAll(".filter").forEach(makeFilter);
makePopovers();
unfoldForPrint();
document.addEventListener("click", (event) => {
  const hash = event.target.closest('a[href^="#"]')?.hash;
  if (hash) reveal(hash);
});
window.addEventListener("hashchange", () => reveal(location.hash));
reveal(location.hash);
