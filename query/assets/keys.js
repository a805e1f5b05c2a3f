// The keyboard: one table of keys, for what they do and for the help that shows them.

import { $, el } from "./dom.js";
import { asked, go } from "./state.js";

const LANGUAGE = [
  ["timeout payment", "both words, anywhere"], ['"connection reset"', "next to each other"], ["-debug", "without it"],
  ["a or b", "one of them"], ["service=shop", "a field, exactly"], ["level>=warning", "at least as severe"],
  ["status>=500", "a number"], ["pay*", "the beginning of a word"], ["/ord\\d+/", "a regular expression"],
  ["user:*", "with this field"],
];
const CONTROLS = "button, a, select, input, textarea, summary, [role=slider]";

const lines = () => [...document.querySelectorAll("main > section:not([hidden]) > ol > li > details > summary, #templates a")]
  .filter((each) => each.checkVisibility());
const open = () => document.querySelector("main > section:not([hidden]) > ol > li > details[open]")
  ?? document.querySelector("#linked details[open]");

/** Go to the line `step` after the one with the focus. */
export function move(step) {
  const all = lines();
  const here = all.indexOf(document.activeElement.closest("main li")?.querySelector("summary, a"));
  const there = all[here < 0 ? 0 : Math.min(all.length - 1, Math.max(0, here + step))];
  there?.focus();
  there?.scrollIntoView({ block: "nearest" });
}

const view = (name) => go({ view: asked("view") === name ? "" : name });

const KEYS = [
  ["/", "to the query", () => $("q").select()],
  ["j", "to the next record", () => move(1)],
  ["k", "to the one before", () => move(-1)],
  ["Enter", "open or close it", null],
  ["c", "context of the open record", () => open()?.querySelector(".to-context")?.click()],
  ["t", "live, and back", () => view("live")],
  ["Space", "pause, and go on", () => $("pause").click()],
  ["p", "patterns, and back", () => view("patterns")],
  ["h", "to the histogram: arrows, Shift, Enter", () => $("histogram").focus()],
  ["z", "a wider range", () => $("wider").click()],
  ["r", "search again", () => go({ record: asked("record") }, { replace: true })],
  ["u", "UTC or local time", () => $("zone").click()],
  ["d", "light or dark", () => $("theme").click()],
  ["?", "these keys", () => $("help").showModal()],
  ["Escape", "close, or leave the query", leave],
];

function leave() {
  const details = open();
  if (document.activeElement === $("q")) move(0);
  else if (details) {
    details.open = false;
    details.querySelector("summary").focus();
  }
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const node = document.activeElement;
  const typing = node.matches("input, select, textarea");
  if (typing && node === $("q") && event.key === "ArrowDown") move(0);
  else if (typing && event.key !== "Escape") return;
  else if (event.key === " " && (asked("view") !== "live" || node.matches(CONTROLS))) return;
  else {
    const run = KEYS.find(([name]) => name === (event.key === " " ? "Space" : event.key))?.[2];
    if (!run) return;
    run();
  }
  event.preventDefault();
}

export function start() {
  const list = (pairs, tag) => pairs.flatMap(([name, text]) => [el("dt", {}, el(tag, {}, name)), el("dd", {}, text)]);
  $("help").querySelector("dl").append(...list(KEYS, "kbd"));
  $("help").querySelector(".language").append(...list(LANGUAGE, "code"));
  $("keys").addEventListener("click", () => $("help").showModal());
  document.addEventListener("keydown", pressed);
}
