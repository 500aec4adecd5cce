// What was printed, where, when and how many pages; each with its way one press further.

import { ask } from "../api.js";
import { h, problemLine } from "../dom.js";
import { _ } from "../i18n.js";
import { clean, clock, dayText, line, outText, stateOf, titleOf } from "../words.js";

export function open(app, main) {
  const days = h("div", { class: "days" });
  const problem = problemLine();
  const more = h("button", { type: "button", onclick: load, hidden: true }, _("Show earlier ones"));
  const lead = h("p", { class: "lead", role: "status" }, _("One moment…"));
  let next = "";
  let shown = 0;
  let list = null;
  let day = "";
  main.append(h("h1", { tabindex: "-1" }, _("History")), lead, days, problem, h("div", { class: "row middle" }, more));
  load();

  async function load() {
    more.disabled = true;
    problem.tell("");
    try {
      const page = await ask("GET", `history${next ? `?before=${encodeURIComponent(next)}` : ""}`);
      for (const job of page.jobs) add(job);
      next = page.next;
      shown += page.jobs.length;
      lead.textContent = shown ? _("What was printed, deleted or expired.") : _("Nothing has been printed yet.");
    } catch (error) {
      if (error.status !== 401) problem.tell(error.message);
    }
    more.hidden = !next;
    more.disabled = false;
  }

  function add(job) {
    const at = job.ended ?? job.created;
    const name = dayText(at);
    if (name !== day) {
      day = name;
      list = h("ul", { class: "rows" });
      days.append(h("section", {}, h("h2", {}, day), list));
    }
    const [word, tone] = stateOf(job);
    list.append(h("li", { "data-tone": tone },
      h("button", { type: "button", class: "entry-row", onclick: async () => (await app.load("details")).open(app, job.id, job) },
        h("span", { class: "mark", "aria-hidden": "true" }),
        h("span", { class: "names" }, h("bdi", {}, titleOf(job, 120)),
          h("small", {}, h("bdi", {}, line([word, clean(job.printer, 60), outText(job)])))),
        h("time", {}, clock(at)))));
  }

  // What has just ended belongs to the top: begin anew.
  const known = new Set(app.jobs.ended.map((job) => job.id));
  const change = () => {
    const fresh = app.jobs.ended.filter((job) => !known.has(job.id));
    if (!fresh.length || !app.jobs.known) return;
    for (const job of fresh) known.add(job.id);
    days.replaceChildren();
    [next, shown, day] = ["", 0, ""];
    load();
  };
  app.jobs.addEventListener("change", change);
  return () => app.jobs.removeEventListener("change", change);
}
