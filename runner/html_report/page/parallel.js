// Parallel coordinates: one line per run, and the brush.
"use strict";

const MOST_TICKS = 12;
const FADED = 0.05;

function parallelAxis(name, index) {
  const values = report.runs.map((run) => run.params[name]);
  const distinct = [...new Set(values)];
  const shared = { dim: index, name, nameTruncate: { maxWidth: wide() ? 130 : 280 } };
  if (values.every((value) => typeof value === "number") && distinct.length > MOST_TICKS) {
    const type = isLog(distinct) ? "log" : "value";
    return { axis: { ...shared, type, scale: true, axisLabel: { formatter: number } }, at: (run) => run.params[name] };
  }
  distinct.sort(compareValues);
  return {
    axis: { ...shared, type: "category", data: distinct.map(inWords), boundaryGap: true },
    at: (run) => distinct.indexOf(run.params[name]),
  };
}

// The best runs are drawn last, over the others.
const drawnRuns = () => [...report.runs].reverse();

function drawParallel(brushed) {
  const params = report.params.map(parallelAxis);
  const finals = report.runs.map((run) => run.ranked).filter((value) => value !== null);
  const last = {
    dim: params.length,
    name: report.metric,
    type: isLog(finals) ? "log" : "value",
    scale: true,
    axisLabel: { formatter: number },
  };
  const axes = [...params.map((param) => param.axis), ...(finals.length ? [last] : [])];
  byId("parallel").hidden = axes.length < 2 || report.runs.length < 2;
  if (byId("parallel").hidden) return;
  const [across, style, colours, runs] = [wide(), styleOf(), runColours(report), drawnRuns()];
  byId("parallel-chart").style.height = across ? "" : `${axes.length * 5.2 + 2}rem`;
  drawLegend(byId("parallel-legend"), colours.legend);
  const chart = draw(
    "parallel-chart",
    {
      parallel: across
        ? { left: 60, right: 90, top: 42, bottom: 28 }
        : { layout: "vertical", left: 28, right: 28, top: 40, bottom: 48 },
      parallelAxis: axes.map((axis) => styledAxis(axis, style, across)),
      tooltip: {
        formatter: (item) =>
          tip([
            runs[item.dataIndex].name,
            runs[item.dataIndex].ranked === null
              ? statusText(runs[item.dataIndex])
              : `${report.metric} ${loss(runs[item.dataIndex].ranked)}`,
          ]),
      },
      series: {
        type: "parallel",
        inactiveOpacity: FADED,
        activeOpacity: 0.9,
        smooth: 0.15,
        data: runs.map((run) => ({
          value: [
            ...params.map((param) => param.at(run)),
            ...(finals.length ? [run.ranked === null ? "-" : run.ranked] : []),
          ],
          lineStyle: {
            color: colours.of(run),
            opacity: passesFilter(run) ? (run.ranked === null ? 0.5 : 0.85) : FADED,
            type: run.ranked === null ? "dashed" : "solid",
            width: run.is_best ? 3.5 : runs.length > 40 ? 1.2 : 2,
          },
        })),
      },
    },
    {
      title: "Parallel coordinates",
      words: `${runs.length} runs across ${report.params.join(", ")}. To select runs by the keyboard, use the filter.`,
      legend: colours.legend,
    },
  );
  chart.off("axisareaselected");
  chart.on("axisareaselected", () => {
    const open = openIntervals(chart).some((intervals) => intervals.length);
    const active = chart.getModel().getSeriesByIndex(0).getRawIndicesByActiveState("active");
    brushed(open ? new Set(active.map((index) => runs[index].key)) : null);
  });
}

function styledAxis(axis, style, across) {
  const halo = { textBorderColor: colour("back"), textBorderWidth: 3 };
  return {
    ...style.axis,
    ...axis,
    nameLocation: "end",
    nameGap: across ? 16 : 14,
    nameTextStyle: {
      ...halo,
      color: colour("text"),
      fontWeight: 600,
      ...(across ? {} : { align: "right", verticalAlign: "bottom", padding: [0, 0, 6, 0] }),
    },
    axisLabel: {
      ...halo,
      color: colour("text"),
      hideOverlap: true,
      width: across ? 90 : 70,
      overflow: "truncate",
      ...axis.axisLabel,
    },
    axisLine: { lineStyle: { color: colour("soft"), width: 1.5 } },
    areaSelectStyle: {
      width: 22,
      borderWidth: 1,
      borderColor: colour("accent"),
      color: colour("accent"),
      opacity: 0.25,
    },
  };
}

// The brushed intervals of each axis, which are not among the options of ECharts.
function openIntervals(chart) {
  return chart
    .getOption()
    .parallelAxis.map((_, index) => chart.getModel().getComponent("parallelAxis", index).activeIntervals || []);
}

// A new drawing has no brush, so it is restored, with the same runs selected.
function keepBrush(redraw) {
  const chart = charts.get(byId("parallel-chart"));
  const intervals = chart && view.brushed ? openIntervals(chart) : [];
  redraw();
  intervals.forEach((open, index) => {
    const axis = open.length ? chart.getModel().getComponent("parallelAxis", index) : null;
    if (axis) chart.dispatchAction({ type: "axisAreaSelect", parallelAxisId: axis.id, intervals: open });
  });
}
