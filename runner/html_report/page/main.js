// Puts the values into the page, redraws it when they change, and requests newer values if the page is served.
"use strict";

let report = JSON.parse(byId("values").textContent);
const REFRESH_MS = 3000;
const PAUSE_MS = 60; // between a change of the filter or the brush and the curves, which take longest to draw

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
  const stars = report.runs.some((run) => run.is_best)
    ? report.verdicts.length
      ? "★: this setting is not shown to be worse than another one with the same held-out rows. "
      : "★: the best setting among runs with the same held-out rows. "
    : "";
  byId("table-note").textContent =
    `A click on a heading sorts; a click on a row shows only its curves. ${stars}` +
    (report.params.length ? "Only parameters that differ are shown. " : "") +
    "Keys: / filter, Escape show all, ↑ ↓ rows, Enter pick.";
  byId("made").textContent =
    `Written by axosweep on ${new Date(report.made_at * 1000).toLocaleString()} from ${report.reproduce.store}. ` +
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

function drawChoices() {
  const options = (id, first, chosen) =>
    fillControl(
      byId(id),
      [...first, ...report.params.map((name) => [name, name])].map(([value, text]) => {
        const option = el("option", { value }, text);
        option.selected = value === chosen;
        return option;
      }),
    );
  options(
    "group",
    [["", "every run"], ...(report.seeds.length ? [[SETTING, "settings, over seeds"]] : [])],
    view.group,
  );
  options(
    "colour",
    [
      ["", "automatic"],
      [report.metric, report.metric],
    ],
    view.colour,
  );
  byId("choices").hidden = !report.params.length;
}

function drawNavigation() {
  const sections = [...document.querySelectorAll("main > section")].filter((section) => !section.hidden);
  byId("sections").replaceChildren(
    ...sections.map((section) => el("a", { href: `#${section.id}` }, section.dataset.title)),
  );
}

// What a filter, a brush, or a picked row changes.
function drawLinked() {
  drawTable();
  clearTimeout(drawLinked.timer);
  drawLinked.timer = setTimeout(() => {
    drawCurves();
    drawPrice();
  }, PAUSE_MS);
}

function brushed(keys) {
  view.brushed = keys;
  keepInPlace(byId("parallel-chart"), drawLinked);
}

function drawAll() {
  filter = parsedFilter(report, view.words);
  drawHead();
  drawVerdict();
  drawCard();
  drawChoices();
  drawParallel(brushed);
  drawTable();
  drawColumnMenu();
  drawSearch();
  drawCurves();
  drawAnswers(report);
  drawWhere();
  drawEffects();
  drawPair();
  drawPrice();
  drawTime();
  drawFailures();
  drawReproduce();
  drawNavigation();
}

function showAll() {
  Object.assign(view, { words: "", brushed: null, picked: null });
  byId("find").value = "";
  drawAll(); // a new chart has no brush
}

byId("find").addEventListener("input", (event) => {
  view.words = event.target.value;
  filter = parsedFilter(report, view.words);
  drawLinked();
  clearTimeout(drawParallel.timer);
  drawParallel.timer = setTimeout(() => keepBrush(() => drawParallel(brushed)), PAUSE_MS);
});
byId("clear").addEventListener("click", showAll);
for (const id of CURVE_TOOLS) byId(id).addEventListener("input", () => drawCurves());
for (const id of ["group", "colour"]) {
  byId(id).addEventListener("change", () => {
    Object.assign(view, { [id]: byId(id).value, picked: null });
    keepInPlace(byId(id), redraw);
  });
}
byId("table").addEventListener("click", onTableClick);
document.addEventListener("keydown", onKey);
byId("copy-csv").addEventListener("click", () => copyText(asCsv(tableTexts()), "CSV", "csv"));
byId("copy-markdown").addEventListener("click", () =>
  copyText(
    asMarkdown(
      tableTexts(),
      visibleColumns().map((column) => column.text),
    ),
    "Markdown",
    "md",
  ),
);

// The width of the page itself: on a phone, content that is too wide may widen the window.
const page = document.querySelector("main");
let resizing = 0;
let drawnWidth = page.clientWidth;
new ResizeObserver(() => {
  clearTimeout(resizing);
  resizing = setTimeout(() => {
    if (page.clientWidth !== drawnWidth && !printing) redraw();
  }, 120);
}).observe(page);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());

// For printing: light colours, the width of the paper, all details open.
function paper(on) {
  printing = on;
  document.documentElement.classList.toggle("paper", on);
  document.body.style.width = on ? "700px" : "";
  for (const place of document.querySelectorAll("main details:not(.menu)")) {
    if (on && !place.open) {
      place.dataset.closed = "";
      place.open = true;
    }
    if (!on && "closed" in place.dataset) {
      delete place.dataset.closed;
      place.open = false;
    }
  }
  redraw();
}
window.addEventListener("beforeprint", () => paper(true));
window.addEventListener("afterprint", () => paper(false));

function redraw() {
  drawnWidth = page.clientWidth;
  keepBrush(drawAll);
}

async function refresh() {
  try {
    const answer = await fetch("values.json", { cache: "no-store" });
    const newer = await answer.json();
    const lasting = ({ made_at, headway, ...rest }) => JSON.stringify(rest);
    const changed = lasting(newer) !== lasting(report);
    report = newer;
    if (changed) redraw();
    else drawHeadway();
    if (newer.going_on) setTimeout(refresh, REFRESH_MS);
  } catch {
    byId("live").textContent = "no longer served";
  }
}

drawAll();
document.documentElement.dataset.drawn = "yes";
if (location.protocol.startsWith("http") && report.going_on) setTimeout(refresh, REFRESH_MS);
