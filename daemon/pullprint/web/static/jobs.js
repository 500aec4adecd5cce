// The user's jobs as the server tells them, and what has been asked of them meanwhile. Views listen to `change`.

import { ask } from "./api.js";
import { toast } from "./dom.js";
import { _, ngettext } from "./i18n.js";
import { BUSY, ENDED, now, stateOf, storyOf, titleOf } from "./words.js";

const UNDO = 6;
/** Seconds after which an order that nobody took up is over (wire/order.py: 60, and the way). */
const ORDER_LIFE = 75;

export class Jobs extends EventTarget {
  #views = new Map();
  #asked = new Map();
  #problems = new Map();
  #removed = new Set();
  #leaving = new Set();
  known = false;

  constructor(say) {
    super();
    this.say = say;
    // What was deleted a moment ago is deleted, also when the page is closed before the time for Undo is over.
    addEventListener("pagehide", () => {
      for (const id of this.#leaving) {
        fetch(`/api/v1/jobs/${id}`, { method: "DELETE", headers: { "Content-Type": "application/json" }, keepalive: true });
      }
      this.#leaving.clear();
    });
  }

  get all() {
    return [...this.#views.values()].filter((job) => !this.#removed.has(job.id));
  }

  get waiting() {
    return this.all.filter((job) => !ENDED.has(job.state));
  }

  /** Those that ended lately, the last one first. */
  get ended() {
    return [...this.#views.values()].filter((job) => ENDED.has(job.state)).sort((a, b) => (b.ended ?? 0) - (a.ended ?? 0));
  }

  get(id) {
    return this.#views.get(id);
  }

  /** The server's whole list. */
  receive(list) {
    const news = [];
    const before = this.#views;
    this.#views = new Map(list.jobs.map((job) => [job.id, job]));
    for (const job of list.jobs) {
      const old = before.get(job.id);
      this.#settle(job, old);
      const removed = this.#removed.has(job.id);
      if (removed && ENDED.has(job.state)) this.#removed.delete(job.id);
      if (!removed && this.known && old?.state !== job.state) news.push(this.#newsOf(job, old));
    }
    this.known = true;
    this.#changed();
    if (news.length) this.say(news.slice(0, 3).join(" "));
  }

  /** The answer to a change of one job; the list may have brought something newer, then the list is right. */
  patch(job, before) {
    if (this.#views.get(job.id) === before) this.#views.set(job.id, job);
    this.#changed();
  }

  /** A word for what was asked of a job and has not begun; undefined when nothing was. */
  asked(id) {
    return this.#asked.get(id)?.word;
  }

  /** Why the last thing that was asked was refused. */
  problem(id) {
    return this.#problems.get(id) ?? "";
  }

  canPrint(job) {
    return (job.state === "held" || job.state === "uncertain") && !this.asked(job.id);
  }

  isBusy(job) {
    return BUSY.has(job.state) || job.state === "receiving" || Boolean(this.asked(job.id));
  }

  /** Print them there, in this order; the refusals' sentences by job. What is said to be wanted again is what `jobs` said of
   *  themselves when their owner saw them, not what has happened since. */
  async release(jobs, printer, changes) {
    const refusals = new Map();
    for (const { id, state, doubtful } of jobs) {
      const again = state === "uncertain";
      const body = { printer, changes, again, doubtful: again ? doubtful : undefined };
      const sentence = await this.#change(id, _("Starting"), "POST", `jobs/${id}/release`, body);
      if (sentence) refusals.set(id, sentence);
    }
    return refusals;
  }

  settle(id) {
    return this.#change(id, _("Noting"), "POST", `jobs/${id}/settle`, {});
  }

  /** Take jobs away at once, delete them when the time for Undo is over. */
  remove(jobs) {
    const ids = jobs.map((job) => job.id);
    for (const id of ids) {
      this.#removed.add(id);
      this.#leaving.add(id);
    }
    this.#changed();
    const text = jobs.length === 1
      ? _("“{title}” is deleted.", { title: titleOf(jobs[0], 60) })
      : ngettext("{n} job is deleted.", "{n} jobs are deleted.", jobs.length);
    toast(text, {
      seconds: UNDO,
      label: _("Undo"),
      act: () => {
        this.#restore(ids);
        this.say(_("Nothing was deleted."));
      },
      done: () => ids.filter((id) => this.#leaving.has(id)).forEach((id) => this.#delete(id)),
    });
  }

  /** What was deleted is deleted now, without waiting whether it is undone. */
  async finish() {
    await Promise.all([...this.#leaving].map((id) => this.#delete(id)));
  }

  /** Somebody else is here now. */
  forget() {
    for (const held of [this.#views, this.#asked, this.#problems, this.#removed, this.#leaving]) held.clear();
    this.known = false;
  }

  async #delete(id) {
    this.#leaving.delete(id);
    try {
      this.patch(await ask("DELETE", `jobs/${id}`), this.get(id));
    } catch (error) {
      if (this.get(id)) this.#problem(id, error.message);
      this.#restore([id]);
      if (error.status !== 401) toast(error.message);
    }
  }

  #restore(ids) {
    for (const id of ids) {
      this.#removed.delete(id);
      this.#leaving.delete(id);
    }
    this.#changed();
  }

  async #change(id, word, method, path, body) {
    const before = this.get(id);
    this.#problem(id, "");
    this.#asked.set(id, { word });
    this.#changed();
    try {
      const job = await ask(method, path, body);
      const waits = this.get(id) === before && job.state === before.state;
      if (waits) this.#asked.set(id, { word, sentence: job.sentence, until: now() + ORDER_LIFE });
      else this.#asked.delete(id);
      this.patch(job, before);
      setTimeout(() => this.#settle(this.get(id)) && this.#changed(), ORDER_LIFE * 1000 + 500);
      return "";
    } catch (error) {
      this.#asked.delete(id);
      const text = error.status === 401 ? "" : error.message;
      this.#problem(id, text);
      this.#changed();
      return error.status === 401 ? _("Sign in again; your jobs are still held.") : text;
    }
  }

  /** What was asked is over once the job says something else; true when it just was. */
  #settle(job, old) {
    const asked = job && this.#asked.get(job.id);
    if (old && old.state !== job.state) this.#problems.delete(job.id);
    if (!asked?.until) return false;
    const over = asked.until < now() || (old && old.state !== job.state) || job.sentence !== asked.sentence;
    return over && this.#asked.delete(job.id);
  }

  #problem(id, text) {
    if (text) this.#problems.set(id, text);
    else this.#problems.delete(id);
  }

  #newsOf(job, old) {
    const text = `${titleOf(job, 60)}: ${stateOf(job)[0]}. ${storyOf(job)}`.trim();
    return old ? text : _("New: {job}", { job: text });
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** «3 jobs» or a job's title, for a sentence about them. */
export const nameOf = (jobs) => (jobs.length === 1 ? `“${titleOf(jobs[0], 60)}”` : ngettext("{n} job", "{n} jobs", jobs.length));

