// The answers of the runs and their base model, side by side.
"use strict";

function drawAnswers(report) {
  byId("answers").hidden = !report.answers.length;
  byId("answer-sets").replaceChildren(...report.answers.flatMap(answerTable));
}

function answerTable(set) {
  const head = [el("th", { scope: "col", class: "text" }, "prompt")];
  if (set.right) head.push(el("th", { scope: "col", class: "text" }, "right"));
  head.push(...set.columns.map(answerHeading));
  const rows = set.prompts.map((prompt, at) =>
    el(
      "tr",
      {},
      el("th", { scope: "row", class: "text said" }, prompt),
      ...(set.right ? [el("td", { class: "text said" }, set.right[at] ?? "")] : []),
      ...set.columns.map((column) => answerCell(column.said[at], column.is_right[at])),
    ),
  );
  const table = el("table", { class: "answers" }, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows));
  const left = [
    [set.prompts_left_out, "prompts"],
    [set.columns_left_out, "runs"],
  ].filter(([count]) => count);
  const rest = left.map(([count, what]) => ` ${count} more ${what}: axosweep infer shows them.`).join("");
  const count = set.prompts.length + set.prompts_left_out;
  return [
    el("p", { class: "note" }, `${count} ${count === 1 ? "prompt" : "prompts"}, ${set.how}.${rest}`),
    el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Answers by run" }, table),
  ];
}

function answerHeading(column) {
  const share = column.judged ? `${column.exact} of ${column.judged} right` : null;
  const texts = [column.run, column.name === column.run ? null : column.name, share].filter(Boolean);
  return el("th", { scope: "col", class: "text said" }, ...lines(texts));
}

function answerCell(text, isRight) {
  if (isRight === null || isRight === undefined) return el("td", { class: "text said" }, text);
  return el("td", { class: `text said ${isRight ? "right" : "wrong"}` }, `${isRight ? "✓" : "✗"} ${text}`);
}
