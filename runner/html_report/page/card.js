// The card at the top: the best setting, its spread, its gain over the base model, its cost, two sample answers.
"use strict";

function drawCard() {
  const { card } = report;
  byId("card").hidden = !card;
  if (!card) return;
  const rows = card.rows ? ` of those with the held-out rows ${card.rows}` : "";
  const of = card.settings > 1 ? ` of ${card.settings}${card.is_shared ? " settings" : ""}` : "";
  const name =
    card.params.map(([key, value]) => `${key}=${value}`).join(" ") ||
    (card.repeated ? "all seeds of one setting" : "the only setting");
  const facts = [
    [report.metric, loss(card.mean), spreadWords(card)],
    ...(card.before === null
      ? []
      : [
          [
            `gain over ${card.before_is}`,
            loss(card.before - card.mean),
            `${gainPercent(card)} of its ${loss(card.before)}`,
          ],
        ]),
    costFact(card),
  ];
  byId("card").replaceChildren(
    el("h2", {}, `${card.is_shared ? "Lowest loss" : "Best setting"}${of}${rows}`),
    el("p", { class: "setting" }, name),
    el(
      "div",
      { class: "numbers" },
      ...facts.map(([term, value, words]) =>
        el(
          "div",
          {},
          el("span", { class: "term" }, term),
          el("strong", {}, value),
          el("span", { class: "term" }, words),
        ),
      ),
    ),
    ...(card.samples ? sampleAnswers(card.samples) : []),
  );
}

function spreadWords({ n, runs, sd, low, high, repeated }) {
  const of = n < runs.length ? `${n} of ${runs.length}` : String(n);
  if (sd !== null) return `± ${loss(sd)} over ${of} seeds, ${loss(low)} to ${loss(high)}`;
  return repeated ? `from ${of} ${n === 1 ? "seed" : "seeds"}, so no spread` : "run once, so its spread is unknown";
}

const gainPercent = ({ before, mean }) => (before ? percent((before - mean) / before) : "");

function costFact({ dollars, seconds, cost, runs }) {
  const many = runs.length === 1 ? "its run" : `its ${runs.length} runs`;
  if (dollars === null) return [`time of ${many}`, duration(seconds), "nothing was rented, or there is no price"];
  return [`cost of ${many}`, money(dollars), cost === null ? "" : `of ${money(cost)} for the sweep`];
}

function sampleAnswers({ how, prompts, columns, of }) {
  const head = [el("th", { scope: "col", class: "text said" }, "prompt"), ...columns.map(answerHeading)];
  const rows = prompts.map((prompt, at) =>
    el(
      "tr",
      {},
      el("th", { scope: "row", class: "text said" }, prompt),
      ...columns.map((column) => answerCell(column.said[at], column.is_right[at])),
    ),
  );
  const table = el("table", { class: "answers" }, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows));
  const chosen = columns.length > 1 ? "the first ones with different answers, if there are any" : "the first";
  return [
    el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Sample answers" }, table),
    el("p", { class: "note" }, `${prompts.length} of ${of} prompts (${chosen}), ${how}.`),
  ];
}
