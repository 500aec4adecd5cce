// A job that nobody owns becomes the user's by the code that its sender was shown.

import { ask } from "../api.js";
import { h, onSubmit, problemLine, toast } from "../dom.js";
import { _ } from "../i18n.js";
import { go } from "../router.js";
import { clean, titleOf } from "../words.js";

export function open(app, main, { query }) {
  const problem = problemLine();
  const field = h("input", { name: "code", type: "text", class: "code", placeholder: "7KQ2-M9XD", autocomplete: "off", autocapitalize: "characters", spellcheck: "false", required: true, maxlength: "64", value: clean(query.get("code"), 64) });
  const form = h("form", { class: "stack", novalidate: true }, problem, h("label", {}, _("Claim code"), field), h("button", { class: "primary" }, _("Claim")));
  main.append(h("div", { class: "narrow" }, h("h1", { tabindex: "-1" }, _("Is a job missing?")),
    h("p", { class: "lead" }, _("If it was printed from a computer that does not know you, its sender was shown a code.")),
    h("section", { class: "panel" }, form)));
  onSubmit(form, problem, async ({ code }) => {
    if (!code.value.trim()) throw new Error(_("Type the code that the job’s sender was shown."));
    const job = await ask("POST", "claim", { code: code.value.trim() });
    go("/", { replace: true });
    toast(_("“{title}” is yours now.", { title: titleOf(job, 60) }));
    app.live?.hurry();
  });
}
