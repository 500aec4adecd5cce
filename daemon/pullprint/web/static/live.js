// The list of jobs, always as it is now: server-sent events; where something on the way holds those back, one request
// that parks, and again. Back-off while the network is away. EventSource is not used: it hides status and heartbeat.

import { answerOf, ask, Away, ended, Refused, send } from "./api.js";
import { _ } from "./i18n.js";

const PARK = 25;
const FIRST = 1;
const CAP = 30;
const HEARTBEAT = 45_000;
const FIRST_EVENT = 10_000;
const HIDDEN = 60_000;
const EVENT_LIMIT = 16 << 20;

export class Live {
  #run = null;
  #turn = null;
  #wake = () => {};
  #heard = 0;
  #streams = 2;
  #ceiling = 0;

  /** `onList(list)` at every change; `onPrinters()` when one of those has changed; `onAway(sentence, seconds)` before each
   *  pause; `onBack()` after the last. */
  constructor({ onList, onPrinters, onAway, onBack }) {
    Object.assign(this, { onList, onPrinters, onAway, onBack });
    for (const event of ["online", "offline"]) addEventListener(event, () => this.hurry());
    document.addEventListener("visibilitychange", () => {
      // A phone that slept keeps connections that nobody answers any more; a page that nobody sees needs none.
      if (!document.hidden && Date.now() - this.#heard > HEARTBEAT / 2) this.hurry();
      if (document.hidden) setTimeout(() => document.hidden && this.#turn?.abort(), HIDDEN);
    });
  }

  /** Listen, if it is not being done already. */
  start() {
    if (this.#run) return;
    this.#run = new AbortController();
    this.#listen(this.#run.signal);
  }

  stop() {
    this.#run?.abort();
    this.#run = null;
    this.#turn?.abort();
    this.#wake();
  }

  /** Do not wait any longer: ask now. */
  hurry() {
    this.#turn?.abort();
    this.#wake();
  }

  async #listen(run) {
    while (!run.aborted) {
      this.#turn = new AbortController();
      try {
        await (this.#streams ? this.#stream(this.#turn.signal) : this.#poll(this.#turn.signal));
      } catch (error) {
        if (run.aborted) return;
        if (error instanceof Refused && error.status === 401) return this.stop();
        if (error.name === "AbortError") {
          if (document.hidden) await this.#sleep(3600);
          continue;
        }
        if (!(error instanceof Away || error instanceof Refused)) throw error;
        this.#ceiling = Math.min(CAP, Math.max(FIRST, this.#ceiling * 2));
        const seconds = this.#ceiling === FIRST ? FIRST : FIRST + Math.random() * (this.#ceiling - FIRST);
        this.onAway(error.message, seconds);
        await this.#sleep(seconds);
      }
    }
  }

  #take(list) {
    this.#heard = Date.now();
    if (this.#ceiling) this.onBack();
    this.#ceiling = 0;
    this.onList(list);
  }

  /** One stream, to its end. */
  async #stream(signal) {
    let lists = 0;
    let late = false;
    const quiet = new AbortController();
    let timer = setTimeout(() => { late = true; quiet.abort(); }, FIRST_EVENT);
    const beat = () => {
      this.#heard = Date.now();
      if (!lists) return;
      clearTimeout(timer);
      timer = setTimeout(() => quiet.abort(), HEARTBEAT);
    };
    try {
      const read = (r) => (r.ok && r.headers.get("Content-Type")?.startsWith("text/event-stream") ? r.body : r.text());
      const headers = { Accept: "text/event-stream" };
      const stop = AbortSignal.any([signal, quiet.signal]);
      const [response, body] = await send("GET", "events", { signal: stop, seconds: 24 * 3600, headers, read });
      if (typeof body === "string") {
        if (response.status === 404) this.#streams = 0; // a cloud that does not stream
        else answerOf(response.status, body, "GET events");
        return;
      }
      for await (const [event, data] of events(body, beat)) {
        if (event === "ended") {
          ended.dispatchEvent(new Event("ended"));
          throw new Refused(401, "not-signed-in", "");
        }
        if (event === "printers") this.onPrinters();
        if (event !== "jobs") continue;
        this.#take(JSON.parse(data));
        this.#streams = 2;
        lists += 1;
      }
    } catch (error) {
      if (error instanceof Refused || error instanceof Away || signal.aborted) throw error;
      // A proxy that collects answers, or a connection that fell silent; what it is shows the next attempt.
    } finally {
      clearTimeout(timer);
    }
    if (!lists) this.#streams -= late ? 2 : 1;
    if (lists || this.#streams) await this.#sleep(FIRST * (0.2 + Math.random()));
  }

  async #poll(signal) {
    let version = null;
    while (!signal.aborted) {
      const asked = Date.now();
      // The first answer after trouble ends the notice, so it must not park.
      const query = version === null ? "" : `?since=${version}&wait=${PARK}`;
      const list = await ask("GET", `jobs${query}`, undefined, { signal, seconds: PARK + 15 });
      if (!Number.isInteger(list?.version)) throw new Away(_("Pullprint cannot be reached."));
      if (list.version !== version) {
        version = list.version;
        this.#take(list);
      } else if (Date.now() - asked < 1000) {
        await this.#sleep(1); // a proxy that does not let requests park
      }
    }
  }

  #sleep(seconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, seconds * 1000);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/** The events of a stream (HTML, section 9.2.6) as [name, data]; `beat` is called for all that arrives. */
async function* events(body, beat) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    beat();
    rest += value;
    if (rest.length > EVENT_LIMIT) throw new Away(_("Pullprint cannot be reached."));
    const blocks = rest.split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = block.split(/\r?\n/).map((text) => text.split(/: ?(.*)/s, 2));
      const all = (name) => fields.filter(([field]) => field === name).map(([, value]) => value ?? "");
      const [name = "message"] = all("event");
      if (all("data").length) yield [name, all("data").join("\n")];
    }
  }
}
