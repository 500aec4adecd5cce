// The user's jobs.

import { h, icon } from "../dom.js";
import { _, ngettext } from "../i18n.js";
import { List } from "./list.js";

/** Show it in `main`; what is returned takes it away again. */
export function open(app, main) {
  const list = new List(app, { each: true, print: async (jobs) => (await app.load("print")).open(app, jobs, { done: () => list.pick([]) }) });
  const lead = h("p", { class: "lead" });
  const heading = h("h2", { class: "unseen" }, _("Waiting jobs"));
  const empty = h("div", { class: "empty" },
    h("div", { class: "tray", "aria-hidden": "true" }, h("i"), h("i")),
    h("h2", {}, _("Nothing is waiting")),
    h("p", {}, _("Print as you always do, and choose the printer “pullprint”. The document waits here until you stand at a printer.")),
    h("p", { class: "hint" }, _("In a terminal:"), " ", h("code", {}, "lp -d pullprint report.pdf")));
  const files = h("input", { type: "file", multiple: true, class: "unseen", tabindex: "-1", "aria-hidden": "true", onchange: () => {
    app.upload([...files.files]);
    files.value = "";
  } });
  const earlier = h("section", { "aria-labelledby": "earlier", hidden: true },
    h("div", { class: "row" }, h("h2", { id: "earlier" }, _("Lately")), h("a", { class: "more", href: "/history" }, _("All of the history"))), list.ended);
  main.append(
    h("div", { class: "row title-row" }, h("h1", { tabindex: "-1" }, _("Your jobs")),
      h("button", { type: "button", class: "pill", onclick: () => files.click() }, icon("plus"), _("Add document"))),
    files,
    h("div", { class: "row lead-row" }, lead, list.all),
    app.uploads,
    heading, list.waiting, empty, earlier,
    h("p", { class: "foot" }, _("Is a job missing?"), " ", h("a", { href: "/claim" }, _("Claim it by its code")), ". ", h("a", { href: "/site" }, _("Your office"))));

  const draw = () => {
    if (!app.jobs.known) return;
    const here = app.jobs.waiting.length > 0;
    const waiting = app.jobs.waiting.filter((job) => !app.jobs.isBusy(job)).length;
    list.draw();
    lead.textContent = !waiting ? "" : ngettext("{n} document waits for you.", "{n} documents wait for you.", waiting);
    empty.hidden = here;
    heading.hidden = !here;
    earlier.hidden = list.ended.childElementCount === 0;
    main.classList.remove("waiting");
  };
  main.classList.toggle("waiting", !app.jobs.known);
  app.jobs.addEventListener("change", draw);
  const aging = setInterval(draw, 30_000);
  draw();
  return () => {
    app.jobs.removeEventListener("change", draw);
    clearInterval(aging);
    list.close();
  };
}
