// Printers: how they stand, what they can do, which of them this device likes.

import { h, icon } from "../dom.js";
import { _ } from "../i18n.js";
import { clean, line, mediaText, sentenceOf } from "../words.js";

const LAST = "pullprint-last-printers";
const STARS = "pullprint-favourites";
const MANY = 8;

function read(key) {
  try {
    const ids = JSON.parse(localStorage.getItem(key) ?? "[]");
    return Array.isArray(ids) ? ids.filter((id) => typeof id === "string") : [];
  } catch {
    return [];
  }
}
const write = (key, ids) => localStorage.setItem(key, JSON.stringify(ids));

export const lastUsed = () => read(LAST);
export const remember = (id) => write(LAST, [id, ...read(LAST).filter((other) => other !== id)].slice(0, MANY));
export const isFavourite = (id) => read(STARS).includes(id);
const flip = (id) => write(STARS, isFavourite(id) ? read(STARS).filter((other) => other !== id) : [...read(STARS), id]);

/** A line on whether it can print now. */
export function standing(printer) {
  const [tone, text] = printer.trouble
    ? ["bad", sentenceOf(printer.trouble)]
    : { true: ["done", _("Ready")], false: ["doubt", _("It does not answer at the moment. You may print all the same; the job stays held if it fails.")] }[printer.ready]
      ?? ["past", _("Nobody has asked it yet how it is.")];
  return h("p", { class: "standing", "data-tone": tone }, h("span", { class: "mark", "aria-hidden": "true" }), h("bdi", {}, text));
}

/** What it says of itself, on one line. */
export function abilities({ can }) {
  if (!can) return "";
  return line([
    can.color === true && _("colour"),
    can.color === false && _("black and white"),
    can.sides.some((side) => side.startsWith("two-sided")) && _("two-sided"),
    can.media.slice(0, 4).map(mediaText).join(", "),
  ]);
}

/** Its details one press further: what it can do, its code, its sign to print out. */
export function aboutPrinter(printer) {
  const sign = (kind) => h("a", { class: "button", href: `/api/v1/printers/${printer.id}/sign.${kind}`, target: "_blank", rel: "noopener" }, kind.toUpperCase());
  return h("details", { class: "about" },
    h("summary", {}, _("About this printer")),
    h("dl", {},
      abilities(printer) && [h("dt", {}, _("It can")), h("dd", {}, abilities(printer))],
      printer.site && [h("dt", {}, _("Site")), h("dd", {}, h("bdi", {}, clean(printer.site, 80)))],
      printer.code && [h("dt", {}, _("Short code")), h("dd", {}, h("code", {}, clean(printer.code, 20)))],
      h("dt", {}, _("Sign with its QR code")), h("dd", { class: "buttons" }, sign("pdf"), sign("png"), sign("svg"))));
}

/** Printers to choose from: `onpick(printer)`; the chosen one is marked. */
export function picker(printers, current, { onpick, scan }) {
  const groups = h("div", { class: "groups" });
  const none = h("p", { class: "soft", role: "status" });
  const field = h("input", { type: "search", placeholder: _("Name, place or code"), "aria-label": _("Search printers"), autocomplete: "off", oninput: draw });
  const item = (printer) => {
    const liked = isFavourite(printer.id);
    const name = clean(printer.name, 80);
    return h("li", {},
      h("button", { type: "button", class: "printer", "aria-pressed": String(printer.id === current?.id), onclick: () => onpick(printer) },
        h("span", { class: "dot", "data-tone": printer.trouble ? "bad" : printer.ready ? "done" : "past" }),
        h("span", { class: "names" }, h("bdi", {}, name),
          h("small", {}, h("bdi", {}, line([clean(printer.place, 80), printer.trouble ? sentenceOf(printer.trouble) : abilities(printer)])))),
        h("code", {}, clean(printer.code, 20))),
      h("button", { type: "button", class: "quiet square star", "aria-pressed": String(liked), "aria-label": _("Favourite: {name}", { name }), onclick: () => {
        flip(printer.id);
        draw();
        [...groups.querySelectorAll(".star")].find((star) => star.dataset.id === printer.id)?.focus();
      }, "data-id": printer.id }, icon("star")));
  };
  function draw() {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (printer) => words.every((word) => `${printer.name} ${printer.place} ${printer.code} ${printer.site}`.toLowerCase().includes(word));
    const left = new Set(printers.filter(fits));
    const parts = [];
    const group = (title, wanted) => {
      const found = wanted.filter((printer) => left.delete(printer));
      if (found.length) parts.push(h("section", {}, title && h("h3", {}, title), h("ul", { class: "printers" }, found.map(item))));
    };
    const byId = (ids) => ids.map((id) => printers.find((printer) => printer.id === id)).filter(Boolean);
    group(_("Last used"), byId(lastUsed().slice(0, 1)));
    group(_("Favourites"), printers.filter((printer) => isFavourite(printer.id)));
    const sites = [...new Set([...left].map((printer) => printer.site))].sort((a, b) => a.localeCompare(b));
    for (const site of sites) group(clean(site, 80) || (parts.length ? _("All printers") : ""), [...left].filter((printer) => printer.site === site).sort((a, b) => a.name.localeCompare(b.name)));
    groups.replaceChildren(...parts);
    none.textContent = parts.length ? "" : printers.length ? _("No printer fits this search.") : _("There is no printer to choose yet. Your job stays held.");
  }
  draw();
  return h("div", { class: "picker" },
    h("div", { class: "search" }, icon("search"), field,
      scan ? h("button", { type: "button", onclick: scan }, icon("scan"), _("Scan code")) : ""),
    groups, none,
    !scan && h("p", { class: "soft hint" }, _("At a printer, point your phone’s camera at the code on it.")));
}
