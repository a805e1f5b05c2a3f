// Records as they come. However many come, at most KEPT are kept and drawn, a few times a second.

import { AskError, follow, parseRecords } from "./api.js";
import { $, count } from "./dom.js";
import { clear, fail, ready } from "./panel.js";
import { rows } from "./record.js";
import { filters } from "./state.js";

const KEPT = 1000;
const BACKLOG = 100;
const DRAW = 150; // milliseconds
const RETRY = 1000;

let waiting = []; // texts of records that are not drawn yet
let unseen = 0; // how many came that are not among those any more
let seen = 0;
let timer = null;
let row = null;
let hint = ""; // what the query may have meant, for as long as nothing comes

const paused = () => $("pause").getAttribute("aria-pressed") === "true";
const atEnd = () => $("tail").scrollTop + $("tail").clientHeight >= $("tail").scrollHeight - 40;

/** Follow the question until it changes. Raises AskError when the service will not have it. */
export async function run(signal, say) {
  reset();
  const query = filters();
  query.delete("start_time");
  query.delete("end_time");
  query.set("backlog", BACKLOG);
  signal.addEventListener("abort", reset);
  clear($("live"));
  let last = "";
  while (!signal.aborted) {
    try {
      say("Connecting ...");
      for await (const events of follow(`/logs/tail?${query}`, last, signal)) {
        if (signal.aborted) return;
        say(paused() ? "Paused." : "Following.");
        ready($("live"));
        last = events.findLast((each) => each.id)?.id ?? last;
        take(events);
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.status >= 400 && error.status < 500) throw error;
      if (!(error instanceof AskError)) throw error;
    }
    say("The connection was lost; trying again ...");
    await new Promise((resolve) => setTimeout(resolve, RETRY));
  }
}

function take(events) {
  for (const { event, data } of events) {
    if (event === "problem") fail($("live"), new Error(JSON.parse(data).detail), () => clear($("live")));
    else if (event === "hint") hint = data;
    else if (data) waiting.push(data);
  }
  if (waiting.length > 2 * KEPT) trim();
  timer ??= setTimeout(draw, DRAW);
}

function trim() {
  unseen += Math.max(0, waiting.length - KEPT);
  waiting = waiting.slice(-KEPT);
}

function draw() {
  timer = null;
  trim();
  if (!paused() && waiting.length) {
    const following = atEnd();
    const list = $("tail");
    seen += waiting.length;
    list.append(...waiting.map((text) => row(parseRecords(text))));
    waiting = [];
    while (list.children.length > KEPT) list.firstChild.remove();
    if (following) list.scrollTop = list.scrollHeight;
  }
  tell();
}

function tell() {
  const more = paused() && waiting.length ? `, ${count(waiting.length, "more")} waiting`.replace("mores", "more") : "";
  const gone = unseen ? `, ${count(unseen, "record")} too fast to be shown` : "";
  $("live-told").textContent = `${count(seen, "record")}${more}${gone}. The last ${KEPT} are kept.${seen || !hint ? "" : ` ${hint}`}`;
  $("end-of-live").hidden = atEnd();
}

function reset() {
  clearTimeout(timer);
  [waiting, unseen, seen, timer, row, hint] = [[], 0, 0, null, rows(), ""];
  $("tail").replaceChildren();
  $("pause").setAttribute("aria-pressed", "false");
  $("pause").textContent = "Pause";
  tell();
}

export function start(say) {
  $("pause").addEventListener("click", () => {
    const on = !paused();
    $("pause").setAttribute("aria-pressed", String(on));
    $("pause").textContent = on ? "Resume" : "Pause";
    say(on ? "Paused." : "Following.");
    draw();
  });
  $("clear").addEventListener("click", () => {
    $("tail").replaceChildren();
    tell();
  });
  $("end-of-live").addEventListener("click", () => {
    $("tail").scrollTop = $("tail").scrollHeight;
  });
  $("tail").addEventListener("scroll", tell);
}
