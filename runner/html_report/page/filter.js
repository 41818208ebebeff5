// What is chosen of the page, and the filter: conditions such as learning_rate<0.003, and words to search for.
"use strict";

const view = {
  words: "",
  brushed: null,
  picked: null,
  group: "",
  colour: "",
  sort: null,
  down: false,
  hidden: new Set(),
};

const CONDITION = /^([^=<>!]+)(!=|<=|>=|=|<|>)(.*)$/;
const BEGINNINGS = new Set(["key", "eval_fingerprint"]); // of long values, the beginning is enough

// The filter's text -> conditions, words, and the first problem in words.
function parsedFilter(report, text) {
  const found = { conditions: [], words: [], problem: "" };
  const fields = fieldsOf(report);
  for (const word of text.match(/(?:[^\s"]|"[^"]*")+/g) || []) {
    const match = CONDITION.exec(word.replaceAll('"', ""));
    if (!match) {
      found.words.push(word.replaceAll('"', "").toLowerCase());
      continue;
    }
    const [, name, sign, value] = match;
    if (!fields.has(name)) found.problem ||= unknownField(name, fields);
    else if (value) found.conditions.push({ read: fields.get(name), name, sign, value });
  }
  return found;
}

function fieldsOf(report) {
  const fields = new Map(runColumns(report).map((column) => [column.name, (run) => [column.read(run)]]));
  fields.set("status", (run) => [run.status, statusText(run), `${run.status} (${run.reason})`]);
  fields.set("reason", (run) => [run.reason]);
  fields.set("why", (run) => [run.rungs.at(-1)?.why.split(", ")[1]]); // after its place
  for (const name of report.params) fields.set(name, (run) => [run.params[name]]);
  return fields;
}

function unknownField(name, fields) {
  const like = [...fields.keys()].filter((field) => field.includes(name) || name.includes(field));
  const known = like.length
    ? `Did you mean ${like.slice(0, 3).join(" or ")}?`
    : `There are: ${[...fields.keys()].join(", ")}.`;
  return `No column is called ${name}. ${known}`;
}

function meets(run, { read, name, sign, value }) {
  const holds = (one, operator) => {
    const [text, wanted] = [String(isEmpty(one) ? null : one).toLowerCase(), value.toLowerCase()];
    if (BEGINNINGS.has(name)) return operator === "=" && text.startsWith(wanted); // it may look like a number
    const [a, b] = [asNumber(one), asNumber(value)];
    if (a !== null && b !== null) return { "=": a === b, "<": a < b, ">": a > b, "<=": a <= b, ">=": a >= b }[operator];
    return operator === "=" && (text === wanted || text.endsWith(`/${wanted}`));
  };
  return sign === "!=" ? !read(run).some((one) => holds(one, "=")) : read(run).some((one) => holds(one, sign));
}

function asNumber(value) {
  const isNumber = typeof value === "number" || (typeof value === "string" && value.trim() !== "");
  return isNumber && Number.isFinite(Number(value)) ? Number(value) : null;
}

let filter = { conditions: [], words: [], problem: "" };

function passesFilter(run) {
  if (!filter.conditions.every((condition) => meets(run, condition))) return false;
  const text = `${run.key} ${run.name} ${statusText(run)} ${(run.flags || []).join(" ")} ${run.message}`.toLowerCase();
  return filter.words.every((word) => text.includes(word));
}

// Whether the filter and the brush leave a run.
const isShown = (run) => !(view.brushed && !view.brushed.has(run.key)) && passesFilter(run);

const isChosen = (run, report) =>
  isShown(run) &&
  (!view.picked || view.picked === run.key || (view.group !== "" && view.picked === groupName(report, run)));
