// A search with rungs: its runs over two of its axes, by how they have come through, and what that has saved.
"use strict";

const MARKS = {
  finished: { symbol: "circle", size: 13 },
  promoted: { symbol: "diamond", size: 15 },
  resumed: { symbol: "roundRect", size: 13 },
  audit: { symbol: "triangle", size: 13 },
  "not over": { symbol: "emptyCircle", size: 9 },
  failed: { symbol: "path://M0,0L10,10M10,0L0,10", size: 9 },
};
const OUTCOME_WORDS = {
  finished: "trained to the end",
  promoted: "stopped, then promoted to the end",
  resumed: "stopped, then resumed to the end",
  audit: "trained to the end for the audit",
  "not over": "not over",
  failed: "failed",
};

// Those that were best come first; stopped runs have a square each, the smaller the earlier.
function outcomesOf(search) {
  const present = new Set(Object.values(search.outcomes));
  const stopped = [...present].filter((one) => !(one in MARKS)).sort(compareValues).reverse();
  const all = ["finished", "promoted", "resumed", "audit", ...stopped, "not over", "failed"];
  const names = all.filter((one) => present.has(one));
  const paint = { finished: 2, promoted: 0, resumed: 0, audit: 3, "not over": 7, failed: 1 };
  return names.map((name) => ({
    name,
    words: OUTCOME_WORDS[name] || name,
    ...(MARKS[name] || { symbol: "rect", size: 8 + 2 * Math.min(3, stopped.length - stopped.indexOf(name)) }),
    colour: name in paint ? palette()[paint[name]] : palette()[[4, 5, 6][stopped.indexOf(name) % 3]],
  }));
}

function drawSearch() {
  const { search } = report;
  byId("search").hidden = !search;
  if (!search) return;
  byId("search-lead").replaceChildren(...search.sentences.map((line) => el("p", { class: "lead" }, line)));
  const runs = report.runs.filter((run) => run.key in search.outcomes);
  const outcomes = outcomesOf(search);
  const members = (outcome) => runs.filter((run) => search.outcomes[run.key] === outcome.name);
  const [x, y] = searchAxes(runs);
  const unplaced = runs.filter((run) => x.at(run) === null || y.at(run) === null).length;
  byId("search-note").textContent =
    `${search.rule}A stopped run has no final ${report.metric}, but at a rung, all runs can be compared.` +
    (unplaced ? ` Not drawn, without a loss at rung 1: ${counted(unplaced, "run")}.` : "");
  drawLegend(
    byId("search-legend"),
    outcomes.map((one) => ({ text: `${one.words} (${members(one).length})`, swatch: one.colour })),
  );
  const style = styleOf();
  draw(
    "search-chart",
    {
      grid: { left: wide() ? 90 : 64, right: 22, top: 26, bottom: 46 },
      xAxis: { ...searchAxis(x, style), nameLocation: "middle", nameGap: 28 },
      yAxis: {
        ...searchAxis(y, style),
        nameLocation: "end",
        nameGap: 8,
        nameTextStyle: { align: "left", color: colour("soft") },
      },
      tooltip: { formatter: (item) => searchTip(item.data.run, outcomes) },
      series: outcomes.map((one) => ({
        type: "scatter",
        name: one.words,
        symbol: one.symbol,
        symbolSize: one.size,
        itemStyle: { color: one.colour, borderColor: one.name === "failed" ? one.colour : undefined },
        data: members(one)
          .filter((run) => x.at(run) !== null && y.at(run) !== null)
          .map((run, at) => ({ run, value: [x.at(run), y.at(run)] })),
      })),
    },
    {
      title: `Runs of the search over ${x.name} and ${y.name}`,
      words: "The table below counts them by how they ended.",
      legend: outcomes.map((one) => ({ text: one.words, swatch: one.colour })),
    },
  );
  fillTable(
    "search-table",
    ["outcome", "runs", ...search.rungs.map((one) => `best at rung ${one.rung} (step ${one.step})`), report.metric],
    outcomes.map((one) => [
      one.words,
      String(members(one).length),
      ...search.rungs.map(({ rung }) => loss(lowest(members(one).map((run) => atRung(run, rung))))),
      loss(lowest(members(one).map((run) => run.ranked))),
    ]),
  );
}

const atRung = (run, rung) => run.rungs.find((one) => one.rung === rung)?.loss ?? null;
const lowest = (values) => values.filter((value) => value !== null).sort((a, b) => a - b)[0];

// The first two parameters that differ; with one alone, the loss at the first rung against it.
function searchAxes(runs) {
  const names = report.params.filter((name) => !report.seeds.includes(name));
  const loss1 = {
    name: "loss at rung 1",
    values: runs.map((run) => atRung(run, 1)).filter((value) => value !== null),
    at: (run) => atRung(run, 1),
  };
  const axes = names.slice(0, 2).map((name) => parameterPlace(name, runs));
  return [...axes, loss1, loss1].slice(0, 2);
}

function parameterPlace(name, runs) {
  const values = [...new Set(runs.map((run) => run.params[name]))].sort(compareValues);
  if (values.every((value) => typeof value === "number") && values.length > 5)
    return { name, values, at: (run) => run.params[name] };
  return { name, names: values.map(inWords), at: (run) => values.indexOf(run.params[name]) };
}

function searchAxis({ name, values, names }, style) {
  const label = { ...style.axis.axisLabel, ...(names ? { width: 90, overflow: "truncate" } : { formatter: number }) };
  if (names) return { ...style.axis, type: "category", name, data: names, axisLabel: label };
  return { ...style.axis, type: isLog(values) ? "log" : "value", name, scale: true, axisLabel: label };
}

function searchTip(run, outcomes) {
  const outcome = outcomes.find((one) => one.name === report.search.outcomes[run.key]);
  const rungs = run.rungs.map((one) => `rung ${one.rung}: ${one.loss === null ? "" : `${loss(one.loss)}, `}${one.why}`);
  const end = run.ranked === null ? [] : [`${report.metric} ${loss(run.ranked)}`];
  return tip([run.name, outcome.words, ...rungs, ...end]);
}
