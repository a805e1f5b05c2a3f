// Light or dark: as the system has it, or as was chosen here. Not a module, so that it acts before anything is drawn.
"use strict";

{
  const NAMES = { "": "of the system", dark: "dark", light: "light" };
  const root = document.documentElement;

  function theme() {
    try {
      return localStorage.getItem("theme") || "";
    } catch {
      return root.dataset.theme || ""; // storage is forbidden: until the page is left
    }
  }

  function use(name) {
    root.dataset.theme = name;
    try {
      localStorage.setItem("theme", name);
    } catch { /* then it is not kept */ }
  }

  root.dataset.theme = theme();
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = () => button.setAttribute("aria-label", `Colours: ${NAMES[theme()]}`);
    button.title = "Light, dark, or as the system has it (d)";
    button.addEventListener("click", () => {
      const names = Object.keys(NAMES);
      use(names[(names.indexOf(theme()) + 1) % names.length]);
      label();
    });
    label();
  });
}
