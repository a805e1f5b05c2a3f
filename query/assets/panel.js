// A panel loads by itself: it shows that it is busy, for how long already, and what went wrong with a button to try again.

import { button, el } from "./dom.js";

const aboutQuery = (error) => (error.position ?? null) !== null;

/** Run the work for a panel. Returns whether it succeeded; false as well when it was given up for another question.
 *
 * What is wrong with the query is not shown in the panels but at the query, by the one that gives `refused`. */
export async function fill(panel, signal, work, refused = () => {}) {
  clear(panel);
  ready(panel);
  panel.setAttribute("aria-busy", "true");
  const clock = setInterval(tell, 1000, panel, performance.now());
  try {
    await work();
    return true;
  } catch (error) {
    if (signal.aborted) return false;
    if (aboutQuery(error)) refused(error);
    else fail(panel, error, () => fill(panel, signal, work, refused));
    return false;
  } finally {
    clearInterval(clock);
    if (!signal.aborted) ready(panel);
  }
}

function tell(panel, began) {
  if (panel.hasAttribute("aria-busy")) panel.dataset.waits = `${Math.round((performance.now() - began) / 1000)} s`;
}

/** Say that what a panel shows is what was asked for, even if its work goes on. */
export function ready(panel) {
  panel.removeAttribute("aria-busy");
  delete panel.dataset.waits;
}

/** Show a failure in the panel, in place of one that was shown before. */
export function fail(panel, error, again) {
  clear(panel);
  panel.prepend(el("div", { class: "failed", role: "alert" }, el("span", {}, error.message), button("Try again", again)));
}

/** Say in the panel that its answer is not whole. */
export function incomplete(panel, missing) {
  if (missing) panel.prepend(el("div", { class: "failed", role: "alert" }, `Not all records could be read: ${missing}`));
}

export function clear(panel) {
  panel.querySelectorAll(":scope > .failed").forEach((each) => each.remove());
}
