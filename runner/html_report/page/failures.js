// The runs that did not succeed, with the ends of their logs.
"use strict";

function drawFailures() {
  byId("failures").hidden = !report.failures.length;
  byId("failure-list").replaceChildren(
    ...report.failures.map((failure, index) => {
      const status = el("span", { class: `status ${statusClass(failure)}` }, statusText(failure));
      const summary = el("summary", {}, status, ` ${failure.name}`, failure.message ? `: ${failure.message}` : "");
      const where = failure.log ? [el("p", { class: "note" }, `The last lines of ${failure.log}`)] : [];
      const text = () =>
        el("pre", { tabindex: "0", role: "region", "aria-label": `Log of ${failure.name}` }, failure.tail);
      const advice = failure.advice.map((line) => el("p", {}, line));
      const body = failure.tail
        ? [...where, text()]
        : [el("p", { class: "note" }, failure.log ? `Its log: ${failure.log}` : "It has no log.")];
      return el("details", index < 3 ? { open: "" } : {}, summary, ...advice, ...body);
    }),
  );
  // The end of a log says most.
  for (const log of document.querySelectorAll("#failure-list pre")) log.scrollTop = log.scrollHeight;
}
