// Elements from data: text is always text, never markup.

import { _ } from "./i18n.js";

/** `<tag>` with properties, attributes and `on…` listeners of `props`, and `children`, of which falsy ones are left out. */
export function h(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean" && name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.flat().filter(Boolean));
  return node;
}

const SVG = "http://www.w3.org/2000/svg";
const SHAPES = {
  jobs: "M7 3h7l5 5v13H7zM14 3v5h5M10 13h6M10 17h4",
  history: "M12 7v5l3.5 2M4.5 12a7.5 7.5 0 1 0 2.6-5.7M4 4v4h4",
  person: "M12 12.5a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4.5 20.5c.8-3.6 3.8-5 7.5-5s6.7 1.4 7.5 5",
  scan: "M4 8V5a1 1 0 0 1 1-1h3M16 4h3a1 1 0 0 1 1 1v3M20 16v3a1 1 0 0 1-1 1h-3M8 20H5a1 1 0 0 1-1-1v-3M8 8h3v3H8zM14 8h2v2h-2zM8 14h2v2H8zM14 14h2v2h-2z",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l.8 12.5h8.4L17 7M10.5 11v5M13.5 11v5",
  close: "M6 6l12 12M18 6L6 18",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  star: "M12 4l2.5 5.2 5.7.8-4.1 4 1 5.7-5.1-2.7-5.1 2.7 1-5.7-4.1-4 5.7-.8z",
  printer: "M7 9V4h10v5M7 17H4.5v-6a2 2 0 0 1 2-2h11a2 2 0 0 1 2 2v6H17M7 14h10v6H7z",
  check: "M5 12.5l4.5 4.5L19 7.5",
  next: "M9.5 6l6 6-6 6",
  warn: "M12 4.5l8.5 15h-17zM12 10v4.5M12 17v.2",
  search: "M10.5 17a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13zM15.5 15.5L20 20",
};

/** A line drawing, for the eye only. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", SHAPES[name]);
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("icon");
  svg.append(path);
  return svg;
}

/** Put `nodes` into `parent` in this order; those that are there already stay the same elements, with focus and all. */
export function arrange(parent, nodes) {
  const wanted = new Set(nodes);
  for (const node of [...parent.children]) if (!wanted.has(node)) node.remove();
  nodes.forEach((node, n) => {
    if (parent.children[n] !== node) parent.insertBefore(node, parent.children[n] ?? null);
  });
}

/** A line for what went wrong, empty until `tell(text)`. */
export function problemLine() {
  const line = h("p", { class: "problem", role: "alert", hidden: true });
  line.tell = (text) => {
    line.textContent = text;
    line.hidden = !text;
  };
  return line;
}

/** Run `work(elements)` when `form` is sent, once at a time; what it throws is told in `line`. */
export function onSubmit(form, line, work) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button:not([type=button])");
    if (button.disabled) return;
    button.disabled = true;
    line.tell("");
    try {
      await work(form.elements);
    } catch (error) {
      line.tell(error.message);
    } finally {
      button.disabled = false;
    }
  });
}

const SECONDS = 6;

/** A short notice at the thumb: what just happened, and the way back while there is one. Show `text`; with `label` a button that calls `act`. `done` is called when the notice goes without that. */
export function toast(text, { seconds = SECONDS, label, act, done } = {}) {
  let timer;
  const leave = (after) => {
    clearTimeout(timer);
    if (!node.isConnected) return;
    if (node.contains(document.activeElement)) document.getElementById("main").focus();
    node.remove();
    after?.();
  };
  // Whoever is about to press the button has all the time that it takes (WCAG 2.2, 2.2.1).
  const start = () => {
    clearTimeout(timer);
    timer = setTimeout(() => leave(done), seconds * 1000);
  };
  const stay = () => clearTimeout(timer);
  const node = h("div", { class: "toast", role: "status", onpointerenter: stay, onpointerleave: start, onfocusin: stay, onfocusout: start },
    h("p", {}, h("bdi", {}, text)),
    label && h("button", { type: "button", class: "quiet", onclick: () => leave(act) }, label),
    h("button", { type: "button", class: "quiet square", "aria-label": _("Close"), onclick: () => leave(done) }, icon("close")));
  // A dialog makes everything outside it inert.
  const host = [...document.querySelectorAll("dialog[open]")].at(-1) ?? document.getElementById("toasts");
  host.append(node);
  start();
  return () => leave(done);
}
