// The page's words in the reader's language: gettext's catalogue, made of locale/*.po by cloud/page.py.
// Texts are literals in double quotes, so that tests/web/texts.py finds them; `_` is called when they are shown.

const KEPT = "pullprint-language";
export const LANGUAGES = { en: "English", de: "Deutsch" };

const wanted = [localStorage.getItem(KEPT), ...navigator.languages];
export const language = wanted.map((tag) => tag?.slice(0, 2).toLowerCase()).find((tag) => tag in LANGUAGES) ?? "en";
/** For dates and numbers: the reader's own region where it is one of this language. */
export const locale = navigator.languages.find((tag) => tag.startsWith(language)) ?? language;

let catalogue = {};
let sentences = null;

document.documentElement.lang = language;

/** Resolves when `_` knows the language; in English where the catalogue cannot be had. */
export const ready = language === "en" ? Promise.resolve() : Promise.all([load(""), load(".sentences"), import("./sentences.js")])
  .then(([page, daemons, { Sentences }]) => {
    catalogue = page;
    sentences = new Sentences(Object.entries(daemons));
  });

function load(part) {
  return fetch(new URL(`${language}${part}.json`, import.meta.url))
    .then((answer) => (answer.ok ? answer.json() : {}))
    .catch(() => ({}));
}

const fill = (text, values) => text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);

/** The translation of `text`, with `{names}` filled in. */
export function _(text, values = {}) {
  return fill(catalogue[text] ?? text, values);
}

/** One or many; `{n}` is the number. English and German agree on what is one. */
export function ngettext(one, many, n, values = {}) {
  const forms = catalogue[one] ?? [one, many];
  return fill(forms[n === 1 ? 0 : 1], { n: new Intl.NumberFormat(locale).format(n), ...values });
}

/** What a daemon wrote, in English, as it is shown. */
export const serverText = (text) => sentences?.say(text) ?? text;

/** Show the page in `code` from now on, on this device. */
export function setLanguage(code) {
  localStorage.setItem(KEPT, code);
  location.reload();
}

/** Translate what index.html says itself. */
export function translatePage() {
  for (const node of document.querySelectorAll("[data-i18n]")) node.textContent = _(node.textContent.trim());
}
