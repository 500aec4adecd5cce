// Who is signed in, where else, and the page's language.

import { ask } from "../api.js";
import { h, problemLine } from "../dom.js";
import { _, language, LANGUAGES, setLanguage } from "../i18n.js";
import { ago, clean, line, now } from "../words.js";

export function open(app, main) {
  const problem = problemLine();
  const list = h("ul", { class: "rows", "aria-label": _("Where you are signed in") });
  const install = h("button", { type: "button", hidden: !app.install, onclick: () => app.install?.prompt() }, _("Install on this device"));
  main.append(
    h("h1", { tabindex: "-1" }, _("Account")),
    h("p", { class: "lead" }, h("bdi", {}, clean(app.session.user, 80)), " · ", h("bdi", {}, clean(app.session.organisation, 80))),
    h("section", { class: "panel", "aria-labelledby": "sessions" }, h("h2", { id: "sessions" }, _("Where you are signed in")), problem, list,
      h("div", { class: "buttons even" },
        h("button", { type: "button", onclick: () => app.signOut("session") }, _("Sign out")),
        h("button", { type: "button", class: "danger", onclick: () => app.signOut("sessions") }, _("Sign out everywhere")))),
    h("section", { class: "panel", "aria-labelledby": "settings" }, h("h2", { id: "settings" }, _("This page")),
      h("label", { class: "choice" }, h("span", {}, _("Language")),
        h("select", { onchange: (event) => setLanguage(event.target.value) },
          Object.entries(LANGUAGES).map(([code, name]) => h("option", { value: code, lang: code, selected: code === language }, name)))),
      h("div", { class: "buttons" }, install)),
    h("p", { class: "foot" }, h("a", { href: "/claim" }, _("Claim a job by its code")), " ", h("a", { href: "/login" }, _("Confirm a sign-in on another device")), " ", h("a", { href: "/site" }, _("Your office"))));
  load();

  async function load() {
    try {
      const sessions = await ask("GET", "sessions");
      problem.tell("");
      list.replaceChildren(...sessions.map(row));
    } catch (error) {
      if (error.status !== 401) problem.tell(error.message);
    }
  }

  function row(session) {
    const name = clean(session.name, 80) || _("Unknown device");
    const end = h("button", { type: "button", class: "quiet", "aria-label": _("Sign out: {name}", { name }), onclick: async () => {
      end.disabled = true;
      try {
        await ask("DELETE", `sessions/${encodeURIComponent(session.id)}`);
        await load();
        main.querySelector("h1").focus();
      } catch (error) {
        end.disabled = false;
        problem.tell(error.message);
      }
    } }, _("Sign out"));
    const kind = session.kind === "account" ? _("Terminal") : session.current ? _("this device") : "";
    return h("li", { class: "session" },
      h("span", { class: "names" }, h("bdi", {}, name),
        h("small", {}, line([kind, session.current ? "" : _("used {when}", { when: ago(now() - session.used) })]))),
      !session.current && end);
  }
}
