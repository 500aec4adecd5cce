// What the daemons say, in the reader's language. They say it in English, with names filled in; each sentence is
// recognised by its template, and what was filled in is put into the other language's.

// What is filled in for these is a sentence of a daemon again; anything else is somebody's name for something.
const SAID = new Set(["reason", "sentence", "trouble", "what"]);
const FIELD = /\{(\w*)\}/;
const escape = (text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");

function compile([english, translated]) {
  const parts = english.split(/\{(\w*)\}/);
  const literals = parts.filter((_, n) => n % 2 === 0);
  const names = parts.filter((_, n) => n % 2 === 1);
  const pattern = literals.map(escape);
  return {
    names,
    translated,
    weight: literals.join("").length,
    whole: new RegExp(`^${pattern.join("([^]*?)")}$`),
    start: new RegExp(`^${pattern.join("([^]*?)")}(?= |$)`),
  };
}

export class Sentences {
  /** `pairs` are [English, translated], with {names}. */
  constructor(pairs) {
    // The one with most words of its own first: others may fit as well, with more of them taken for a name.
    this.templates = pairs.map(compile).sort((a, b) => b.weight - a.weight);
  }

  /** `text`, one or several sentences, translated as far as it is known. */
  say(text, depth = 2) {
    const whole = this.#fit(text, "whole");
    if (whole) return this.#fill(whole, depth);
    const said = [];
    for (let rest = text; rest;) {
      const found = this.#fit(rest, "start");
      const end = found ? found.match[0].length : unknownEnd(rest);
      said.push(found ? this.#fill(found, depth) : rest.slice(0, end));
      rest = rest.slice(end).trimStart();
    }
    return said.join(" ");
  }

  #fit(text, how) {
    for (const template of this.templates) {
      const match = template[how].exec(text);
      if (match) return { template, match };
    }
    return null;
  }

  #fill({ template, match }, depth) {
    const values = new Map();
    template.names.forEach((name, n) => {
      const value = match[n + 1];
      const list = values.get(name) ?? [];
      list.push(depth && SAID.has(name) ? this.say(value, depth - 1) : value);
      values.set(name, list);
    });
    const pieces = template.translated.split(FIELD);
    return pieces.map((piece, n) => (n % 2 ? values.get(piece)?.shift() ?? "" : piece)).join("");
  }
}

function unknownEnd(text) {
  const end = text.search(/[.!?”] /);
  return end < 0 ? text.length : end + 1;
}
