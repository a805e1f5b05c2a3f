// How many records there are of each level, service and host; a click puts one into the query, or out.

import { ask } from "./api.js";
import { $, LEVELS, el, levelClass, number, plain, svg } from "./dom.js";
import { fill, incomplete } from "./panel.js";
import { choice } from "./record.js";
import { standing, toggled, without } from "./query.js";
import { asked, filters, go } from "./state.js";

const FIELDS = ["level", "service", "host"];
const SHOWN = 50;
const DEAR = 4; // batches read for a count, from which on each count is as dear
const GROUPS = 10000; // in an answer for several fields

/** Show them all, once it is known how many batches one count has to `read`: if they are many, as few as possible are
 * asked for, one after the other. */
export async function load(signal, read) {
  let before = read.then(() => null);
  return Promise.all(alike().flatMap((fields) => {
    const turn = before;
    const shared = read.then((batches) => (batches > DEAR ? turn.then(() => counted(fields, signal)) : null));
    before = shared.catch(() => null);
    return fields.map((field) => facet(field, signal, shared));
  }));
}

/** Return the fields in groups, of which each has one question: the one that is asked, but for what it says of a field. */
function alike() {
  const groups = new Map();
  for (const field of FIELDS) {
    const q = without(asked("q"), field);
    groups.set(q, [...(groups.get(q) ?? []), field]);
  }
  return [...groups.values()];
}

/** Count by these fields. Several are too many groups at times: then it is null. */
async function counted(fields, signal) {
  const query = filters(without(asked("q"), fields[0]));
  const alone = fields.length === 1;
  query.set("by", fields);
  query.set("limit", alone ? SHOWN : GROUPS);
  try {
    const found = await ask(`/logs/aggregations?${query}`, signal);
    return alone || found.body.length < GROUPS ? found : null;
  } catch (error) {
    if (!alone && /different values|groups/.test(error.message)) return null;
    throw error;
  }
}

async function facet(field, signal, shared) {
  const panel = $(`facet-${field}`);
  let given = shared; // when it is tried again, it asks for itself
  await fill(panel, signal, async () => {
    const first = given;
    given = null;
    const { body, missing } = (await first) ?? (await counted([field], signal));
    const found = values(field, body);
    const most = Math.max(1, ...found.map(([, count]) => count));
    const focused = panel.contains(document.activeElement) ? document.activeElement.title : null;
    panel.querySelector("ul").replaceChildren(...found.map(([what, count]) => value(field, what, count, most)));
    if (focused) [...panel.querySelectorAll("button")].find(({ title }) => title === focused)?.focus({ preventScroll: true });
    incomplete(panel, missing);
  });
}

/** Return the values of a field with their counts: levels by their severity, others by their count. */
function values(field, rows) {
  const counts = new Map();
  for (const row of rows) counts.set(row[field], (counts.get(row[field]) ?? 0) + row.count);
  const order = field === "level" ? ([a], [b]) => LEVELS.indexOf(a) - LEVELS.indexOf(b) : ([, a], [, b]) => b - a;
  return [...counts].sort(order).slice(0, SHOWN);
}

function value(field, what, count, most) {
  const text = what === null ? "(none)" : plain(what);
  const on = standing(asked("q"), field, what);
  return el("li", { "data-standing": on, class: field === "level" ? levelClass(what) : null },
    el("button", {
      type: "button", class: "value", title: text, "aria-pressed": String(on === 1),
      click: () => go({ q: toggled($("q").value, field, what) }),
    }, el("span", { class: "name" }, text), el("span", { class: "count" }, number(count))),
    choice(field, what, true),
    svg("svg", { viewBox: "0 0 100 1", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { width: (count / most) * 100, height: 1 })));
}
