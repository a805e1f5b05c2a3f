// A panel loads by itself: it shows that it is busy, and what went wrong with a button to try again.

import { button, el } from "./dom.js";

const aboutQuery = (error) => (error.position ?? null) !== null;

/** Run the work for a panel. Returns whether it succeeded; false as well when it was given up for another question.
 *
 * What is wrong with the query is not shown in the panels but at the query, by the one that gives `refused`. */
export async function fill(panel, signal, work, refused = () => {}) {
  clear(panel);
  panel.setAttribute("aria-busy", "true");
  try {
    await work();
    return true;
  } catch (error) {
    if (signal.aborted) return false;
    if (aboutQuery(error)) refused(error);
    else fail(panel, error, () => fill(panel, signal, work, refused));
    return false;
  } finally {
    if (!signal.aborted) panel.removeAttribute("aria-busy");
  }
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
