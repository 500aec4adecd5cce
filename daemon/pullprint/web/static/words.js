// What people read: text from outside made harmless, states, facts and times in plain words.

const LIMIT = 255;
// The same as base.text.printable: controls, and marks that make a title read as something else (Unicode TR 36).
const UNSAFE = /[\p{Cc}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;

/** `text` on one line of at most `limit` characters. */
export function clean(text, limit = LIMIT) {
  const letters = Array.from(String(text ?? "").slice(0, 2 * limit + 2));
  const cut = letters.length > limit ? `${letters.slice(0, limit - 1).join("")}…` : letters.join("");
  return cut.replace(/[\t\r\n]/g, " ").replace(UNSAFE, "\ufffd");
}

export const ENDED = new Set(["done", "cancelled", "expired"]);
export const BUSY = new Set(["prepared", "committed", "sending"]);

const STATES = {
  receiving: ["Arriving", "busy"],
  held: ["Ready", "held"],
  prepared: ["Starting", "busy"],
  committed: ["Starting", "busy"],
  sending: ["Printing", "busy"],
  uncertain: ["Uncertain", "doubt"],
  done: ["Printed", "done"],
  cancelled: ["Deleted", "past"],
  expired: ["Expired", "past"],
};

/** A state's word and the tone that it is shown in. */
export const stateOf = (job) => STATES[job.state] ?? [clean(job.state, 20), "past"];

const SIDES = { "one-sided": "one-sided", "two-sided-long-edge": "two-sided", "two-sided-short-edge": "two-sided" };
const COLOURS = { color: "colour", monochrome: "black and white" };
// Drivers' words for the same, as in model/ticket.py.
const DRIVER = {
  Duplex: ["sides", { None: "one-sided", DuplexNoTumble: "two-sided-long-edge", DuplexTumble: "two-sided-short-edge" }],
  ColorModel: ["print-color-mode", { Gray: "monochrome", Grayscale: "monochrome", KGray: "monochrome", RGB: "color", CMYK: "color" }],
};

function chosen(job, attribute) {
  let found;
  for (const [name, value] of job.ticket.options) {
    const [meant, values] = DRIVER[name] ?? [name, {}];
    if (meant === attribute) found = values[value] ?? value;
  }
  return found;
}

export const sidesOf = (job) => SIDES[chosen(job, "sides")];
export const colourOf = (job) => COLOURS[chosen(job, "print-color-mode")];

const count = (number, one, many) => `${number} ${number === 1 ? one : many}`;

/** Pages, options, origin and age, on one line. */
export function factsOf(job, now) {
  const pages = job.facts?.pages;
  return [
    pages ? count(pages, "page", "pages") : sizeOf(job.size),
    job.ticket.copies > 1 ? `${job.ticket.copies} copies` : "",
    sidesOf(job),
    colourOf(job),
    job.host ? `from ${clean(job.host, 40)}` : "",
    ago(now - job.created),
  ].filter(Boolean).join("\u00a0· ");
}

function sizeOf(bytes) {
  const units = ["bytes", "KB", "MB", "GB"];
  let step = 0;
  for (; bytes >= 1000 && step < 3; step++) bytes /= 1000;
  return `${Math.round(bytes)} ${units[step]}`;
}

const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

function ago(seconds) {
  if (seconds < 60) return "just now";
  for (const [unit, length] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    if (seconds >= length) return relative.format(-Math.floor(seconds / length), unit);
  }
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

/** A moment, with its day if that is not today. */
export function moment(seconds, now) {
  const at = new Date(seconds * 1000);
  if (Number.isNaN(at.valueOf())) return "";
  return (at.toDateString() === new Date(now * 1000).toDateString() ? clock : day).format(at);
}
