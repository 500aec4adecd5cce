// The cloud's HTTP API (wire/api.py): JSON both ways, a time limit on every request, one sentence for every failure.

const PATIENCE = 20;

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

/** The session is over: whoever listens to `ended` shows the sign-in form. */
export const ended = new EventTarget();

const pause = (seconds) => AbortSignal.timeout(seconds * 1000);

/** The JSON value at `path`; throws Refused or Away, and AbortError only when `signal` was aborted. */
export async function ask(method, path, body, { signal, seconds = PATIENCE } = {}) {
  const limit = pause(seconds);
  let response, text;
  try {
    response = await fetch(`api/v1/${path}`, {
      method,
      headers: method === "GET" ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
      cache: "no-store",
      redirect: "error",
    });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Away(limit.aborted ? "Pullprint takes too long to answer." : "Pullprint cannot be reached.");
  }
  const value = parse(text);
  if (response.ok && (value !== undefined || response.status === 204)) return value;
  if (typeof value?.sentence !== "string") {
    throw new Away(`Pullprint cannot be used at the moment (status ${response.status}).`);
  }
  if (response.status === 401 && !(method === "POST" && path === "session")) ended.dispatchEvent(new Event("ended"));
  throw new Refused(response.status, value.code, value.sentence);
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
