// The loss curves: one per run, or the mean of each group with a band from its smallest to its largest value.
"use strict";

const CURVE_TOOLS = ["curve-x", "curve-train", "curve-eval", "curve-logx", "curve-logy", "curve-smooth"];
const AXIS_NAMES = {
  step: "step",
  tokens: "tokens trained on",
  seconds: "seconds of training, all attempts",
  dollars: "dollars paid so far",
};

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

function curveSettings() {
  const select = byId("curve-x");
  for (const option of select.options) {
    option.disabled = !report.runs.some((run) => Object.values(run.curves).some((curve) => curve[option.value]));
  }
  if (select.selectedOptions[0].disabled) select.value = "step";
  const weight = Number(byId("curve-smooth").value);
  byId("curve-smooth-value").textContent = weight ? fixed(weight, 2) : "off";
  return { x: select.value, weight, log: { x: byId("curve-logx").checked, y: byId("curve-logy").checked } };
}

function drawCurves() {
  byId("curves").hidden = !report.runs.some((run) => hasCurves(run));
  if (byId("curves").hidden) return;
  const settings = curveSettings();
  const shown = report.runs.filter((run) => hasCurves(run) && isChosen(run, report));
  const members = view.group ? groupsOf(report, shown) : shown.map((run) => ({ ...run, runs: [run] }));
  const { of: paint, legend } = curveColours(members);
  const curves = members.flatMap((member, index) =>
    ["train", "eval"]
      .filter((kind) => byId(`curve-${kind}`).checked && member.runs.some((run) => run.curves[kind]))
      .map((kind) => ({ member, kind, paint: paint(member), height: 2 + (members.length - index) / members.length })),
  );
  const points = curves.map((curve) => pointsOf(curve, settings));
  const rungs = report.search && settings.x === "step" ? report.search.rungs : [];
  const bands = view.group ? curves.map((curve, at) => bandOf(curve, points[at])) : [];
  const [style, log] = [styleOf(), settings.log];
  drawLegend(byId("curve-legend"), legend);
  draw(
    "curve-chart",
    {
      grid: { left: 54, right: 18, top: rungs.length ? 30 : 16, bottom: 46 },
      xAxis: {
        ...style.axis,
        type: log.x ? "log" : "value",
        name: AXIS_NAMES[settings.x],
        nameLocation: "middle",
        nameGap: 28,
        scale: true,
        max: "dataMax",
        axisLabel: { ...style.axis.axisLabel, formatter: number, showMaxLabel: false },
      },
      yAxis: {
        ...style.axis,
        type: log.y ? "log" : "value",
        scale: true,
        axisLabel: { ...style.axis.axisLabel, formatter: number },
      },
      tooltip: { trigger: "item", formatter: (item) => curveTip(curves[item.seriesIndex], item, settings.x) },
      series: [
        ...curves.map((curve, at) => curveSeries(curve, points[at], curves.length)),
        ...bands,
        ...(rungs.length ? [rungLines(rungs)] : []),
      ],
    },
    {
      title: "Loss curves",
      words: `${shown.length} of ${report.runs.length} runs. The table has their final losses.`,
      legend,
    },
  );
  const means = view.group
    ? "Each line is the mean of a group, up to the last step that all of its runs have reached; " +
      "the band reaches from the smallest to the largest value. "
    : "";
  byId("curve-note").textContent =
    `${shown.length} of ${report.runs.length} runs. ${means}Thin lines: training loss; lines with dots: eval loss. ` +
    "Smoothing is an exponential mean of the training loss. Long curves show only some of their points. " +
    `A cross marks a loss that was NaN.${report.search ? " A square marks where a run stopped at a rung." : ""}`;
}

const hasCurves = (run) => Object.keys(run.curves).length > 0;

// Few lines have a colour each, unless a parameter was chosen as colour; many lines have the colours of the metric.
function curveColours(members) {
  if (report.params.includes(view.colour)) {
    const colours = runColours(report);
    const same = (member) => new Set(member.runs.map((run) => colours.of(run))).size === 1;
    return { of: (member) => (same(member) ? colours.of(member.runs[0]) : colour("soft")), legend: colours.legend };
  }
  if (members.length > FEW || view.colour === report.metric) return metricColours(report);
  const paints = new Map(members.map((member, at) => [member.key, palette()[at]]));
  const text = (member) =>
    view.group ? `${member.name} (${member.runs.length} ${member.runs.length === 1 ? "run" : "runs"})` : member.name;
  return {
    of: (member) => paints.get(member.key),
    legend: members.map((member) => ({ text: text(member), swatch: paints.get(member.key) })),
  };
}

// [x, y] of one curve without gaps; of a group [x, mean, lowest, highest]; and the x of the first NaN.
function pointsOf({ member, kind }, { x, weight, log }) {
  const single = member.runs
    .filter((run) => run.curves[kind])
    .map((run) => pointsOfRun(withRungs(run, kind, x), x, kind === "train" ? weight : 0, log));
  return view.group ? { data: meanOf(single.map((one) => one.data)), broken: null } : single[0];
}

// The loss that was evaluated for the rung alone is in no log.
function withRungs(run, kind, x) {
  const curve = run.curves[kind];
  const own = kind === "eval" && x === "step" ? run.rungs.filter((one) => one.loss !== null) : [];
  const added = own.filter((one) => !curve.step.includes(one.step));
  if (!added.length) return curve;
  const points = [...curve.step.map((step, at) => [step, curve.y[at]]), ...added.map((one) => [one.step, one.loss])];
  points.sort((one, other) => one[0] - other[0]);
  return { step: points.map(([step]) => step), y: points.map(([, y]) => y) };
}

// Upright lines, without a curve of their own.
function rungLines(rungs) {
  const soft = colour("soft");
  return {
    type: "line",
    id: "rungs",
    data: [],
    silent: true,
    tooltip: { show: false },
    markLine: {
      silent: true,
      symbol: "none",
      animation: false,
      lineStyle: { color: soft, type: "dashed", width: 1.5 },
      label: { color: soft, formatter: (item) => item.name, position: "end" },
      data: rungs.map(({ rung, step }) => ({ name: `rung ${rung}`, xAxis: step })),
    },
  };
}

function pointsOfRun(curve, x, weight, log) {
  const [xs, ys] = [curve[x] || curve.step.map(() => null), smoothed(curve.y, weight)];
  const usable = (at) => xs[at] !== null && (!log.x || xs[at] > 0) && ys[at] !== null && (!log.y || ys[at] > 0);
  const broken = curve.y.findIndex((value, at) => value === null && xs[at] !== null);
  return {
    data: xs.map((value, at) => (usable(at) ? [value, ys[at]] : null)).filter(Boolean),
    broken: broken < 0 ? null : xs[broken],
  };
}

// At the points of the longest curve, from the last of the starts to the first of the ends: there, all have a value.
function meanOf(curves) {
  const filled = curves.filter((curve) => curve.length);
  if (!filled.length) return [];
  const longest = filled.reduce((one, other) => (other.length > one.length ? other : one));
  const [from, to] = [
    Math.max(...filled.map((curve) => curve[0][0])),
    Math.min(...filled.map((curve) => curve[curve.length - 1][0])),
  ];
  const readers = filled.map(reader);
  return longest
    .map(([x]) => x)
    .filter((x) => x >= from && x <= to)
    .map((x) => {
      const values = readers.map((read) => read(x));
      return [
        x,
        values.reduce((sum, value) => sum + value, 0) / values.length,
        Math.min(...values),
        Math.max(...values),
      ];
    });
}

// The value of a curve at each of growing x, between its points.
function reader(curve) {
  let at = 0;
  return (x) => {
    while (at < curve.length - 2 && curve[at + 1][0] <= x) at += 1;
    const [[x0, y0], [x1, y1]] = [curve[at], curve[Math.min(at + 1, curve.length - 1)]];
    return x1 > x0 ? y0 + ((y1 - y0) * (x - x0)) / (x1 - x0) : y0;
  };
}

function curveSeries({ member, kind, paint, height }, { data, broken }, many) {
  const isEval = kind === "eval";
  const bad = { borderColor: colour("bad"), borderWidth: 2, color: colour("bad") };
  const cross = {
    symbol: "path://M0,0L10,10M10,0L0,10",
    symbolSize: 10,
    itemStyle: bad,
    label: { show: false },
    data: [{ coord: [broken, data.length ? data[data.length - 1][1] : 1] }],
  };
  const ending = data[data.length - 1];
  const cut = {
    symbol: "rect",
    symbolSize: 9,
    itemStyle: { color: colour("card"), borderColor: paint, borderWidth: 2 },
    label: { show: false },
    data: [{ coord: ending && [ending[0], ending[1]] }],
  };
  const isCut = isEval && !view.group && isAtRung(member.runs[0]) && ending;
  return {
    type: "line",
    id: `${member.key} ${kind}`,
    name: `${member.key} ${kind}`,
    data: data.map(([x, y]) => [x, y]),
    z: height,
    triggerLineEvent: true,
    showSymbol: isEval && many <= 80,
    symbol: "circle",
    symbolSize: 5,
    connectNulls: false,
    lineStyle: {
      color: paint,
      width: isEval ? (member.is_best ? 3 : 1.8) : 1,
      opacity: isEval ? 0.95 : many > 80 ? 0.35 : 0.6,
    },
    itemStyle: { color: paint },
    emphasis: { focus: many > 2 ? "series" : "none", lineStyle: { width: 3 } },
    markPoint: broken !== null ? cross : isCut ? cut : undefined,
  };
}

// A polygon: stacked areas, the usual way, are wrong on a logarithmic axis.
function bandOf({ member, kind, paint }, { data }) {
  return {
    type: "custom",
    id: `${member.key} ${kind} band`,
    silent: true,
    z: 1,
    tooltip: { show: false },
    clip: true,
    encode: { x: 0, y: [2, 3] },
    data: member.runs.length > 1 ? data : [],
    renderItem: (params, api) => {
      if (params.dataIndexInside) return null;
      const edge = (side) => data.map((point) => api.coord([point[0], point[side]]));
      return {
        type: "polygon",
        shape: { points: [...edge(2), ...edge(3).reverse()] },
        style: { fill: paint, opacity: kind === "eval" ? 0.18 : 0.1 },
      };
    },
  };
}

function curveTip({ member, kind }, item, x) {
  const point = Array.isArray(item.value)
    ? [`${x} ${number(item.value[0])}, ${kind} loss ${loss(item.value[1])}`]
    : [`${kind} loss`];
  return tip([member.name, ...point]);
}
