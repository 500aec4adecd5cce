// Signing in: the page's only door. When a session ends in the middle, it opens over what was being done.

import { ask } from "../api.js";
import { h, onSubmit, problemLine } from "../dom.js";
import { _ } from "../i18n.js";
import { clean } from "../words.js";

export const NAME = "pullprint-name";

/** The form; `onin(session)` once somebody is signed in. `reason` says why it is there. */
export function form(onin, { reason = "", name = localStorage.getItem(NAME) ?? "" } = {}) {
  const problem = problemLine();
  const text = { type: "text", autocapitalize: "none", spellcheck: "false" };
  const user = h("input", { ...text, name: "name", autocomplete: "username", required: true, maxlength: "255", value: name });
  const password = h("input", { type: "password", name: "password", autocomplete: "current-password", required: true, maxlength: "1024" });
  const several = h("details", {}, h("summary", {}, _("I belong to several organisations")),
    h("label", {}, _("Organisation’s short name"), h("input", { ...text, name: "organisation", autocomplete: "organization", maxlength: "64" })));
  const node = h("form", { class: "stack", novalidate: true, method: "post" },
    problem,
    h("label", {}, _("Name"), user),
    h("label", {}, _("Password"), password),
    h("label", { class: "switch" }, h("input", { type: "checkbox", name: "remember", checked: true }), h("span", {}, _("Stay signed in on this device"))),
    several,
    h("button", { class: "primary" }, _("Sign in")));
  problem.tell(reason);
  onSubmit(node, problem, async ({ name, password, organisation, remember }) => {
    if (!name.value.trim() || !password.value) throw new Error(_("Type your name and your password."));
    const body = { name: name.value.trim(), password: password.value, organisation: organisation.value.trim(), remember: remember.checked };
    try {
      const session = await ask("POST", "session", body);
      password.value = "";
      if (remember.checked) localStorage.setItem(NAME, body.name);
      else localStorage.removeItem(NAME);
      onin(session);
    } catch (error) {
      if (error.code === "which-organisation") several.open = true;
      throw error;
    }
  });
  setTimeout(() => (user.value ? password : user).focus());
  return node;
}

/** The whole page is the form. */
export function open(app, main) {
  main.append(h("section", { class: "entry", "aria-labelledby": "entry-title" },
    h("img", { src: new URL("../icon.svg", import.meta.url).pathname, alt: "", width: "56", height: "56" }),
    h("h1", { id: "entry-title", tabindex: "-1" }, _("Sign in")),
    h("p", { class: "lead" }, _("Your documents wait here, sealed, until you stand at a printer.")),
    form((session) => app.enter(session))));
}

/** Over what is shown, which stays as it is for the same person. */
export function over(app, user) {
  const id = "over-title";
  const node = h("dialog", { class: "over", "aria-labelledby": id, closedby: "none", oncancel: (event) => event.preventDefault() },
    h("section", { class: "entry" }, h("h1", { id }, _("Sign in again")),
      form((session) => {
        node.remove();
        app.enter(session);
      }, { reason: _("Your session has ended. Sign in again; your jobs are still held."), name: clean(user, 255) })));
  node.addEventListener("close", () => node.isConnected && node.showModal());
  document.body.append(node);
  node.showModal();
}
