// How many records there are of each level, service and host; a click puts one into the query, or out.

import { ask } from "./api.js";
import { $, LEVELS, el, levelClass, number, plain, svg } from "./dom.js";
import { fill, incomplete } from "./panel.js";
import { choice } from "./record.js";
import { standing, toggled, without } from "./query.js";
import { asked, filters, go } from "./state.js";

const FIELDS = ["level", "service", "host"];
const SHOWN = 50;

export const load = (signal) => Promise.all(FIELDS.map((field) => facet(field, signal)));

async function facet(field, signal) {
  const panel = $(`facet-${field}`);
  await fill(panel, signal, async () => {
    const query = filters(without(asked("q"), field));
    query.set("by", field);
    query.set("limit", SHOWN);
    const { body, missing } = await ask(`/logs/aggregations?${query}`, signal);
    const order = (a, b) => LEVELS.indexOf(a.level) - LEVELS.indexOf(b.level);
    const found = field === "level" ? body.sort(order) : body.slice(0, SHOWN);
    const most = Math.max(1, ...found.map((each) => each.count));
    panel.querySelector("ul").replaceChildren(...found.map((each) => value(field, each[field], each.count, most)));
    incomplete(panel, missing);
  });
}

function value(field, what, count, most) {
  const text = what === null ? "(none)" : plain(what);
  const on = standing(asked("q"), field, what);
  return el("li", { "data-standing": on, class: field === "level" ? levelClass(what) : null },
    el("button", {
      type: "button", class: "value", title: text, "aria-pressed": String(on === 1),
      click: () => go({ q: toggled(asked("q"), field, what) }),
    }, el("span", { class: "name" }, text), el("span", { class: "count" }, number(count))),
    choice(field, what, true),
    svg("svg", { viewBox: "0 0 100 1", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { width: (count / most) * 100, height: 1 })));
}
