// How the metric depends on the parameters: importance as bars, a chart for each, the two strongest together.
"use strict";

function drawEffects() {
  const { effects, measured: keys, rows, rung_step } = report.analysis;
  byId("effects").hidden = !effects.length || keys.length < 2;
  if (byId("effects").hidden) return;
  const from = rows ? ` with the held-out rows ${rows}, the largest such group` : "";
  byId("effect-note").textContent =
    (rung_step === null
      ? `From ${keys.length} finished runs${from}`
      : `From the losses of ${keys.length} runs at rung 1 (step ${rung_step})${from}: there, all runs of a search ` +
        "can be compared, while the finished ones are only the best few") +
    "; the strongest effect comes first. " +
    "Dots are runs; the line connects the medians. " +
    "The importance is the part of the variance of the runs' ranks that lies between the values of a " +
    "parameter, minus what chance would cause. It needs several runs per value; with one run per value, ρ² is shown. " +
    "Spearman's ρ is a rank correlation: it shows only effects that rise or fall throughout, " +
    "not a best value in the middle. " +
    "Neither shows a cause: parameters that vary together share their effect.";
  fillTable("importance", ["parameter", "importance", "ρ", "values"], effects.map(importanceRow));
  forget("effect-charts");
  const cards = effects.map((effect) => ({ effect, place: el("div", { class: "chart" }) }));
  byId("effect-charts").replaceChildren(
    ...cards.map(({ effect, place }) => el("div", { class: "effect" }, el("h3", {}, effect.name), place)),
  );
  for (const { effect, place } of cards) drawEffect(effect, place, keys);
}

function importanceRow({ name, importance, share, spearman, groups }) {
  const bar = el("span", { class: `bar${share === null ? " rough" : ""}` });
  bar.style.width = `${Math.max(0, Math.min(1, importance)) * 100}%`;
  const known = share !== null || spearman !== null;
  return [
    name,
    el("div", {}, el("span", { class: "bars" }, bar), known ? percent(importance) : "unknown"),
    spearman === null ? "no order" : fixed(spearman, 2),
    String(groups.length),
  ];
}

function drawEffect(effect, place, keys) {
  const [style, colours] = [styleOf(), runColours(report)];
  const runs = new Map(report.runs.map((run) => [run.key, run]));
  const paint = report.params.includes(view.colour) ? (key) => colours.of(runs.get(key)) : () => colour("accent");
  const dots = keys.map((key, index) => ({
    key,
    value: [effect.where[index] + spread(index, keys.length), report.analysis.losses[index]],
    itemStyle: { color: paint(key) },
  }));
  const { groups } = effect;
  const slanted = Math.max(...groups.map((group) => group.value.length)) * 7 > (place.clientWidth - 58) / groups.length;
  const ofGroup = (group) => [
    `${group.value}: median ${loss(group.median)}`,
    `${group.runs} runs, ${loss(group.low)} to ${loss(group.high)}`,
  ];
  draw(
    place,
    {
      grid: { left: slanted ? 64 : 48, right: 10, top: 12, bottom: slanted ? 62 : 24 },
      xAxis: [
        {
          ...style.axis,
          type: "category",
          data: groups.map((group) => group.value),
          axisLabel: {
            ...style.axis.axisLabel,
            interval: 0,
            hideOverlap: false,
            rotate: slanted ? 38 : 0,
            fontSize: 11,
            width: slanted ? 78 : undefined,
            overflow: "truncate",
          },
        },
        { type: "value", min: -0.5, max: groups.length - 0.5, show: false },
      ],
      yAxis: {
        ...style.axis,
        type: isLog(groups.flatMap((group) => [group.low, group.high])) ? "log" : "value",
        scale: true,
        axisLine: { show: false },
        axisLabel: { ...style.axis.axisLabel, formatter: number },
      },
      tooltip: {
        formatter: (item) =>
          tip(
            item.data.key ? [runs.get(item.data.key).name, loss(item.data.value[1])] : ofGroup(groups[item.dataIndex]),
          ),
      },
      series: [
        {
          type: "scatter",
          xAxisIndex: 1,
          data: dots,
          symbolSize: 6,
          itemStyle: { opacity: keys.length > 60 ? 0.35 : 0.6 },
        },
        {
          type: "line",
          data: groups.map((group) => group.median),
          symbol: "rect",
          symbolSize: [14, 3],
          lineStyle: { color: colour("text"), width: effect.numeric ? 1.5 : 0 },
          itemStyle: { color: colour("text") },
        },
      ],
    },
    { title: `Effect of ${effect.name}`, words: groups.map((group) => ofGroup(group)[0]).join(", ") },
  );
}

const spread = (index, many) => (many > 12 ? (((index * 0.618) % 1) - 0.5) * 0.4 : 0);

function drawPair() {
  const pair = report.analysis.interaction;
  byId("pair").hidden = !pair;
  if (!pair) return;
  byId("pair-note").textContent =
    (report.analysis.rung_step === null ? `Median final ${report.metric}` : `Median ${report.metric} at rung 1`) +
    ` for each pair of values of ${pair.x} and ${pair.y}, the two parameters with the strongest effects. ` +
    `Empty: no ${report.analysis.rung_step === null ? "finished run" : "run"}.`;
  const medians = pair.cells.map((cell) => cell.median).sort((a, b) => a - b);
  const high = medians[Math.ceil(medians.length * 0.9) - 1];
  const paint = (value) => mix(high > medians[0] ? (value - medians[0]) / (high - medians[0]) : 0);
  const legend = ramp(
    `median: best ${loss(medians[0])}`,
    `${loss(high)}${medians[medians.length - 1] > high ? " and more" : ""}`,
  );
  const style = styleOf();
  const most = Math.max(...pair.cells.map((cell) => cell.runs));
  const room = byId("pair-chart").clientWidth / pair.xs.length;
  byId("pair-chart").style.height = `${Math.min(34, 6 + pair.ys.length * 3)}rem`;
  drawLegend(byId("pair-legend"), legend);
  draw(
    "pair-chart",
    {
      grid: { left: wide() ? 110 : 70, right: 14, top: 26, bottom: 46 },
      xAxis: {
        ...style.axis,
        type: "category",
        data: pair.xs,
        name: pair.x,
        nameLocation: "middle",
        nameGap: 28,
        splitLine: { show: false },
        axisLabel: { ...style.axis.axisLabel, width: 110, overflow: "truncate" },
      },
      yAxis: {
        ...style.axis,
        type: "category",
        data: pair.ys,
        name: pair.y,
        nameLocation: "end",
        nameGap: 8,
        nameTextStyle: { align: "left", color: colour("soft") },
        splitLine: { show: false },
        axisLabel: { ...style.axis.axisLabel, width: wide() ? 100 : 60, overflow: "truncate" },
      },
      tooltip: {
        formatter: (item) =>
          tip([
            `${pair.x} ${pair.xs[item.value[0]]}, ${pair.y} ${pair.ys[item.value[1]]}`,
            `median ${loss(item.value[2])} of ${pair.cells[item.dataIndex].runs} runs`,
          ]),
      },
      series: {
        type: "heatmap",
        label: {
          show: room > 62,
          formatter: (item) =>
            most > 1 && room > 100
              ? `${loss(item.value[2])} (${pair.cells[item.dataIndex].runs})`
              : loss(item.value[2]),
        },
        data: pair.cells.map((cell) => ({
          value: [cell.x, cell.y, cell.median],
          itemStyle: { color: paint(cell.median), borderColor: colour("back"), borderWidth: 2 },
          label: { color: readable(paint(cell.median)) },
        })),
      },
      visualMap: { show: false, min: 0, max: 1, dimension: 2, seriesIndex: [] },
    },
    { title: `${pair.x} and ${pair.y} together`, words: byId("pair-note").textContent, legend },
  );
}
