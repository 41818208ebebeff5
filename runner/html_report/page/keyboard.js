// Keys: / filters, Escape shows all again, arrow keys walk through the rows of the table.
"use strict";

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest?.("input, select, textarea");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    byId("find").focus();
    byId("find").select();
  } else if (event.key === "Escape") {
    const menu = event.target.closest?.("details.menu[open]");
    if (menu) {
      menu.open = false;
      menu.querySelector("summary").focus();
    } else if (!byId("clear").disabled) showAll();
  } else if (event.target.closest?.("#table tbody")) {
    walk(event);
  }
}

function walk(event) {
  const buttons = [...byId("table").tBodies[0].querySelectorAll("[data-pick]")];
  const at = buttons.indexOf(event.target.closest("[data-pick]"));
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
  if (at < 0 || to === undefined || !buttons[to]) return;
  event.preventDefault();
  buttons[at].tabIndex = -1;
  buttons[to].tabIndex = 0;
  buttons[to].focus();
}
