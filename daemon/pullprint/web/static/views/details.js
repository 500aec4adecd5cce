// One job, closely: its picture, its facts, and its way as a line that a person understands.

import { ask } from "../api.js";
import { h, problemLine } from "../dom.js";
import { _ } from "../i18n.js";
import { sheet } from "../sheet.js";
import { copyDots } from "./list.js";
import { chosen, clean, clock, copiesOf, ENDED, endOf, exactly, factsOf, line, mediaText, moment, sentenceOf, sizeOf, stateOf, storyOf, titleOf } from "../words.js";

export async function open(app, id, known) {
  let turn = 0;
  const job = () => app.jobs.get(id) ?? known;
  const picture = h("div", { class: "thumb large", "aria-hidden": "true" }, h("i"), h("i"), h("i"), h("i"));
  const facts = h("dl", { class: "facts-list" });
  const story = h("p", {}, h("bdi"));
  const way = h("ol", { class: "way-line", "aria-label": _("What happened to it") });
  const problem = problemLine();
  const change = () => {
    draw();
    load();
  };
  const remove = h("button", { type: "button", class: "quiet", onclick: () => {
    node.dismiss();
    app.jobs.remove([job()]);
  } }, _("Delete"));
  const settle = h("button", { type: "button", onclick: () => app.jobs.settle(id) }, _("It came out"));
  const node = sheet(titleOf(job(), 120), [story, h("div", { class: "face" }, picture, facts), h("h3", {}, _("What happened to it")), problem, way], {
    foot: [remove, settle],
    kind: "details",
    onclose: () => app.jobs.removeEventListener("change", change),
  });
  app.jobs.addEventListener("change", change);
  change();

  function draw() {
    const view = job();
    const can = app.jobs.canPrint(view);
    remove.hidden = !can;
    settle.hidden = !can || view.state !== "uncertain";
    if (view.picture) app.pictures.show(id, picture);
    story.firstElementChild.textContent = storyOf(view);
    story.hidden = !storyOf(view);
    const entry = (term, text, ...more) => text && h("div", {}, h("dt", {}, term), h("dd", {}, h("bdi", {}, text), ...more));
    const holders = (view.holders ?? []).map((name) => clean(name, 60)).join(", ");
    facts.replaceChildren(...[
      entry(_("State"), stateOf(view)[0]),
      entry(_("Document"), factsOf(view)),
      entry(_("Paper"), chosen(view, "media") && mediaText(chosen(view, "media"))),
      entry(_("Size"), sizeOf(view.size)),
      entry(_("Sent"), line([moment(view.created), clean(view.submitter, 40), clean(view.host, 40)])),
      entry(_("Held by"), !ENDED.has(view.state) && (holders || clean(view.node, 60))),
      entry(_("Sealed copies"), !ENDED.has(view.state) && copiesOf(view), copyDots(view)),
      entry(_("Kept until"), !ENDED.has(view.state) && moment(view.expires)),
      entry(_("Ended"), ENDED.has(view.state) && endOf(view)),
    ].filter(Boolean));
  }

  async function load() {
    const mine = ++turn;
    try {
      const steps = await ask("GET", `jobs/${id}/trace`);
      if (mine !== turn) return;
      problem.tell("");
      const opened = new Set([...way.querySelectorAll("details")].flatMap((each, n) => (each.open ? [n] : [])));
      way.replaceChildren(...steps.map((step, n) => stepOf(step, opened.has(n))));
    } catch (error) {
      if (error.status !== 401) problem.tell(error.message);
    }
  }
}

function stepOf(step, open) {
  const detail = [["event", step.event], ["host", step.host], ["time", exactly(step.at)], ...Object.entries(step.detail ?? {})];
  return h("li", {},
    h("time", { datetime: Number.isFinite(step.at) ? new Date(step.at * 1000).toISOString() : "" }, clock(step.at)),
    h("details", { open },
      h("summary", {}, h("bdi", {}, sentenceOf(step.text) || clean(step.event, 60))),
      h("dl", {}, detail.map(([name, value]) => [h("dt", {}, clean(name, 60)), h("dd", {}, h("bdi", {}, clean(value, 500)))]).flat())));
}
