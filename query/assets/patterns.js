// What the records that match say, by the form of their messages: how often, since when, and what is new.

import { ask } from "./api.js";
import { $, LEVELS, count, el, levelClass, number, plain, timeNode } from "./dom.js";
import { fill, incomplete } from "./panel.js";
import { ofTemplate } from "./query.js";
import { asked, changed, filters, go } from "./state.js";

const SHOWN = 200;
const EVER = "0001-01-01T00:00:00Z"; // without a time the service would take the last hours, and errors alone

/** Show them, and say how many there are. */
export async function load(signal, say, refused) {
  const panel = $("patterns");
  $("fresh").value = asked("fresh");
  $("templates").classList.add("stale");
  await fill(panel, signal, async () => {
    const query = filters();
    if (!query.has("start_time")) query.set("start_time", EVER);
    if ($("fresh").value) query.set("new_since", $("fresh").value);
    query.set("limit", SHOWN);
    const { body, missing, hint } = await ask(`/logs/patterns?${query}`, signal);
    $("templates").classList.remove("stale");
    $("templates").replaceChildren(...body.map(item));
    say(body.length ? `${count(body.length, "pattern")}.` : `No record matches in this range. ${hint}`.trim());
    incomplete(panel, missing);
  }, refused);
}

function item(each) {
  const levels = LEVELS.filter((level) => each.levels[level]);
  const changes = { q: `${asked("q")} ${ofTemplate(each.pattern)}`.trim(), view: "" };
  const link = el("a", { href: changed(changes), title: plain(each.example ?? "") }, ...template(each.pattern));
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(changes);
  });
  const only = levels.length === 1 ? levels[0] : ""; // a form that several levels have is of none
  return el("li", { class: levelClass(only) },
    el("span", { class: "count" }, number(each.count)),
    el("span", { class: "level" }, only),
    el("div", {}, link, el("p", {}, ...news(each), ...(only ? [] : levels.map((level) => share(level, each.levels[level]))),
      timeNode(each.first_seen, 0, 19), " to ", timeNode(each.last_seen, 0, 19),
      el("span", { class: "service" }, plain(each.services.join(", "))))));
}

const share = (level, records) => el("span", { class: `level share ${levelClass(level)}` }, `${number(records)} ${level}`);

function template(text) {
  return text.split("<*>").flatMap((part, place) => (place ? [el("i", {}, "<*>"), plain(part)] : [plain(part)]));
}

function news({ new: isNew, growth }) {
  if (isNew) return [el("b", { class: "news" }, "new")];
  return growth >= 2 ? [el("b", { class: "news" }, `${growth.toFixed(1)} times as many`)] : [];
}

export function start() {
  $("fresh").addEventListener("change", () => go({ fresh: $("fresh").value }));
}
