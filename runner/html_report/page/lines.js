// Parallel coordinates with their brush, and the loss curves.
"use strict";

const MOST_TICKS = 12;

function parallelAxis(report, name, index) {
  const values = report.runs.map((run) => run.params[name]);
  const numbers = values.every((value) => typeof value === "number");
  const distinct = [...new Set(values)];
  const shared = { dim: index, name, nameTruncate: { maxWidth: wide() ? 130 : 280 } };
  if (numbers && distinct.length > MOST_TICKS) {
    const log = Math.min(...distinct) > 0 && Math.max(...distinct) / Math.min(...distinct) > 20;
    return { axis: { ...shared, type: log ? "log" : "value", scale: true, axisLabel: { formatter: number } }, at: (run) => run.params[name] };
  }
  distinct.sort(compareValues);
  const texts = distinct.map((value) => number(value) || "none");
  return { axis: { ...shared, type: "category", data: texts, boundaryGap: true }, at: (run) => distinct.indexOf(run.params[name]) };
}

function drawParallel(report, scale, brushed) {
  const params = report.params.map((name, index) => parallelAxis(report, name, index));
  const finals = report.runs.map((run) => run.ranked).filter((value) => value !== null);
  const log = finals.length > 1 && Math.min(...finals) > 0 && Math.max(...finals) / Math.min(...finals) > 20;
  const last = { dim: params.length, name: report.metric, type: log ? "log" : "value", scale: true, axisLabel: { formatter: number } };
  const axes = [...params.map((param) => param.axis), ...(finals.length ? [last] : [])];
  byId("parallel").hidden = axes.length < 2 || report.runs.length < 2;
  if (byId("parallel").hidden) return;
  const across = wide();
  const style = styleOf();
  byId("parallel-chart").style.height = across ? "" : `${axes.length * 5.2 + 2}rem`;
  const halo = { textBorderColor: colour("back"), textBorderWidth: 3 };
  const label = { ...halo, color: colour("text"), hideOverlap: true, width: across ? 90 : 70, overflow: "truncate" };
  const chart = draw("parallel-chart", {
    parallel: across
      ? { left: 60, right: 90, top: 42, bottom: 28 }
      : { layout: "vertical", left: 28, right: 28, top: 40, bottom: 48 },
    parallelAxis: axes.map((axis) => ({
      ...style.axis, ...axis, nameLocation: "end", nameGap: across ? 16 : 14,
      nameTextStyle: { ...halo, color: colour("text"), fontWeight: 600, ...(across ? {} : { align: "right", verticalAlign: "bottom", padding: [0, 0, 6, 0] }) },
      axisLabel: { ...label, ...axis.axisLabel },
      axisLine: { lineStyle: { color: colour("soft"), width: 1.5 } },
      areaSelectStyle: { width: 22, borderWidth: 1, borderColor: colour("accent"), color: colour("accent"), opacity: 0.25 },
    })),
    tooltip: { formatter: (item) => { const run = report.runs[item.dataIndex]; return tip([run.name, run.ranked === null ? statusText(run) : `${report.metric} ${loss(run.ranked)}`]); } },
    series: {
      type: "parallel", inactiveOpacity: 0.05, activeOpacity: 0.9, smooth: 0.15,
      data: report.runs.map((run) => ({
        value: [...params.map((param) => param.at(run)), ...(finals.length ? [run.ranked === null ? "-" : run.ranked] : [])],
        lineStyle: {
          color: scale.of(run.ranked), opacity: run.ranked === null ? 0.5 : 0.85, type: run.ranked === null ? "dashed" : "solid",
          width: run.is_best ? 3.5 : report.runs.length > 40 ? 1.2 : 2,
        },
      })),
    },
  });
  chart.off("axisareaselected");
  chart.on("axisareaselected", () => {
    const open = openIntervals(chart).some((intervals) => intervals.length);
    const active = chart.getModel().getSeriesByIndex(0).getRawIndicesByActiveState("active");
    brushed(open ? new Set(active.map((index) => report.runs[index].key)) : null);
  });
}

// The brushed intervals of each axis, which are not among the options of ECharts.
function openIntervals(chart) {
  return chart.getOption().parallelAxis.map((_, index) => chart.getModel().getComponent("parallelAxis", index).activeIntervals || []);
}

function smoothed(values, weight) {
  if (!weight) return values;
  let mean = 0;
  let seen = 0;
  return values.map((value) => {
    if (value === null) return null;
    mean = mean * weight + value * (1 - weight);
    seen = seen * weight + 1 - weight;
    return mean / seen; // corrects the start at 0
  });
}

function drawCurves(report, scale) {
  const shown = report.runs.filter((run) => run.curves && Object.keys(run.curves).length && isShown(run) && (!view.picked || run.key === view.picked));
  const any = report.runs.some((run) => run.curves && Object.keys(run.curves).length);
  byId("curves").hidden = !any;
  if (!any) return;
  const select = byId("curve-x");
  for (const option of select.options) {
    option.disabled = !report.runs.some((run) => Object.values(run.curves).some((curve) => curve[option.value]));
  }
  if (select.selectedOptions[0].disabled) select.value = "step";
  const [x, weight] = [select.value, Number(byId("curve-smooth").value)];
  const log = { x: byId("curve-logx").checked, y: byId("curve-logy").checked };
  byId("curve-smooth-value").textContent = weight ? weight.toFixed(2) : "off";
  const few = shown.length <= FEW;
  const palette = DISTINCT[dark() ? "dark" : "light"];
  const paint = (run, index) => (few ? palette[index] : scale.of(run.ranked));
  const curves = shown.flatMap((run, index) => ["train", "eval"].filter((kind) => run.curves[kind] && byId(`curve-${kind}`).checked)
    .map((kind) => ({ run, kind, paint: paint(run, index) })));
  const series = curves.map((one) => curveOf(one.run, one.kind, x, one.kind === "train" ? weight : 0, log, one.paint, shown.length));
  const style = styleOf();
  const axisNames = { step: "step", tokens: "tokens trained on", seconds: "seconds of training, all attempts", dollars: "dollars paid so far" };
  draw("curve-chart", {
    grid: { left: 54, right: 18, top: 16, bottom: 46 },
    xAxis: { ...style.axis, type: log.x ? "log" : "value", name: axisNames[x], nameLocation: "middle", nameGap: 28, scale: true, max: "dataMax", axisLabel: { ...style.axis.axisLabel, formatter: number, showMaxLabel: false } },
    yAxis: { ...style.axis, type: log.y ? "log" : "value", scale: true, axisLabel: { ...style.axis.axisLabel, formatter: number } },
    tooltip: { trigger: "item", formatter: (item) => curveTip(curves[item.seriesIndex], item, x) },
    series,
  });
  byId("curve-legend").className = few ? "legend" : "scale";
  if (few) {
    byId("curve-legend").replaceChildren(...shown.map((run, index) => { const mark = el("i"); mark.style.background = paint(run, index); return el("span", {}, mark, run.name); }));
  } else {
    drawScale(byId("curve-legend"), scale, report.metric);
  }
  byId("curve-note").textContent = `${shown.length} of ${report.runs.length} runs. Thin lines: training loss; lines with dots: eval loss. Smoothing is an exponential mean of the training loss. Long curves show only some of their points. A cross marks a loss that was NaN.`;
}

function curveOf(run, kind, x, weight, log, paint, many) {
  const curve = run.curves[kind];
  const ys = smoothed(curve.y, weight);
  const xs = curve[x] || curve.step.map(() => null);
  const usable = (at) => xs[at] !== null && (!log.x || xs[at] > 0) && ys[at] !== null && (!log.y || ys[at] > 0);
  const data = xs.map((value, at) => (usable(at) ? [value, ys[at]] : null)).filter((point) => point !== null);
  const broken = curve.y.map((value, at) => (value === null && xs[at] !== null ? xs[at] : null)).filter((value) => value !== null);
  const lastGood = data.length ? data[data.length - 1][1] : 1;
  return {
    type: "line", id: `${run.key} ${kind}`, name: `${run.key} ${kind}`, data, triggerLineEvent: true,
    showSymbol: kind === "eval" && many <= 40, symbol: "circle", symbolSize: 5, connectNulls: false,
    lineStyle: { color: paint, width: kind === "eval" ? (run.is_best ? 3 : 1.8) : 1, opacity: kind === "eval" ? 0.95 : many > 40 ? 0.35 : 0.6 },
    itemStyle: { color: paint }, emphasis: { focus: many > 1 ? "series" : "none", lineStyle: { width: 3 } },
    markPoint: broken.length ? { symbol: "path://M0,0L10,10M10,0L0,10", symbolSize: 10, itemStyle: { borderColor: colour("bad"), borderWidth: 2, color: colour("bad") }, label: { show: false }, data: [{ coord: [broken[0], lastGood] }] } : undefined,
  };
}

function curveTip({ run, kind }, item, x) {
  const point = Array.isArray(item.value) ? [`${x} ${number(item.value[0])}, ${kind} loss ${loss(item.value[1])}`] : [`${kind} loss`];
  return tip([run.name, ...point]);
}
