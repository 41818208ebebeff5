// The table of runs or of groups: sorted by a click on a heading, walked through by the arrow keys.
"use strict";

const columnsNow = () => (view.group ? groupColumns(report) : runColumns(report));
const visibleColumns = () => columnsNow().filter((column) => !view.hidden.has(column.name));
const textOf = (column, row) => (column.show ? column.show(row) : String(column.read(row) ?? ""));

function compareValues(one, other) {
  const empty = [isEmpty(one), isEmpty(other)];
  if (empty[0] || empty[1]) return empty[0] === empty[1] ? 0 : empty[0] ? Infinity : -Infinity;
  if (typeof one === "number" && typeof other === "number") return one - other;
  return String(one).localeCompare(String(other), undefined, { numeric: true });
}

// Missing values come last in either order.
function sorted(rows, column) {
  if (!column) return rows;
  return [...rows].sort((a, b) => {
    const order = compareValues(column.read(a), column.read(b));
    return Number.isFinite(order) && view.down ? -order : order;
  });
}

function rowsNow() {
  const shown = report.runs.filter(isShown);
  return sorted(
    view.group ? groupsOf(report, shown) : shown,
    columnsNow().find((column) => column.name === view.sort),
  );
}

// The shown rows and columns as texts, the headings first.
const tableTexts = () => [
  visibleColumns().map((column) => column.heading || column.name),
  ...rowsNow().map((row) => visibleColumns().map((column) => textOf(column, row))),
];

const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

function drawTable() {
  const [columns, rows, table] = [visibleColumns(), rowsNow(), byId("table")];
  const focused = document.activeElement?.closest("#table") ? document.activeElement.dataset : null;
  const [all, shown] = [report.runs.length, report.runs.filter(isShown).length];
  holdHeight(table.parentElement, shown < all);
  table.tHead.replaceChildren(el("tr", {}, ...columns.map(tableHeading)));
  table.tBodies[0].replaceChildren(...rows.map((row, at) => tableRow(row, columns, at)));
  byId("shown").textContent =
    (shown === all ? "" : `${shown} of `) +
    counted(all, "run") +
    (view.group ? `, ${counted(rows.length, "group")}` : "");
  byId("problem").textContent = filter.problem;
  byId("find").setAttribute("aria-invalid", String(Boolean(filter.problem)));
  byId("clear").disabled = !view.brushed && !view.words && !view.picked;
  if (focused) refocus(focused);
}

// As high as with all runs, so that the charts below stay where they are while a filter or a brush changes.
function holdHeight(place, on) {
  if (!on || place.dataset.group !== view.group) place.style.height = "";
  else if (!place.style.height) place.style.height = `${place.offsetHeight}px`;
  place.dataset.group = view.group;
}

function tableHeading(column) {
  const button = el("button", { type: "button", "data-sort": column.name }, column.heading || column.name);
  const heading = el("th", { scope: "col", class: column.text ? "text" : "" }, button);
  if (view.sort === column.name) heading.setAttribute("aria-sort", view.down ? "descending" : "ascending");
  return heading;
}

function tableRow(row, columns, at) {
  const picked = view.picked === row.key;
  const cells = columns.map((column, index) => tableCell(row, column, textOf(column, row), index === 0));
  const kind = `${row.is_best ? "best" : ""} ${picked ? "picked" : ""}`.trim();
  const made = el("tr", { "data-key": row.key, class: kind }, ...cells);
  const button = made.querySelector("button");
  button.tabIndex = picked || (at === 0 && !view.picked) ? 0 : -1; // one stop of the Tab key; arrow keys lead on
  return made;
}

function tableCell(row, column, text, first) {
  const kind = `${column.text ? "text" : ""} ${column.clip ? "clip" : ""}`.trim();
  if (first) {
    const button = el(
      "button",
      { type: "button", "data-pick": row.key, "aria-pressed": String(view.picked === row.key) },
      `${row.is_best ? "★ " : ""}${text || row.key}`,
    );
    return el("th", { scope: "row", class: kind }, button);
  }
  if (column.name === "status")
    return el("td", { class: "text", title: row.message }, el("span", { class: `status ${statusClass(row)}` }, text));
  return el("td", { class: kind, ...(column.clip ? { title: text } : {}) }, text);
}

function refocus({ sort, pick }) {
  const same = [...byId("table").querySelectorAll("button")].find((button) =>
    sort ? button.dataset.sort === sort : button.dataset.pick === pick,
  );
  if (same) same.focus({ preventScroll: true });
}

function onTableClick(event) {
  const sort = event.target.closest("[data-sort]")?.dataset.sort;
  const row = event.target.closest("tbody tr");
  if (sort) {
    view.down = view.sort === sort && !view.down;
    view.sort = sort;
    drawTable();
  } else if (row) {
    view.picked = view.picked === row.dataset.key ? null : row.dataset.key;
    drawLinked();
  }
}

function drawColumnMenu() {
  fillControl(
    byId("columns"),
    columnsNow()
      .slice(1)
      .map((column) => {
        const box = el("input", { type: "checkbox" });
        box.checked = !view.hidden.has(column.name);
        box.addEventListener("change", () => {
          view.hidden[box.checked ? "delete" : "add"](column.name);
          drawTable();
        });
        return el("label", {}, box, column.heading || column.name);
      }),
  );
}
