// The list of jobs, always as it is now: one request that parks, and again; back-off while the network is away.

import { ask, Away, Refused } from "./api.js";

const PARK = 25;
const STALE = 30_000;
const FIRST = 1;
const CAP = 30;

export class Live {
  #run = null;
  #poll = null;
  #wake = () => {};
  #asked = 0;

  /** `onList(list)` at every change; `onAway(sentence, seconds)` before each pause; `onBack()` after the last. */
  constructor({ onList, onAway, onBack }) {
    Object.assign(this, { onList, onAway, onBack });
    addEventListener("online", () => this.hurry());
    document.addEventListener("visibilitychange", () => {
      // A phone that slept keeps requests that nobody answers any more.
      if (!document.hidden && Date.now() - this.#asked > STALE) this.hurry();
    });
  }

  start() {
    this.stop();
    this.#run = new AbortController();
    this.#listen(this.#run.signal);
  }

  stop() {
    this.#run?.abort();
    this.#poll?.abort();
    this.#wake();
  }

  /** Do not wait any longer: ask now. */
  hurry() {
    this.#poll?.abort();
    this.#wake();
  }

  async #listen(run) {
    let version = null;
    let ceiling = 0;
    while (!run.aborted) {
      this.#poll = new AbortController();
      this.#asked = Date.now();
      try {
        // The first answer after trouble ends the notice, so it must not park.
        const query = version === null || ceiling ? "" : `?since=${version}&wait=${PARK}`;
        const list = await ask("GET", `jobs${query}`, undefined, { signal: this.#poll.signal, seconds: PARK + 15 });
        if (run.aborted) return;
        if (ceiling) this.onBack();
        ceiling = 0;
        const news = list && list.version !== version;
        if (news) {
          version = list.version;
          this.onList(list);
        } else if (Date.now() - this.#asked < 1000) {
          await this.#sleep(1); // a proxy that does not let requests park
        }
      } catch (error) {
        if (run.aborted) return;
        if (error.name === "AbortError") {
          version = null;
          continue;
        }
        if (error instanceof Refused && error.status === 401) return;
        if (!(error instanceof Away || error instanceof Refused)) throw error;
        ceiling = Math.min(CAP, Math.max(FIRST, ceiling * 2));
        const seconds = ceiling === FIRST ? FIRST : FIRST + Math.random() * (ceiling - FIRST);
        this.onAway(error.message, seconds);
        await this.#sleep(seconds);
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
