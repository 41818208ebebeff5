// Elements of the page. Everything that users wrote reaches the page through `el`, as text.
"use strict";

let printing = false;
const wide = () => window.innerWidth >= 640 || printing;
const dark = () => !printing && window.matchMedia("(prefers-color-scheme: dark)").matches;
const byId = (id) => document.getElementById(id);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function el(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const lines = (texts) => texts.flatMap((text, at) => (at ? [el("br"), text] : [text]));

const tip = (texts) => el("div", { class: "tip" }, ...lines(texts));

function fillTable(id, headings, rows) {
  const table = byId(id);
  table.tHead.replaceChildren(
    el("tr", {}, ...headings.map((text, at) => el("th", { scope: "col", class: at ? "" : "text" }, text))),
  );
  table.tBodies[0].replaceChildren(
    ...rows.map((cells) => el("tr", {}, ...cells.map((cell, at) => el("td", { class: at ? "" : "text" }, cell)))),
  );
}

// Replaces the children of a control only if they differ, so that one that is in use keeps the focus.
function fillControl(place, made) {
  const text = made.map((one) => `${one.textContent}${one.value ?? ""}`).join("\n");
  if (place.dataset.filled === text) return;
  place.dataset.filled = text;
  place.replaceChildren(...made);
}

// Changes the page without moving `place` on the screen, whatever the change does to the height of what is above it.
function keepInPlace(place, change) {
  const before = place.getBoundingClientRect().top;
  change();
  const moved = place.getBoundingClientRect().top - before;
  if (moved) window.scrollBy({ top: moved, behavior: "instant" });
}
