// The verdict: a sentence at the top of the page, and a table with each setting's interval as a forest plot.
"use strict";

function drawVerdict() {
  const { verdicts } = report;
  byId("lead").replaceChildren(
    ...verdicts.map((verdict) => el("p", {}, (verdict.rows ? `Held-out rows ${verdict.rows}: ` : "") + verdict.lead)),
  );
  byId("lead").hidden = byId("verdict").hidden = !verdicts.length;
  byId("verdict-plots").replaceChildren(...verdicts.flatMap(forestPlot));
}

function forestPlot(verdict) {
  const { settings } = verdict;
  const scale = forestScale(settings);
  const priced = settings.some((one) => one.dollars !== null);
  const head = ["setting", "worse than the best →", "difference", "95 % interval", "loss", "runs", "cost of a run"];
  const name = `Difference of each setting from the best, with its 95 % interval${rowsOf(verdict)}`;
  const table = el(
    "table",
    { class: "forest" },
    el("caption", {}, name),
    el("thead", {}, el("tr", {}, ...head.map((text, at) => el("th", { scope: "col", class: forestClass(at) }, text)))),
    el("tbody", {}, ...settings.map((one) => forestRow(one, scale, priced))),
  );
  const more = verdict.not_drawn ? [`${verdict.not_drawn} settings that do worse than these are not drawn.`] : [];
  return [
    el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": name }, table),
    ...[rowsWords(verdict), ...verdict.sentences, ...more].map((line) => el("p", { class: "note" }, line)),
  ];
}

const rowsOf = (verdict) => (verdict.rows ? `, held-out rows ${verdict.rows}` : "");
const rowsWords = ({ held_out, documents }) =>
  `${counted(held_out, "held-out row")}${documents === null ? "" : ` of ${counted(documents, "document")}`}.`;
const forestClass = (at) => (at === 0 ? "text" : at === 1 ? "plot" : "");

function forestRow(one, scale, priced) {
  const cost = priced ? money(one.dollars) : duration(one.train_seconds);
  return el(
    "tr",
    { class: one.is_best ? "best" : "" },
    el("th", { scope: "row", class: "text" }, `${one.is_best ? "★ " : ""}${one.name}`),
    el("td", { class: "plot" }, forestBar(one, scale)),
    el("td", {}, difference(one.difference)),
    el("td", {}, one.interval),
    el("td", {}, loss(one.loss)),
    el("td", {}, String(one.runs)),
    el("td", {}, `${cost}${one.is_cheapest && cost ? " (least of ★)" : ""}`),
  );
}

// From the lowest end to three times the best group's highest, so that a setting that is far off does not squeeze the
// others; such a setting ends in an arrow. Places are in percent, so that a plot is as wide as its column.
function forestScale(settings) {
  const near = settings.filter((one) => one.is_best || one === settings[1]).flatMap((one) => [one.low, one.high]);
  const reach = Math.max(...near.map(Math.abs)) || 1;
  const low = Math.min(0, ...settings.map((one) => one.low));
  const high = Math.min(Math.max(...settings.map((one) => one.high)), 3 * reach) || reach;
  const place = (value) => 4 + (92 * (Math.min(Math.max(value, low), high) - low)) / (high - low);
  return { place, high };
}

function forestBar(one, { place, high }) {
  const [zero, low, high_, at] = [0, one.low, one.high, one.difference].map((value) => `${place(value)}%`);
  const words = one.interval
    ? `${one.name}: worse than the best by ${difference(one.difference)}, interval ${one.interval}`
    : `${one.name}: the best`;
  const plot = svg("svg", { class: `forest-bar${one.is_best ? " good" : ""}`, role: "img" });
  plot.append(
    svg("title", {}, words),
    svg("desc", {}, "The line is the interval, the dot the difference, and the vertical line the best setting."),
    svg("line", { class: "zero", x1: zero, x2: zero, y1: "0", y2: "100%" }),
    svg("line", { class: "span", x1: low, x2: high_, y1: "50%", y2: "50%" }),
  );
  if (one.difference <= high) plot.append(svg("circle", { cx: at, cy: "50%", r: "4.5" }));
  if (one.high > high) plot.append(svg("text", { x: "100%", y: "50%", dy: ".35em", "text-anchor": "end" }, "▶"));
  return plot;
}

function svg(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
