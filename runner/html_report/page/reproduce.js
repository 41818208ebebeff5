// What reproduces the runs.
"use strict";

function drawReproduce() {
  const { command, commits, locks, datasets, inputs, best, store } = report.reproduce;
  const list = el("dl", {});
  const add = (term, ...parts) => list.append(el("dt", {}, term), el("dd", {}, ...parts));
  if (best) add("best run", `${best.key}: ${best.overrides}`);
  add("axosweep's commit", commits.join(", ") || "not recorded");
  add("trainer lock", locks.join(", ") || "not recorded");
  for (const data of datasets) add("data key", `${data.key}: ${dataWords(data)}`);
  for (const input of inputs) add("input", `${input.text}: ${input.identity}`);
  add("first launched", new Date(report.asked_at * 1000).toLocaleString());
  add("store", store);
  const text = (name, words) => el("pre", { tabindex: "0", role: "region", "aria-label": name }, words);
  const config =
    best && best.config
      ? [el("details", {}, el("summary", {}, "The best run's Axolotl config"), text("Axolotl config", best.config))]
      : [];
  const shown = text("Command", command || "not recorded");
  shown.id = "command";
  byId("reproduce").replaceChildren(shown, list, ...config);
}

function dataWords(data) {
  const rows = data.own
    ? `read by each run itself (${data.own})`
    : data.rows !== undefined
      ? `${data.rows} rows`
      : "not prepared";
  const held = data.eval_rows !== undefined ? `${data.eval_rows} held out` : "";
  return [rows, held, data.eval_fingerprint ? `held-out rows ${data.eval_fingerprint.slice(0, 8)}` : ""]
    .filter(Boolean)
    .join(", ");
}
