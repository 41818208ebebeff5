// Where the best setting is better than the second: by part of the held-out rows, and the rows that moved most.
"use strict";

function drawWhere() {
  const { where } = report;
  byId("where").hidden = !where;
  if (!where) return;
  const [best, second] = where.runs;
  byId("where-title").textContent = `Where ${best.name} differs from ${second.name}`;
  const documents = where.documents === null ? "" : ` of ${counted(where.documents, "document")}`;
  byId("where-note").textContent =
    `The loss by token of ${second.key} minus that of ${best.key}, the best runs of the two best settings, on ` +
    `${counted(where.rows, "held-out row")}${documents}. Above 0, ${best.name} is better. ` +
    "The 95 % intervals of the parts hold for all parts together; the interval of all rows holds by itself. A bold " +
    "one does not contain 0. They hold for these two trained models, and do not include how much another seed would " +
    "change." +
    (where.documents === null
      ? " It is unknown which rows are from the same document, so the intervals may be too narrow."
      : "");
  byId("where-missing").textContent = where.missing;
  byId("where-missing").hidden = !where.missing;
  byId("where-parts").replaceChildren(partsTable(where));
  const sides = [
    [where.worse, `${best.name} is better`],
    [where.better, `${second.name} is better`],
  ];
  byId("where-rows").replaceChildren(
    ...sides.filter(([rows]) => rows.length).map(([rows, what]) => movedRows(rows, what, where.runs)),
  );
}

function partsTable({ runs, parts }) {
  const divided = parts.some((part) => part.by);
  const head = [
    ...(divided ? ["", "rows of"] : [""]),
    "rows",
    ...runs.map((run) => run.name),
    "difference",
    "95 % interval",
  ];
  const texts = divided ? 2 : 1;
  const cell = (text, at) => el("td", { class: at < texts ? "text" : "" }, text);
  const row = (part) => {
    const [name, ...rest] = [
      ...(divided ? [part.by || "all", part.name] : [part.name]),
      String(part.rows),
      ...part.losses.map(loss),
      signed(part.difference),
      part.is_sure ? el("strong", {}, part.interval) : part.interval,
    ];
    return el("tr", {}, el("th", { scope: "row", class: "text" }, name), ...rest.map((text, at) => cell(text, at + 1)));
  };
  return el(
    "table",
    {},
    el("thead", {}, el("tr", {}, ...head.map((text, at) => heading(text, at < texts)))),
    el("tbody", {}, ...parts.map(row)),
  );
}

// An empty cell is no heading.
const heading = (text, isText) =>
  text ? el("th", { scope: "col", class: isText ? "text" : "" }, text) : el("td", {}, "");

function movedRows(rows, what, runs) {
  const answered = rows.some((row) => row.answers);
  const named = rows.some((row) => row.dataset);
  const head = [
    "held-out row",
    ...(named ? ["dataset"] : []),
    ...(answered ? runs.map((run) => `answer of ${run.name}`) : []),
    ...runs.map((run) => `loss of ${run.name}`),
    "moved",
  ];
  const texts = 1 + (named ? 1 : 0) + (answered ? 2 : 0);
  const table = el(
    "table",
    { class: "answers" },
    el("thead", {}, el("tr", {}, ...head.map((text, at) => heading(text, at < texts)))),
    el("tbody", {}, ...rows.map((row) => movedRow(row, { answered, named }))),
  );
  const title = `The ${counted(rows.length, "row")} where ${what} by the most`;
  return el(
    "details",
    {},
    el("summary", {}, title),
    el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": title }, table),
  );
}

function movedRow(row, { answered, named }) {
  const said = row.text.map(([text, trained]) => (trained ? el("strong", {}, text) : text));
  const text = (value) => el("td", { class: "text said" }, value ?? "");
  return el(
    "tr",
    {},
    el("th", { scope: "row", class: "text said" }, ...(said.length ? said : ["(its text is not stored)"])),
    ...(named ? [text(row.dataset)] : []),
    ...(answered ? (row.answers ?? ["", ""]).map(text) : []),
    ...row.losses.map((value) => el("td", {}, loss(value))),
    el("td", {}, signed(row.moved)),
  );
}

const signed = (value) => `${value > 0 ? "+" : ""}${difference(value)}`;
