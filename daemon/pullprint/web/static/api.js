// The cloud's HTTP API (wire/api.py): JSON both ways, a time limit on every request, one sentence for every failure.

import { _, serverText } from "./i18n.js";
import { clean } from "./words.js";

const PATIENCE = 20;
const SENTENCE = 1000;

/** The server said no; `message` is its own sentence. */
export class Refused extends Error {
  constructor(status, code, sentence) {
    super(sentence);
    this.status = status;
    this.code = code;
  }
}

/** Nobody answered, or not our server: worth another try. */
export class Away extends Error {}

/** The session is over: whoever listens to `ended` asks to sign in. */
export const ended = new EventTarget();

const pause = (seconds) => AbortSignal.timeout(seconds * 1000);

/** The response to a request. Throws Away, and AbortError only when `signal` was aborted. */
export async function send(method, path, { body, signal, seconds = PATIENCE, headers = {}, read = (r) => r.text() } = {}) {
  const limit = pause(seconds);
  try {
    const response = await fetch(`/api/v1/${path}`, {
      method,
      headers: method === "GET" ? headers : { "Content-Type": "application/json", ...headers },
      body,
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
      cache: "no-store",
      redirect: "error",
    });
    return [response, await read(response)];
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Away(limit.aborted ? _("Pullprint takes too long to answer.") : _("Pullprint cannot be reached."));
  }
}

/** The JSON value at `path`; throws Refused or Away, and AbortError only when `signal` was aborted. */
export async function ask(method, path, value, options = {}) {
  const body = value === undefined ? undefined : JSON.stringify(value);
  const [response, text] = await send(method, path, { ...options, body });
  return answerOf(response.status, text, `${method} ${path}`);
}

/** What index.html has asked already, while this code was on its way; once. Throws as `ask`. */
export async function askedEarly(path) {
  const response = await fetch(`/api/v1/${path}`).catch(() => null);
  if (!response) return ask("GET", path);
  return answerOf(response.status, await response.text(), `GET ${path}`);
}

/** What an answer says; throws Refused or Away. */
export function answerOf(status, text, request) {
  const value = parse(text);
  if (status >= 200 && status < 300 && (value !== undefined || status === 204)) return value;
  if (typeof value?.sentence !== "string") {
    throw new Away(_("Pullprint cannot be used at the moment (status {status}).", { status }));
  }
  if (status === 401 && request !== "POST session") ended.dispatchEvent(new Event("ended"));
  throw new Refused(status, value.code, clean(serverText(value.sentence), SENTENCE));
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
