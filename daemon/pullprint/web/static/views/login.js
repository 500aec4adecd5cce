// `pullprint login` in a terminal asks here whether it is really its user (RFC 8628, section 3.3).

import { ask } from "../api.js";
import { h, onSubmit, problemLine } from "../dom.js";
import { _ } from "../i18n.js";
import { clean } from "../words.js";

export function open(app, main, { query }) {
  const problem = problemLine();
  const field = h("input", { name: "code", type: "text", class: "code", autocomplete: "off", autocapitalize: "characters", spellcheck: "false", maxlength: "64", required: true, value: clean(query.get("code"), 64) });
  const lookUp = h("form", { class: "stack", novalidate: true }, h("label", {}, _("Code from the terminal"), field), h("button", { class: "primary" }, _("Continue")));
  const card = h("section", { class: "panel" }, problem, lookUp);
  main.append(h("div", { class: "narrow" }, h("h1", { tabindex: "-1" }, _("Sign in on another device")),
    h("p", { class: "lead" }, _("Somebody typed “pullprint login” in a terminal, and was shown a code.")), card));
  onSubmit(lookUp, problem, async ({ code }) => {
    if (!code.value.trim()) throw new Error(_("Type the code that the terminal shows."));
    show(await ask("GET", `logins/${encodeURIComponent(code.value.trim())}`));
  });
  if (field.value) lookUp.requestSubmit();

  function show(login) {
    const answer = async (allow) => {
      problem.tell("");
      for (const button of card.querySelectorAll("button")) button.disabled = true;
      try {
        await ask("POST", `logins/${encodeURIComponent(login.code)}`, { allow });
        const text = allow ? _("{account} on {host} is signed in. You can go back to the terminal.", { account: clean(login.account, 60), host: clean(login.host, 60) }) : _("Refused. Nobody was signed in.");
        card.replaceChildren(h("p", { class: "big", role: "status" }, h("bdi", {}, text)), h("div", { class: "buttons" }, h("a", { class: "button", href: "/" }, _("Your jobs"))));
        app.say(text);
      } catch (error) {
        problem.tell(error.message);
        for (const button of card.querySelectorAll("button")) button.disabled = false;
      }
    };
    const heading = h("h2", { tabindex: "-1" }, _("Is this you?"));
    const entry = (term, text) => [h("dt", {}, term), h("dd", {}, h("bdi", {}, clean(text, 80)))];
    card.replaceChildren(heading, problem,
      h("dl", { class: "facts-list big" }, h("div", {}, entry(_("Account"), login.account)), h("div", {}, entry(_("Host"), login.host)),
        login.site && h("div", {}, entry(_("Site"), login.site)), h("div", {}, entry(_("Code"), login.code))),
      h("p", { class: "soft" }, _("Allow it only if you typed the command yourself, and the terminal shows the same code. It can then see, print and delete your jobs.")),
      h("div", { class: "buttons even" },
        h("button", { type: "button", onclick: () => answer(false) }, _("No")),
        h("button", { type: "button", class: "primary", onclick: () => answer(true) }, _("Allow"))));
    heading.focus();
  }
}
