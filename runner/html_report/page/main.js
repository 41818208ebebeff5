// Puts the values into the page, redraws it when they change, and requests newer values if the page is served.
"use strict";

let report = JSON.parse(byId("values").textContent);
const REFRESH_MS = 3000;

function drawHead() {
  byId("sweep").textContent = report.sweep;
  byId("live").hidden = !report.going_on;
  byId("question").textContent = report.question;
  byId("note").textContent = report.note;
  byId("note").hidden = !report.note;
  byId("answer").replaceChildren(...report.answer.map((line) => el("p", {}, line)));
  drawHeadway();
  const facts = [report.counts, ...report.cost];
  byId("facts").replaceChildren(...facts.filter(Boolean).map((fact) => el("li", {}, fact)));
  for (const place of document.querySelectorAll(".metric")) place.textContent = report.metric;
  byId("table-note").textContent = "Click a heading to sort, or a row to show only its curves. " +
    (report.runs.some((run) => run.is_best) ? "★: the best final value among runs with the same held-out rows. " : "") +
    (report.params.length ? "Only parameters that differ are shown." : "");
  byId("made").textContent = `Written by axosweep on ${new Date(report.made_at * 1000).toLocaleString()} from ${report.reproduce.store}. ` +
    "Charts: Apache ECharts (Apache License 2.0), in this file.";
}

// While the sweep runs. The charts stay as they are while only this changes.
function drawHeadway() {
  const headway = report.headway;
  byId("headway").hidden = !headway;
  if (!headway) return;
  byId("headway-bar").value = headway.part;
  byId("headway-bar").textContent = `${Math.floor(headway.part * 100)} %`;
  byId("headway-text").textContent = `${headway.counted}; ${headway.timed}`;
}

function drawReproduce() {
  const { command, commits, locks, datasets, inputs, best, store } = report.reproduce;
  const list = el("dl", {});
  const add = (term, ...parts) => list.append(el("dt", {}, term), el("dd", {}, ...parts));
  if (best) add("best run", `${best.key}: ${best.overrides}`);
  add("axosweep's commit", commits.join(", ") || "not recorded");
  add("trainer lock", locks.join(", ") || "not recorded");
  for (const data of datasets) {
    const rows = [data.own ? `read by each run itself (${data.own})` : data.rows !== undefined ? `${data.rows} rows` : "not prepared", data.eval_rows !== undefined ? `${data.eval_rows} held out` : "", data.eval_fingerprint ? `held-out rows ${data.eval_fingerprint.slice(0, 8)}` : ""];
    add("data key", `${data.key}: ${rows.filter(Boolean).join(", ")}`);
  }
  for (const input of inputs) add("input", `${input.text}: ${input.identity}`);
  add("first launched", new Date(report.asked_at * 1000).toLocaleString());
  add("store", store);
  const config = best && best.config ? [el("details", {}, el("summary", {}, "The best run's Axolotl config"), el("pre", {}, best.config))] : [];
  byId("reproduce").replaceChildren(el("pre", { id: "command" }, command || "not recorded"), list, ...config);
}

function drawNavigation() {
  const sections = [...document.querySelectorAll("main > section")].filter((section) => !section.hidden);
  byId("sections").replaceChildren(...sections.map((section) => el("a", { href: `#${section.id}` }, section.dataset.title)));
}

function drawLinked() {
  const scale = metricScale(report.runs);
  drawTable(report, drawLinked);
  drawCurves(report, scale);
}

function brushed(keys) {
  view.brushed = keys;
  drawLinked();
}

function drawAll() {
  const scale = metricScale(report.runs);
  drawHead();
  drawScale(document.querySelector("#parallel .scale"), scale, report.metric);
  drawParallel(report, scale, brushed);
  drawLinked();
  drawAnswers(report);
  drawEffects(report);
  drawPair(report);
  drawPrice(report);
  drawTime(report);
  drawFailures(report);
  drawReproduce();
  drawNavigation();
}

byId("find").addEventListener("input", (event) => { view.words = event.target.value; drawLinked(); });
byId("clear").addEventListener("click", () => {
  Object.assign(view, { words: "", brushed: null, picked: null });
  byId("find").value = "";
  drawAll(); // a new chart has no brush
});
for (const id of ["curve-x", "curve-train", "curve-eval", "curve-logx", "curve-logy", "curve-smooth"]) {
  byId(id).addEventListener("input", () => drawCurves(report, metricScale(report.runs)));
}

// The width of the page itself: on a phone, content that is too wide may widen the window.
const page = document.querySelector("main");
let resizing = 0;
let drawnWidth = page.clientWidth;
new ResizeObserver(() => {
  clearTimeout(resizing);
  resizing = setTimeout(() => { if (page.clientWidth !== drawnWidth && !printing) redraw(); }, 120);
}).observe(page);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());

// For printing: light colours, the width of the paper, all details open.
function paper(on) {
  printing = on;
  document.documentElement.classList.toggle("paper", on);
  document.body.style.width = on ? "700px" : "";
  for (const place of document.querySelectorAll("details")) {
    if (on && !place.open) { place.dataset.closed = ""; place.open = true; }
    if (!on && "closed" in place.dataset) { delete place.dataset.closed; place.open = false; }
  }
  redraw();
}
window.addEventListener("beforeprint", () => paper(true));
window.addEventListener("afterprint", () => paper(false));

// A redraw loses the brush of the parallel axes, so it is restored, with the same runs selected.
function redraw() {
  drawnWidth = page.clientWidth;
  const chart = charts.get(byId("parallel-chart"));
  const intervals = chart && view.brushed ? openIntervals(chart) : [];
  drawAll();
  intervals.forEach((open, index) => {
    if (!open.length) return;
    const axis = chart.getModel().getComponent("parallelAxis", index);
    if (axis) chart.dispatchAction({ type: "axisAreaSelect", parallelAxisId: axis.id, intervals: open });
  });
}

async function refresh() {
  try {
    const answer = await fetch("values.json", { cache: "no-store" });
    const newer = await answer.json();
    const lasting = ({ made_at, headway, ...rest }) => JSON.stringify(rest);
    const changed = lasting(newer) !== lasting(report);
    report = newer;
    if (changed) redraw(); else drawHeadway();
    if (newer.going_on) setTimeout(refresh, REFRESH_MS);
  } catch {
    byId("live").textContent = "no longer served";
  }
}

drawAll();
document.documentElement.dataset.drawn = "yes";
if (location.protocol.startsWith("http") && report.going_on) setTimeout(refresh, REFRESH_MS);
