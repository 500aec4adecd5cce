// What may be changed before printing: only what this printer can do, and never more than was asked to change.

import { h, icon } from "../dom.js";
import { _, ngettext } from "../i18n.js";
import { chosen, colourOf, colourText, mediaText, sidesText } from "../words.js";

const PAGES = /^\d{1,6}(-\d{0,6})?$/;

/** «1-3, 5» as IPP's page-ranges; throws an Error with a sentence. `pages` is how many there are, 0 where unknown. */
export function pageRanges(text, pages) {
  const wrong = new Error(_("Write pages like this: 1-3, 5."));
  const ranges = text.split(/[,;]/).map((part) => part.replace(/\s+/g, "").replace(/[–—]/g, "-")).map((part) => {
    if (!PAGES.test(part)) throw wrong;
    const [first, last] = part.split("-");
    const end = last === undefined ? Number(first) : last === "" ? pages || Number(first) : Number(last);
    return [Number(first), end];
  }).sort(([a], [b]) => a - b);
  const merged = [];
  for (const [first, last] of ranges) {
    if (first < 1 || last < first) throw wrong;
    if (pages && last > pages) throw new Error(ngettext("It has only {n} page.", "It has only {n} pages.", pages));
    const before = merged.at(-1);
    if (before && first <= before[1] + 1) before[1] = Math.max(before[1], last);
    else merged.push([first, last]);
  }
  return merged.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(",");
}

const same = (jobs, valueOf) => {
  const values = new Set(jobs.map(valueOf));
  return values.size === 1 ? [...values][0] : undefined;
};

/** What these jobs ask for and this printer cannot do, as sentences. */
export function losses(jobs, { can }) {
  if (!can) return [];
  const found = [];
  const wants = (attribute, test) => jobs.some((job) => test(chosen(job, attribute)));
  if (can.color === false && jobs.some((job) => colourOf(job) === "color")) found.push(_("This printer has no colour: it comes out in shades of grey."));
  if (can.sides.length && wants("sides", (side) => side && !can.sides.includes(side))) found.push(_("This printer does not print both sides: it takes more sheets."));
  if (can.media.length && wants("media", (name) => name?.includes("_") && !can.media.includes(name))) found.push(_("This printer does not have the paper size that was asked for."));
  return found;
}

/** A form part for `jobs` on `printer`; `changes()` are IPP names and values, or it throws an Error with a sentence. */
export function choices(jobs, printer) {
  const can = printer.can;
  const parts = [];
  const read = [];
  if (can?.copies > 1) parts.push(copiesPart(jobs, can.copies, read));
  const sides = can?.sides.filter((value) => sidesText(value)) ?? [];
  if (sides.length > 1) {
    parts.push(pills(_("Sides"), "sides", same(jobs, (job) => chosen(job, "sides")), sides.map((value) => [value, sidesText(value)]), read));
  }
  if (can?.color) {
    parts.push(pills(_("Colour"), "print-color-mode", same(jobs, (job) => chosen(job, "print-color-mode")),
      ["color", "monochrome"].map((value) => [value, colourText(value)]), read));
  }
  if (can?.page_ranges && jobs.length === 1) parts.push(pagesPart(jobs[0], read));
  if (can?.media.length > 1) parts.push(mediaPart(jobs, can.media, read));
  if (!parts.length) parts.push(h("p", { class: "soft" }, _("Everything is printed as it was sent.")));
  return {
    node: h("div", { class: "choices" }, losses(jobs, printer).map((text) => h("p", { class: "warning" }, text)), parts),
    changes: () => Object.assign({}, ...read.map((each) => each())),
  };
}

function copiesPart(jobs, most, read) {
  const sent = same(jobs, (job) => job.ticket.copies);
  const field = h("input", { type: "text", inputmode: "numeric", maxlength: "4", "aria-label": _("Copies"), value: sent ?? "", placeholder: "–", autocomplete: "off" });
  const step = (by) => {
    field.value = Math.min(most, Math.max(1, (Number(field.value) || 1) + by));
  };
  const button = (shape, words, by) => h("button", { type: "button", class: "square", "aria-label": words, onclick: () => step(by) }, icon(shape));
  read.push(() => {
    const text = field.value.trim();
    if (!text && sent === undefined) return {};
    if (!/^[1-9]\d{0,3}$/.test(text) || Number(text) > most) {
      field.focus();
      throw new Error(_("Choose between 1 and {most} copies.", { most }));
    }
    return Number(text) === sent ? {} : { copies: text };
  });
  return h("div", { class: "choice" }, h("span", { "aria-hidden": "true" }, _("Copies")),
    h("div", { class: "stepper" }, button("minus", _("Fewer copies"), -1), field, button("plus", _("More copies"), 1)));
}

function pills(title, name, sent, values, read) {
  const known = values.some(([value]) => value === sent);
  const option = (value, text, checked) => h("label", { class: "pill-choice" }, h("input", { type: "radio", name, value, checked }), h("span", {}, text));
  const node = h("fieldset", { class: "choice" }, h("legend", {}, title),
    h("div", { class: "pills" }, !known && option("", _("as sent"), true), values.map(([value, text]) => option(value, text, value === sent))));
  read.push(() => {
    const value = node.querySelector("input:checked").value;
    return value && value !== sent ? { [name]: value } : {};
  });
  return node;
}

function pagesPart(job, read) {
  const sent = chosen(job, "page-ranges") ?? "";
  const pages = job.facts?.pages ?? 0;
  const field = h("input", { type: "text", inputmode: "text", placeholder: pages ? `1-${pages}` : _("all"), value: sent, autocomplete: "off", maxlength: "200" });
  read.push(() => {
    const text = field.value.trim();
    if (text === sent) return {};
    try {
      return { "page-ranges": text ? pageRanges(text, pages) : `1-${pages || 999999}` };
    } catch (error) {
      field.focus();
      throw error;
    }
  });
  return h("label", { class: "choice" }, h("span", {}, _("Pages")), field);
}

function mediaPart(jobs, media, read) {
  const sent = same(jobs, (job) => chosen(job, "media"));
  const field = h("select", {}, h("option", { value: "" }, sent ? _("as sent: {what}", { what: mediaText(sent) }) : _("as sent")),
    media.filter((name) => name !== sent).map((name) => h("option", { value: name }, mediaText(name))));
  read.push(() => (field.value ? { media: field.value } : {}));
  return h("label", { class: "choice" }, h("span", {}, _("Paper")), field);
}
