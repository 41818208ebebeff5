// The table of runs: a click on a heading sorts it; search words and the brush filter it.
"use strict";

const view = { sort: null, down: false, words: "", brushed: null, picked: null };

function columns(report) {
  const some = (read) => report.runs.some((run) => read(run) !== null && read(run) !== undefined && read(run) !== "");
  const measured = [...new Set(report.runs.flatMap((run) => Object.keys(run.measured)))];
  const known = [
    { name: "run", text: true, read: (run) => run.key },
    { name: "status", text: true, read: statusText },
    ...report.params.map((name) => ({
      name, text: report.runs.some((run) => typeof run.params[name] === "string"), clip: true,
      read: (run) => run.params[name], show: (run) => number(run.params[name]),
    })),
    { name: report.metric, read: (run) => (isBroken(run) ? null : run.final), show: (run) => (isBroken(run) ? "NaN" : loss(run.final)) },
    ...measured.map((name) => ({ name, read: (run) => run.measured[name], show: (run) => loss(run.measured[name]) })),
    { name: "best", read: (run) => run.best, show: (run) => loss(run.best) },
    { name: "first", read: (run) => run.first, show: (run) => loss(run.first) },
    { name: "steps", read: (run) => run.step, show: steps },
    { name: "seconds", read: (run) => run.seconds, show: (run) => (run.seconds === null ? "" : run.seconds.toFixed(1)) },
    { name: "tokens/s", read: (run) => run.tokens_per_second, show: (run) => number(run.tokens_per_second), optional: true },
    { name: "train s", read: (run) => run.train_seconds, show: (run) => number(run.train_seconds), optional: true },
    { name: "paid s", read: (run) => (run.gpu ? run.paid : null), show: (run) => (run.paid === null ? "" : run.paid.toFixed(0)), optional: true },
    { name: "dollars", read: (run) => run.dollars, show: (run) => money(run.dollars), optional: true },
    { name: "memory GiB", read: (run) => run.peak_memory, show: (run) => number(run.peak_memory), optional: true },
    { name: "gpu", text: true, read: (run) => run.gpu, optional: true },
    { name: "tries", read: (run) => run.attempts, optional: report.runs.every((run) => run.attempts < 2) },
    { name: "flags", text: true, read: (run) => (run.flags || []).join(", "), optional: true },
    { name: "held-out rows", text: true, read: (run) => run.rows, optional: new Set(report.runs.map((run) => run.rows)).size < 2 },
  ];
  return known.filter((column) => !column.optional || (column.name !== "tries" && column.name !== "held-out rows" && some(column.read)));
}

function steps(run) {
  if (run.step === null) return "";
  return run.max_steps && run.step < run.max_steps ? `${run.step}/${run.max_steps}` : String(run.step);
}

function compareValues(one, other) {
  const empty = [one, other].map((value) => value === null || value === undefined || value === "");
  if (empty[0] || empty[1]) return empty[0] === empty[1] ? 0 : empty[0] ? Infinity : -Infinity;
  if (typeof one === "number" && typeof other === "number") return one - other;
  return String(one).localeCompare(String(other), undefined, { numeric: true });
}

// Missing values come last in either order.
function sorted(runs, column) {
  if (!column) return runs;
  return [...runs].sort((a, b) => {
    const order = compareValues(column.read(a), column.read(b));
    return Number.isFinite(order) && view.down ? -order : order;
  });
}

function isShown(run) {
  if (view.brushed && !view.brushed.has(run.key)) return false;
  const text = `${run.key} ${run.name} ${statusText(run)} ${(run.flags || []).join(" ")} ${run.message}`.toLowerCase();
  return view.words.toLowerCase().split(/[\s,]+/).every((word) => text.includes(word));
}

function drawTable(report, changed) {
  const all = columns(report);
  const head = all.map((column) => {
    const button = el("button", { type: "button" }, column.name);
    button.addEventListener("click", () => {
      view.down = view.sort === column.name && !view.down;
      view.sort = column.name;
      drawTable(report, changed);
    });
    const heading = el("th", { scope: "col", class: column.text ? "text" : "" }, button);
    if (view.sort === column.name) heading.setAttribute("aria-sort", view.down ? "descending" : "ascending");
    return heading;
  });
  const table = byId("table");
  table.tHead.replaceChildren(el("tr", {}, ...head));
  const shown = sorted(report.runs.filter(isShown), all.find((column) => column.name === view.sort));
  table.tBodies[0].replaceChildren(...shown.map((run) => tableRow(run, all, changed)));
  byId("shown").textContent = shown.length === report.runs.length ? `${shown.length} runs` : `${shown.length} of ${report.runs.length} runs`;
  byId("clear").hidden = !view.brushed && !view.words && !view.picked;
}

function tableRow(run, all, changed) {
  const cells = all.map((column) => {
    const text = column.show ? column.show(run) : String(column.read(run) ?? "");
    const kind = `${column.text ? "text" : ""} ${column.clip ? "clip" : ""}`.trim();
    if (column.name === "status") return el("td", { class: "text", title: run.message }, el("span", { class: `status ${statusClass(run)}` }, text));
    if (column.name === "run" && run.is_best) return el("td", { class: kind }, `★ ${text}`);
    return el("td", { class: kind, ...(column.clip ? { title: text } : {}) }, text);
  });
  const row = el("tr", { "data-key": run.key, class: `${run.is_best ? "best" : ""} ${view.picked === run.key ? "picked" : ""}`.trim() }, ...cells);
  row.addEventListener("click", () => {
    view.picked = view.picked === run.key ? null : run.key;
    changed();
  });
  return row;
}

function fillTable(id, headings, rows) {
  const table = byId(id);
  table.tHead.replaceChildren(el("tr", {}, ...headings.map((text, at) => el("th", { scope: "col", class: at ? "" : "text" }, text))));
  table.tBodies[0].replaceChildren(...rows.map((cells) => el("tr", {}, ...cells.map((text, at) => el("td", { class: at ? "" : "text" }, text)))));
}
