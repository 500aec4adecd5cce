// The print sheet: where, and how.

import { ask } from "../api.js";
import { h, icon, problemLine, toast } from "../dom.js";
import { _, ngettext } from "../i18n.js";
import { nameOf } from "../jobs.js";
import { sheet } from "../sheet.js";
import { clean, titleOf } from "../words.js";
import { choices } from "./choices.js";
import { aboutPrinter, lastUsed, picker, remember, standing } from "./printers.js";
import { canScan, scan } from "./scan.js";

const SHOWN = 3;

/** Open it for `jobs`; `printer` is known where somebody stands in front of it. */
export function open(app, jobs, { printer = null, done = () => {} } = {}) {
  let printers = [];
  let form = null;
  const uncertain = jobs.filter((job) => job.state === "uncertain");
  const problem = problemLine();
  const where = h("div", { class: "where" }, h("p", { class: "soft" }, _("Looking for printers…")));
  const how = h("div");
  const go = h("button", { type: "button", class: "primary", onclick: send }, uncertain.length ? _("Print again") : _("Print"));
  const what = h("ul", { class: "what" },
    jobs.slice(0, SHOWN).map((job) => h("li", {}, h("bdi", {}, titleOf(job, 80)))),
    jobs.length > SHOWN && h("li", { class: "soft" }, ngettext("and {n} more", "and {n} more", jobs.length - SHOWN)));
  const warning = uncertain.length > 0 && h("p", { class: "warning" }, _("Look at the printer first: {jobs} may have come out already, and would be printed a second time.", { jobs: nameOf(uncertain) }));
  const node = sheet(ngettext("Print {n} job", "Print {n} jobs", jobs.length), [what, warning, where, how], { foot: [problem, go], kind: "print" });
  if (printer) use(printer);
  else find();

  async function find() {
    go.disabled = true;
    try {
      await load();
      const direct = same(jobs.map((job) => job.direct_printer));
      const known = lastUsed().map((id) => printers.find((each) => each.id === id)).find(Boolean);
      const first = printers.find((each) => direct && each.name === direct) ?? known ?? (printers.length === 1 ? printers[0] : null);
      if (first) use(first);
      else choose();
    } catch (error) {
      where.replaceChildren();
      problem.tell(error.message);
    }
  }

  async function load() {
    printers = await ask("GET", "printers");
  }

  function use(next) {
    printer = next;
    go.disabled = false;
    problem.tell("");
    form = choices(jobs, printer);
    where.replaceChildren(
      h("div", { class: "chosen" }, icon("printer"),
        h("div", { class: "names" }, h("strong", {}, h("bdi", {}, clean(printer.name, 80))), h("small", {}, h("bdi", {}, clean(printer.place, 80)))),
        h("button", { type: "button", class: "quiet", onclick: choose }, _("Change"))),
      standing(printer));
    how.replaceChildren(form.node, aboutPrinter(printer));
  }

  async function choose() {
    if (!printers.length) await load().catch((error) => problem.tell(error.message));
    go.disabled = !printer;
    how.replaceChildren();
    where.replaceChildren(picker(printers, printer, {
      onpick: (next) => {
        use(next);
        where.querySelector("button").focus();
      },
      scan: canScan() && (() => scan(app, (id) => {
        const found = printers.find((each) => each.id === id);
        if (found) use(found);
        else problem.tell(_("This printer is not known here. Choose another one; your jobs are still held."));
      })),
    }));
    if (matchMedia("(hover: hover)").matches) where.querySelector("input").focus();
  }

  async function send() {
    let changes;
    problem.tell("");
    try {
      changes = form.changes();
    } catch (error) {
      return problem.tell(error.message);
    }
    go.disabled = true;
    remember(printer.id);
    const refusals = await app.jobs.release(jobs, printer.id, changes);
    go.disabled = false;
    const started = jobs.filter((job) => !refusals.has(job.id));
    if (!started.length) return problem.tell([...new Set(refusals.values())].join(" "));
    node.dismiss();
    done();
    toast(_("{jobs} on the way to {printer}.", { jobs: nameOf(started), printer: clean(printer.name, 60) }));
  }
}

const same = (values) => (new Set(values).size === 1 ? values[0] : undefined);
