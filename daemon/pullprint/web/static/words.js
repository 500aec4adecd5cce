// What people read: text from outside made harmless, states, facts and times in plain words.

import { _, locale, ngettext, serverText } from "./i18n.js";

const LIMIT = 255;
// The same as base.text.printable: controls, and marks that make a title read as something else (Unicode TR 36).
const UNSAFE = /[\p{Cc}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;

/** `text` on one line of at most `limit` characters. */
export function clean(text, limit = LIMIT) {
  const letters = Array.from(String(text ?? "").slice(0, 2 * limit + 2));
  const cut = letters.length > limit ? `${letters.slice(0, limit - 1).join("")}…` : letters.join("");
  return cut.replace(/[\t\r\n]/g, " ").replace(UNSAFE, "\ufffd");
}

/** Seconds since the epoch. */
export const now = () => Date.now() / 1000;

export const titleOf = (job, limit) => clean(job.title, limit).trim() || _("Untitled");
/** A server's sentence, safe to show. */
export const sentenceOf = (text) => clean(serverText(text ?? ""), 1000);

export const ENDED = new Set(["done", "cancelled", "expired"]);
export const BUSY = new Set(["prepared", "committed", "sending"]);
/** What a job without a story says; the page shows as much without words. */
const PLAIN = "Release it at a printer.";

/** A state's word and the tone that it is shown in. */
export function stateOf(job) {
  if (job.state === "held" && job.trouble) return [_("Not printed"), "bad"];
  return {
    receiving: [_("Arriving"), "busy"],
    held: [_("Ready"), "held"],
    prepared: [_("Starting"), "busy"],
    committed: [_("Starting"), "busy"],
    sending: [_("Printing"), "busy"],
    uncertain: [_("Uncertain"), "doubt"],
    done: [_("Printed"), "done"],
    cancelled: [_("Deleted"), "past"],
    expired: [_("Expired"), "past"],
  }[job.state] ?? [clean(job.state, 20), "past"];
}

/** What a card says below its facts; empty for a job that just waits. */
export const storyOf = (job) => (job.state === "held" && job.sentence === PLAIN ? "" : sentenceOf(job.sentence));

/** How many hosts hold it, and how many of those are awake; empty where nobody knows. */
export const copiesOf = ({ copies, awake }) => (copies ? ngettext("{n} copy, {awake} awake", "{n} copies, {awake} awake", copies, { awake }) : "");

// Drivers' words for IPP's, as in model/ticket.py.
const DRIVER = {
  Duplex: ["sides", { None: "one-sided", DuplexNoTumble: "two-sided-long-edge", DuplexTumble: "two-sided-short-edge" }],
  ColorModel: ["print-color-mode", { Gray: "monochrome", Grayscale: "monochrome", KGray: "monochrome", RGB: "color", CMYK: "color" }],
  PageSize: ["media", { A3: "iso_a3_297x420mm", A4: "iso_a4_210x297mm", A5: "iso_a5_148x210mm", Letter: "na_letter_8.5x11in", Legal: "na_legal_8.5x14in", Tabloid: "na_ledger_11x17in", Executive: "na_executive_7.25x10.5in" }],
};

/** The value that the ticket has for an IPP attribute, also in a driver's words; undefined without one. */
export function chosen(job, attribute) {
  let found;
  for (const [name, value] of job.ticket.options) {
    const [meant, values] = DRIVER[name] ?? [name, {}];
    if (meant === attribute) found = values[value] ?? value;
  }
  return found;
}

export function sidesText(value) {
  return {
    "one-sided": _("one-sided"),
    "two-sided-long-edge": _("two-sided"),
    "two-sided-short-edge": _("two-sided, short edge"),
  }[value] ?? "";
}

export const colourText = (value) => ({ color: _("colour"), monochrome: _("black and white") })[value] ?? "";

/** Whether it comes out in colour on a colour printer: IPP's word, undefined where nobody knows. */
export function colourOf(job) {
  const wish = chosen(job, "print-color-mode");
  const counted = job.facts?.color_pages;
  if (wish === "monochrome" || counted === 0) return "monochrome";
  return counted ? "color" : undefined;
}

/** Pages that are asked for: those of page-ranges (RFC 8011, 5.2.7), without them all; undefined where nobody counted. */
export function pagesOf(job) {
  const all = job.facts?.pages ?? undefined;
  const ranges = chosen(job, "page-ranges");
  if (!all || !ranges) return all;
  const wanted = ranges.split(",").reduce((sum, range) => {
    const [first, last = first] = range.split("-").map(Number);
    return sum + Math.max(0, Math.min(last, all) - first + 1);
  }, 0);
  return wanted > 0 && wanted < all ? wanted : all;
}

/** Pages of a job that ended: as the printer counted, or as was asked for where it counts none; 0 where none came out. */
const pagesOut = (job) => job.printed || (job.state === "done" && pagesOf(job)) || 0;

/** How many pages came out, in words; empty for none. */
export function outText(job) {
  const pages = pagesOut(job);
  return pages ? ngettext("{n} page", "{n} pages", pages) : "";
}

/** Sheets of paper: several pages on one side and both sides of a sheet, as the ticket asks for. */
export function sheetsOf(job) {
  const pages = pagesOf(job);
  if (!pages) return undefined;
  const onOneSide = Number(chosen(job, "number-up")) || 1;
  const sides = chosen(job, "sides")?.startsWith("two-sided") ? 2 : 1;
  return Math.ceil(pages / (onOneSide * sides)) * job.ticket.copies;
}

/** Pages, copies, sides, sheets and colour, on one line. */
export function factsOf(job) {
  const all = job.facts?.pages;
  const pages = pagesOf(job);
  const sheets = sheetsOf(job);
  const some = pages !== all && ngettext("{some} of {n} page", "{some} of {n} pages", all, { some: pages });
  return line([
    some || (pages ? ngettext("{n} page", "{n} pages", pages) : sizeOf(job.size)),
    job.ticket.copies > 1 && ngettext("{n} copy", "{n} copies", job.ticket.copies),
    sidesText(chosen(job, "sides")),
    sheets && sheets !== pages && ngettext("{n} sheet", "{n} sheets", sheets),
    colourText(colourOf(job)),
  ]);
}

/** Age, expiry and where it waits, on one line. */
export function waitOf(job) {
  const node = clean(job.node, 40);
  const host = clean(job.host, 40);
  return line([
    ago(now() - job.created) + (host && host !== node ? ` ${_("from {host}", { host })}` : ""),
    node && _("on {host}", { host: node }),
    !ENDED.has(job.state) && untilText(job.expires),
  ]);
}

/** When, where and how much, of a job that ended. */
export function endOf(job) {
  const printer = clean(job.printer, 60);
  return line([
    moment(job.ended ?? job.created),
    printer,
    outText(job),
  ]);
}

/** Parts of one line; a line breaks after the dot, never before it. */
export const line = (parts) => parts.filter(Boolean).join("\u00a0· ");

export function sizeOf(bytes) {
  const units = ["B", "kB", "MB", "GB"];
  let step = 0;
  for (; bytes >= 1000 && step < 3; step++) bytes /= 1000;
  return `${new Intl.NumberFormat(locale, { maximumFractionDigits: bytes < 10 && step ? 1 : 0 }).format(bytes)}\u00a0${units[step]}`;
}

const relative = new Intl.RelativeTimeFormat(locale, { numeric: "auto" });

export function ago(seconds) {
  if (seconds < 60) return _("just now");
  const [unit, length] = [["day", 86400], ["hour", 3600], ["minute", 60]].find(([, size]) => seconds >= size);
  return relative.format(-Math.floor(seconds / length), unit);
}

const dayOf = (at) => new Date(at).toDateString();
const format = (options) => {
  const style = new Intl.DateTimeFormat(locale, options);
  return (seconds) => {
    const at = new Date(seconds * 1000);
    return Number.isNaN(at.valueOf()) ? "" : style.format(at);
  };
};
export const clock = format({ hour: "2-digit", minute: "2-digit" });
export const exactly = format({ dateStyle: "medium", timeStyle: "medium" });
const dayAndClock = format({ day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const dayName = format({ weekday: "long", day: "numeric", month: "long" });

/** A moment, with its day if that is not today. */
export const moment = (seconds) => (dayOf(seconds * 1000) === dayOf(Date.now()) ? clock : dayAndClock)(seconds);

/** «Today», «Yesterday» or the day's name. */
export function dayText(seconds) {
  const days = { [dayOf(Date.now())]: _("Today"), [dayOf(Date.now() - 86_400_000)]: _("Yesterday") };
  return days[dayOf(seconds * 1000)] ?? dayName(seconds);
}

function untilText(expires) {
  const left = expires - now();
  if (left < 60) return _("about to expire");
  if (left < 3600) return ngettext("expires in {n} minute", "expires in {n} minutes", Math.floor(left / 60));
  const day = dayOf(expires * 1000);
  if (day === dayOf(Date.now())) return _("kept until {time}", { time: clock(expires) });
  if (day === dayOf(Date.now() + 86_400_000)) return _("kept until tomorrow, {time}", { time: clock(expires) });
  return _("kept until {time}", { time: dayAndClock(expires) });
}

const MEDIA = {
  iso_a3: "A3", iso_a4: "A4", iso_a5: "A5", iso_a6: "A6", iso_b4: "B4", iso_b5: "B5", jis_b4: "B4 (JIS)", jis_b5: "B5 (JIS)",
  na_letter: "Letter", na_legal: "Legal", na_ledger: "Ledger", na_executive: "Executive", na_invoice: "Statement",
  "iso_dl": "DL", "iso_c5": "C5", "na_number-10": "No. 10",
};

/** A paper's name as people call it: PWG 5101.1 names in plain words. */
export function mediaText(name) {
  const [authority, size, measure] = name.split("_");
  const known = MEDIA[`${authority}_${size}`];
  if (known) return known;
  const measures = measure?.replace("x", " × ").replace(/(mm|in)$/, " $1");
  // Names such as index-4x6 say nothing that the measures do not.
  const word = measures && /\dx\d/.test(size) ? "" : (size ?? authority).replaceAll("-", " ");
  return clean([word, measures].filter(Boolean).join(", "), 60);
}
