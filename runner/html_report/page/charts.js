// The charts of parameters, interaction, price and time, and the list of failures.
"use strict";

function drawEffects(report) {
  const { effects, keys, rows } = report.analysis;
  byId("effects").hidden = !effects.length || keys.length < 2;
  if (byId("effects").hidden) return;
  const from = rows ? ` with the held-out rows ${rows}, the largest such group` : "";
  byId("effect-note").textContent = `From ${keys.length} finished runs${from}; the strongest effect comes first. Dots are runs; the line connects the medians. ` +
    "Spearman's ρ is a rank correlation: it shows only effects that rise or fall throughout, not a best value in the middle. " +
    "The share is the part of the variance of the runs' ranks that lies between the values, minus what chance would cause; it needs several runs per value. " +
    "Neither shows a cause: parameters that vary together share their effect.";
  const finals = new Map(report.runs.map((run) => [run.key, run]));
  const cards = effects.map((effect) => {
    const place = el("div", { class: "chart" });
    const rho = effect.spearman === null ? (effect.numeric ? "" : "no order, so no ρ; ") : `ρ = ${effect.spearman.toFixed(2)}; `;
    const card = el("div", {}, el("h3", {}, effect.name), place, el("p", {}, `${rho}${effect.share === null ? "one run per value, so no share" : `${Math.round(effect.share * 100)}% of the ranks' variance`}; ${effect.runs} runs`));
    return { card, place, effect };
  });
  forget("effect-charts");
  byId("effect-charts").replaceChildren(...cards.map((one) => one.card));
  const style = styleOf();
  for (const { place, effect } of cards) {
    const dots = keys.map((key, index) => ({ key, value: [effect.where[index] + spread(index, keys.length), finals.get(key).final] }));
    const slanted = Math.max(...effect.groups.map((group) => group.value.length)) * 7 > (place.clientWidth - 58) / effect.groups.length;
    draw(place, {
      grid: { left: slanted ? 64 : 48, right: 10, top: 12, bottom: slanted ? 62 : 24 },
      xAxis: [
        { ...style.axis, type: "category", data: effect.groups.map((group) => group.value), axisLabel: { ...style.axis.axisLabel, interval: 0, hideOverlap: false, rotate: slanted ? 38 : 0, fontSize: 11, width: slanted ? 78 : undefined, overflow: "truncate" } },
        { type: "value", min: -0.5, max: effect.groups.length - 0.5, show: false },
      ],
      yAxis: { ...style.axis, type: logWanted(effect.groups) ? "log" : "value", scale: true, axisLine: { show: false }, axisLabel: { ...style.axis.axisLabel, formatter: number } },
      tooltip: { formatter: (item) => (item.data.key ? tip([finals.get(item.data.key).name, loss(item.data.value[1])]) : tip([`${effect.groups[item.dataIndex].value}: median ${loss(item.value)}`, `${effect.groups[item.dataIndex].runs} runs, ${loss(effect.groups[item.dataIndex].low)} to ${loss(effect.groups[item.dataIndex].high)}`])) },
      series: [
        { type: "scatter", xAxisIndex: 1, data: dots, symbolSize: 6, itemStyle: { color: colour("accent"), opacity: keys.length > 60 ? 0.35 : 0.6 } },
        { type: "line", data: effect.groups.map((group) => group.median), symbol: "rect", symbolSize: [14, 3], lineStyle: { color: colour("text"), width: effect.numeric ? 1.5 : 0 }, itemStyle: { color: colour("text") } },
      ],
    });
  }
}

const spread = (index, many) => (many > 12 ? ((index * 0.618) % 1 - 0.5) * 0.4 : 0);
const logWanted = (groups) => Math.min(...groups.map((group) => group.low)) > 0 && Math.max(...groups.map((group) => group.high)) / Math.min(...groups.map((group) => group.low)) > 20;

function forget(id) {
  for (const [place, chart] of charts) {
    if (byId(id).contains(place)) { chart.dispose(); charts.delete(place); }
  }
}

function drawPair(report) {
  const pair = report.analysis.interaction;
  byId("pair").hidden = !pair;
  if (!pair) return;
  byId("pair-note").textContent = `Median final ${report.metric} for each pair of values of ${pair.x} and ${pair.y}, the two parameters with the strongest effects. Empty: no finished run.`;
  const medians = pair.cells.map((cell) => cell.median).sort((a, b) => a - b);
  const high = medians[Math.ceil(medians.length * 0.9) - 1];
  const part = (value) => (high > medians[0] ? (value - medians[0]) / (high - medians[0]) : 0);
  const style = styleOf();
  const most = Math.max(...pair.cells.map((cell) => cell.runs));
  const fits = byId("pair-chart").clientWidth / pair.xs.length > 62;
  byId("pair-chart").style.height = `${Math.min(34, 6 + pair.ys.length * 3)}rem`;
  draw("pair-chart", {
    grid: { left: wide() ? 110 : 70, right: 14, top: 26, bottom: 46 },
    xAxis: { ...style.axis, type: "category", data: pair.xs, name: pair.x, nameLocation: "middle", nameGap: 28, splitLine: { show: false }, axisLabel: { ...style.axis.axisLabel, width: 110, overflow: "truncate" } },
    yAxis: { ...style.axis, type: "category", data: pair.ys, name: pair.y, nameLocation: "end", nameGap: 8, nameTextStyle: { align: "left", color: colour("soft") }, splitLine: { show: false }, axisLabel: { ...style.axis.axisLabel, width: wide() ? 100 : 60, overflow: "truncate" } },
    tooltip: { formatter: (item) => tip([`${pair.x} ${pair.xs[item.value[0]]}, ${pair.y} ${pair.ys[item.value[1]]}`, `median ${loss(item.value[2])} of ${pair.cells[item.dataIndex].runs} runs`]) },
    series: {
      type: "heatmap",
      label: { show: fits, formatter: (item) => (most > 1 && byId("pair-chart").clientWidth / pair.xs.length > 100 ? `${loss(item.value[2])} (${pair.cells[item.dataIndex].runs})` : loss(item.value[2])) },
      data: pair.cells.map((cell) => ({
        value: [cell.x, cell.y, cell.median],
        itemStyle: { color: mix(part(cell.median)), borderColor: colour("back"), borderWidth: 2 },
        label: { color: readable(mix(part(cell.median))) },
      })),
    },
    visualMap: { show: false, min: 0, max: 1, dimension: 2, seriesIndex: [] },
  });
}

function readable(rgb) {
  const [red, green, blue] = rgb.match(/\d+/g).map(Number);
  return red * 0.299 + green * 0.587 + blue * 0.114 > 115 ? "#111" : "#fff";
}

function drawPrice(report) {
  const { keys, costs, front, cost } = report.analysis;
  const runs = new Map(report.runs.map((run) => [run.key, run]));
  byId("price").hidden = keys.length < 2 || front.length === 0;
  if (byId("price").hidden) return;
  const show = cost === "dollars" ? money : duration;
  byId("price-word").textContent = cost;
  byId("price-note").textContent = `Each finished run and its cost${cost === "dollars" ? "" : " in seconds of all its attempts, since nothing was rented or there is no price"}. The line connects the runs that no other run beats in both: the Pareto front.`;
  const costOf = new Map(keys.map((key, index) => [key, costs[index]]));
  const dots = keys.filter((key) => costOf.get(key) !== null).map((key) => ({ key, value: [costOf.get(key), runs.get(key).final] }));
  const line = front.map((key) => [costOf.get(key), runs.get(key).final]);
  const style = styleOf();
  const finals = dots.map((dot) => dot.value[1]);
  draw("price-chart", {
    grid: { left: 54, right: 22, top: 16, bottom: 46 },
    xAxis: { ...style.axis, type: "value", scale: true, name: cost, nameLocation: "middle", nameGap: 32, axisLabel: { ...style.axis.axisLabel, margin: 13, formatter: (value) => (cost === "dollars" ? money(value) : number(value)) } },
    yAxis: { ...style.axis, type: Math.min(...finals) > 0 && Math.max(...finals) / Math.min(...finals) > 20 ? "log" : "value", scale: true, axisLabel: { ...style.axis.axisLabel, formatter: number } },
    tooltip: { formatter: (item) => (item.data.key ? tip([runs.get(item.data.key).name, `${show(item.value[0])}, ${report.metric} ${loss(item.value[1])}`]) : "") },
    series: [
      { type: "line", data: line, step: "end", symbol: "none", silent: true, lineStyle: { color: colour("good"), width: 2 } },
      { type: "scatter", data: dots.map((dot) => ({ ...dot, symbolSize: front.includes(dot.key) ? 11 : 7, itemStyle: { color: front.includes(dot.key) ? colour("good") : colour("accent"), opacity: front.includes(dot.key) ? 1 : 0.5 } })) },
    ],
  });
  fillTable("price-table", ["on the front", cost, report.metric], front.map((key) => [runs.get(key).name, show(costOf.get(key)), loss(runs.get(key).final)]));
}

const PART_COLOURS = {
  light: ["#c3c9d0", "#8d99a6", "#b48a4a", "#d3a75c", "#e3c48d", "#3f7fbf", "#0b5cad", "#2a9d8f", "#8e6bb8", "#e0e3e7"],
  dark: ["#4a525b", "#77828e", "#94703a", "#b98f4c", "#d6b57c", "#4d8fd1", "#6cb2ff", "#3fbfae", "#b292dd", "#333940"],
};
const MOST_BARS = 30;

function drawTime(report) {
  const { parts, datasets, paid, training_share: share } = report.receipt;
  byId("time").hidden = !paid;
  if (!paid) return;
  const rented = report.runs.some((run) => run.gpu);
  const word = rented ? "paid time" : "machine time";
  byId("time-lead").textContent = share === null ? "" : `${Math.round(share * 100)}% of the ${word} was training (including its first steps, which compile): ${duration(share * paid)} of ${duration(paid)}.`;
  const present = report.parts.filter((name) => parts[name]);
  const paints = PART_COLOURS[dark() ? "dark" : "light"];
  const paint = (name) => paints[report.parts.indexOf(name)];
  byId("time-legend").replaceChildren(...present.map((name) => { const mark = el("i"); mark.style.background = paint(name); return el("span", {}, mark, name); }));
  const bars = report.runs.filter((run) => run.paid).sort((a, b) => b.paid - a.paid).slice(0, MOST_BARS).reverse();
  byId("time-chart").style.height = `${bars.length * 1.35 + 4}rem`;
  const style = styleOf();
  const left = wide() ? Math.min(360, byId("time-chart").clientWidth * 0.34) : 86;
  draw("time-chart", {
    grid: { left: left + 14, right: 18, top: 6, bottom: 44 },
    xAxis: { ...style.axis, type: "value", name: "seconds", nameLocation: "middle", nameGap: 28, axisLabel: { ...style.axis.axisLabel, formatter: number } },
    yAxis: { ...style.axis, type: "category", data: bars.map((run) => (wide() ? run.name : run.key)), splitLine: { show: false }, axisLabel: { ...style.axis.axisLabel, interval: 0, hideOverlap: false, fontSize: 11, width: left, overflow: "truncate" } },
    tooltip: { formatter: (item) => tip([bars[item.dataIndex].name, `${item.seriesName} ${duration(item.value)}`]) },
    series: present.map((name) => ({ type: "bar", name, stack: "all", barCategoryGap: "25%", itemStyle: { color: paint(name) }, data: bars.map((run) => run.parts[name] || 0) })),
  });
  const ended = report.runs.filter((run) => run.paid).length;
  byId("time-note").textContent = `${ended > MOST_BARS ? `The ${MOST_BARS} longest of ${ended} runs. ` : ""}queue: waiting for a dataset, a free slot or a machine, which is not paid for. ` +
    `${rented ? "boot: the start of a container, before its step. " : ""}other: the start of the trainer, and what killed attempts did not report. All attempts count.`;
  const waiting = new Set(["queue"]);
  fillTable("time-table", ["all runs together", "seconds", "share"], [
    ...present.map((name) => [name, duration(parts[name]), waiting.has(name) ? "not counted" : `${((parts[name] / paid) * 100).toFixed(1)}%`]),
    ["preparing the datasets", duration(datasets), `${((datasets / paid) * 100).toFixed(1)}%`],
    [word, duration(paid), "100%"],
  ]);
}

function drawFailures(report) {
  byId("failures").hidden = !report.failures.length;
  byId("failure-list").replaceChildren(...report.failures.map((failure, index) => {
    const status = el("span", { class: `status ${statusClass(failure)}` }, statusText(failure));
    const summary = el("summary", {}, status, ` ${failure.name}`, failure.message ? `: ${failure.message}` : "");
    const where = failure.log ? [el("p", { class: "note" }, `The last lines of ${failure.log}`)] : [];
    const body = failure.tail ? [...where, el("pre", {}, failure.tail)] : [el("p", { class: "note" }, failure.log ? `Its log: ${failure.log}` : "It has no log.")];
    return el("details", index < 3 ? { open: "" } : {}, summary, ...body);
  }));
  for (const log of document.querySelectorAll("#failure-list pre")) log.scrollTop = log.scrollHeight; // the end says most
}
