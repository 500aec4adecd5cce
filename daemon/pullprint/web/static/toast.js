// Short notices at the thumb: what just happened, and the way back while there is one.

import { h, icon } from "./dom.js";
import { _ } from "./i18n.js";

const SECONDS = 6;

/** Show `text`; with `label` a button that calls `act`. `done` is called when the notice goes without that. */
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
