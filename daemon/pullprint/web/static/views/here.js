// A printer's own page, which its QR code opens: two presses from the code to paper.

import { ask } from "../api.js";
import { h, problemLine, toast } from "../dom.js";
import { _, ngettext } from "../i18n.js";
import { nameOf } from "../jobs.js";
import { clean } from "../words.js";
import { List } from "./list.js";
import { aboutPrinter, remember, standing } from "./printers.js";

/** So many jobs are all meant; of more, the newest. */
const FEW = 3;

export function open(app, main, { id }) {
  let printer = null;
  let chose = false;
  const sent = new Set();
  const choose = async (jobs) => (await app.load("print")).open(app, jobs, {
    printer,
    done: () => {
      for (const job of jobs) sent.add(job.id);
      list.pick([]);
    },
  });
  const print = async (jobs) => {
    if (!printer || jobs.some((job) => job.state === "uncertain")) return choose(jobs);
    remember(printer.id);
    for (const job of jobs) sent.add(job.id);
    list.pick([]);
    const refusals = await app.jobs.release(jobs, printer.id, {});
    const started = jobs.filter((job) => !refusals.has(job.id));
    if (started.length) toast(_("{jobs} on the way to {printer}.", { jobs: nameOf(started), printer: clean(printer.name, 60) }));
    if (refusals.size) app.say([...refusals.values()][0]);
  };
  const options = h("button", { type: "button", onclick: () => choose(list.picked) }, _("Options"));
  const list = new List(app, { print, before: [options], ended: (job) => sent.has(job.id), verb: (jobs) => (jobs.length === 1 ? _("Print") : ngettext("Print {n} job", "Print {n} jobs", jobs.length)) });
  const heading = h("h1", { tabindex: "-1" }, h("bdi", {}, _("One moment…")));
  const place = h("p", { class: "lead" });
  const how = h("div", { class: "how" });
  const problem = problemLine();
  const none = h("p", { class: "empty-line", hidden: true }, _("Nothing of yours is waiting. Print something to the queue “pullprint”; it shows up here by itself."));
  main.append(
    h("p", { class: "kicker" }, _("Print here")), heading, place, problem, how,
    h("div", { class: "row lead-row" }, h("h2", {}, _("Your jobs")), list.all),
    list.waiting, list.ended, none,
    h("p", { class: "foot" }, h("a", { href: "/" }, _("Print somewhere else"))));

  const preselect = () => {
    if (chose || !printer || !app.jobs.known) return;
    chose = true;
    const held = app.jobs.waiting.filter((job) => job.state === "held" && app.jobs.canPrint(job));
    list.pick((held.length <= FEW ? held : held.slice(0, 1)).map((job) => job.id));
  };
  const draw = () => {
    if (!app.jobs.known) return;
    preselect();
    list.draw();
    none.hidden = app.jobs.waiting.length > 0 || sent.size > 0;
  };
  const find = async () => {
    try {
      printer = await ask("GET", `printers/${id}`);
      heading.firstElementChild.textContent = clean(printer.name, 80);
      place.textContent = clean(printer.place, 80);
      how.replaceChildren(standing(printer), aboutPrinter(printer));
      document.title = `${clean(printer.name, 60)} – Pullprint`;
      draw();
    } catch (error) {
      if (error.status === 404) {
        heading.firstElementChild.textContent = _("This printer is not known here");
        problem.tell(_("Its code may be old, or belong to another organisation. Choose another printer; your jobs are still held."));
      } else if (error.status !== 401) {
        heading.firstElementChild.textContent = _("Print here");
        problem.tell(error.message);
        problem.append(" ", h("button", { type: "button", onclick: () => (problem.tell(""), find()) }, _("Try now")));
      }
    }
  };
  app.jobs.addEventListener("change", draw);
  app.printers.addEventListener("change", find);
  find();
  draw();
  return () => {
    app.jobs.removeEventListener("change", draw);
    app.printers.removeEventListener("change", find);
    list.close();
  };
}
