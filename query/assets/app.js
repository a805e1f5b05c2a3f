// The page, from top to bottom: what is asked stands in the address (state.js), and each panel shows its part of it.

import { $, setZone, timeText, zone } from "./dom.js";
import * as facets from "./facets.js";
import * as histogram from "./histogram.js";
import * as keys from "./keys.js";
import { fill } from "./panel.js";
import * as patterns from "./patterns.js";
import * as results from "./results.js";
import { asked, changed, go, isAbsolute, onChange, range, since } from "./state.js";
import * as tail from "./tail.js";

const VIEWS = ["live", "patterns"];
let running = new AbortController();
let told = ""; // the query that was last put into its box

const view = () => (VIEWS.includes(asked("view")) ? asked("view") : "");

function say(text) {
  if ($("status").textContent !== text) $("status").textContent = text;
}

// ---- showing the question ----

async function show() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const focused = document.activeElement;
  const refused = (error) => showProblem(error, focused);
  showForm();
  if (view() === "live") {
    facets.load(signal, Promise.resolve(0));
    await fill($("live"), signal, () => tail.run(signal, say), refused);
    return;
  }
  say("Searching ...");
  const shown = view() === "patterns" ? patterns.load(signal, say, refused) : showRecords(signal, refused);
  const newest = view() === "patterns" ? undefined : await shown; // the records first, the counts after them
  if (signal.aborted || !$("problem").hidden) return;
  const read = histogram.load(signal, newest);
  facets.load(signal, Promise.all([read, shown]).then(([batches]) => batches));
}

async function showRecords(signal, refused) {
  const began = performance.now();
  let newest;
  const found = await fill($("records"), signal, async () => { newest = await results.load(signal); }, refused);
  if (signal.aborted) return newest;
  const took = Math.round(performance.now() - began);
  say(!found ? "" : newest ? `Newest first, found in ${took} ms.` : "Nothing found.");
  return newest;
}

/** Show at the query what is wrong with it, and go there, unless the person has gone on since it was asked. */
function showProblem(error, focused) {
  $("problem").textContent = error.message;
  $("problem").hidden = false;
  $("q").setAttribute("aria-invalid", "true");
  $("results").classList.add("stale");
  say("");
  if (![focused, document.body].includes(document.activeElement) || $("q").value !== asked("q")) return;
  const place = [...$("q").value].slice(0, error.position).join("").length;
  $("q").focus();
  $("q").setSelectionRange(place, place);
}

/** What stands in the form already is left alone: somebody may be typing there. */
function showForm() {
  const q = asked("q");
  document.title = q ? `${q} - logagg` : "logagg";
  document.body.dataset.view = view() || "records";
  for (const name of ["records", ...VIEWS]) $(name).hidden = name !== document.body.dataset.view;
  $("over-time").hidden = view() === "live";
  for (const link of $("views").children) {
    link.href = changed({ view: link.dataset.view, record: "" });
    if (link.dataset.view === view()) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (q !== told) $("q").value = told = q;
  $("q").removeAttribute("aria-invalid");
  $("problem").hidden = true;
  $("since").value = since();
  showRange();
}

function showRange() {
  $("absolute").hidden = $("since").value !== "custom";
  const [start, end] = range();
  const text = (time) => (time ? timeText(new Date(time).toISOString()).slice(0, 19).replace(" ", "T") : "");
  for (const [name, time] of [["start", start], ["end", end]]) {
    if ((Date.parse(typed(name)) || null) !== time) $(name).value = text(time);
  }
}

/** The time that stands in a field of the form, as it goes into the address. */
function typed(name) {
  const text = $(name).value;
  const time = Date.parse(zone() === "utc" ? `${text}Z` : text);
  return time ? new Date(time).toISOString() : "";
}

// ---- hands ----

function search(event) {
  event.preventDefault();
  go({ q: $("q").value.trim() });
}

function chooseRange() {
  if ($("since").value === "custom") return showRange();
  return go({ since: $("since").value, start: "", end: "" });
}

function typeRange() {
  if (["start", "end"].some((name) => $(name).validity.badInput)) return; // a part of it is still to be typed
  go({ start: typed("start"), end: typed("end"), since: "" });
}

/** Ask for a range three times as long; one open at its end goes to the next longer one of the list. */
function widen() {
  const [start, end] = range();
  if (isAbsolute() && start && end) {
    const more = Math.max(1000, end - start);
    return go({ start: new Date(start - more).toISOString(), end: new Date(end + more).toISOString() });
  }
  const options = [...$("since").options].map((each) => each.value);
  const longer = isAbsolute() ? "all" : options[Math.min(options.indexOf(since()) + 1, options.indexOf("all"))];
  return go({ since: longer, start: "", end: "" });
}

function showZone(name) {
  setZone(name);
  $("zone").textContent = name === "utc" ? "UTC" : "Local";
  $("zone").title = `Times are ${name === "utc" ? "UTC" : "those of this computer"} (u)`;
}

function switchZone() {
  const name = zone() === "utc" ? "local" : "utc";
  try {
    localStorage.setItem("zone", name);
  } catch { /* storage is forbidden: until the page is left */ }
  showZone(name);
  showRange();
}

function keptZone() {
  try {
    return localStorage.getItem("zone") === "utc" ? "utc" : "local";
  } catch {
    return "local";
  }
}

showZone(keptZone());
$("search").addEventListener("submit", search);
$("since").addEventListener("change", chooseRange);
for (const name of ["start", "end"]) $(name).addEventListener("change", typeRange);
$("wider").addEventListener("click", widen);
$("zone").addEventListener("click", switchZone);
$("views").addEventListener("click", (event) => {
  if (!event.target.dataset.view?.length && event.target.dataset.view !== "") return;
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  go({ view: event.target.dataset.view });
});
$("filters").open = matchMedia("(min-width: 50rem)").matches;
for (const part of [results, histogram, patterns, keys]) part.start();
tail.start(say);
onChange(show);
show();
