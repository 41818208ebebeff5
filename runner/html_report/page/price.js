// Quality against cost, with the runs that no other run beats in both.
"use strict";

const EVEN_NOTE =
  "The dollars of each run include an even share of what starting the containers cost (boot, idle, import), since " +
  "what a run paid for that depends on its place in a container. The table of runs has what was paid.";

function drawPrice() {
  const { keys, costs, front, cost, even } = report.analysis;
  const runs = new Map(report.runs.map((run) => [run.key, run]));
  byId("price").hidden = keys.length < 2 || front.length === 0;
  if (byId("price").hidden) return;
  const show = cost === "dollars" ? money : duration;
  byId("price-word").textContent = cost;
  const unpriced =
    cost === "dollars" ? "" : " in seconds of all its attempts, since nothing was rented or there is no price";
  byId("price-note").textContent =
    `Each finished run and its cost${unpriced}. The line connects the runs that no other run beats in both: ` +
    "the Pareto front, with large dots." +
    (even ? ` ${EVEN_NOTE}` : "");
  const costOf = new Map(keys.map((key, index) => [key, costs[index]]));
  const colours = runColours(report);
  drawLegend(byId("price-legend"), colours.legend);
  const dot = (key) => {
    const [large, shown] = [front.includes(key), isShown(runs.get(key))];
    return {
      key,
      value: [costOf.get(key), runs.get(key).final],
      symbolSize: large ? 12 : 7,
      itemStyle: { color: colours.of(runs.get(key)), opacity: shown ? (large ? 1 : 0.75) : 0.08 },
    };
  };
  const dots = keys.filter((key) => costOf.get(key) !== null).map(dot);
  const style = styleOf();
  draw(
    "price-chart",
    {
      grid: { left: 54, right: 22, top: 16, bottom: 46 },
      xAxis: {
        ...style.axis,
        type: "value",
        scale: true,
        name: cost,
        nameLocation: "middle",
        nameGap: 32,
        axisLabel: { ...style.axis.axisLabel, margin: 13, formatter: cost === "dollars" ? money : number },
      },
      yAxis: {
        ...style.axis,
        type: isLog(dots.map((one) => one.value[1])) ? "log" : "value",
        scale: true,
        axisLabel: { ...style.axis.axisLabel, formatter: number },
      },
      tooltip: {
        formatter: (item) =>
          item.data.key
            ? tip([runs.get(item.data.key).name, `${show(item.value[0])}, ${report.metric} ${loss(item.value[1])}`])
            : "",
      },
      series: [
        {
          type: "line",
          data: front.map((key) => [costOf.get(key), runs.get(key).final]),
          step: "end",
          symbol: "none",
          silent: true,
          lineStyle: { color: colour("good"), width: 2 },
        },
        { type: "scatter", data: dots.reverse() },
      ],
    },
    { title: `Quality against ${cost}`, words: "The table below has the Pareto front.", legend: colours.legend },
  );
  fillTable(
    "price-table",
    ["on the front", cost, report.metric],
    front.map((key) => [runs.get(key).name, show(costOf.get(key)), loss(runs.get(key).final)]),
  );
}
