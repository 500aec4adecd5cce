// An administrator's link: whoever has it chooses the password of the user that it is for, once, and is signed in.

import { ask, askedEarly } from "../api.js";
import { h, onSubmit, problemLine } from "../dom.js";
import { _ } from "../i18n.js";
import { go } from "../router.js";
import { clean } from "../words.js";
import { NAME } from "./signin.js";

const LEAST = 8;
const USED = "invitation-refused";

/** Ask whose the link is, then show the form, or why there is none; `clear(name)` takes away what was shown before. */
export async function open(app, main, clear) {
  const token = history.state?.token ?? "";
  // What index.html has asked for in advance is nobody's here; a browser complains of what is never taken.
  Promise.allSettled(["session", "jobs"].map(askedEarly));
  const refused = (sentence) => show(h("h1", { tabindex: "-1" }, _("This link does not work any more")),
    h("p", { class: "lead" }, sentence), h("div", { class: "buttons" }, h("a", { class: "button primary", href: "/", target: "_self" }, _("Sign in"))));
  try {
    const { user, organisation } = await ask("POST", "welcome", { token });
    show(h("h1", { tabindex: "-1" }, _("Welcome, {user}", { user: clean(user, 255) })),
      h("p", { class: "lead" }, _("You have an account at {organisation}. Choose a password for it.", { organisation: clean(organisation, 120) })),
      form(app, token, user, refused));
  } catch (error) {
    if (error.code !== USED) throw error;
    refused(error.message);
  }

  function show(...nodes) {
    clear("welcome");
    document.title = `${_("Welcome")} – Pullprint`;
    main.append(h("section", { class: "entry" }, h("img", { src: new URL("../icon.svg", import.meta.url).pathname, alt: "", width: "56", height: "56" }), ...nodes));
    (main.querySelector("[name=password]") ?? main.querySelector("h1")).focus();
  }
}

function form(app, token, user, refused) {
  const problem = problemLine();
  const password = h("input", { type: "password", name: "password", autocomplete: "new-password", required: true, maxlength: "1024", "aria-describedby": "least" });
  const seen = h("input", { type: "checkbox", onchange: () => { password.type = seen.checked ? "text" : "password"; } });
  const node = h("form", { class: "stack", novalidate: true, method: "post" },
    problem,
    // For password managers, which want to know whose password it is.
    h("input", { type: "text", name: "username", autocomplete: "username", value: user, hidden: true }),
    h("div", {}, h("label", {}, _("New password"), password), h("small", { id: "least" }, _("At least {n} characters.", { n: LEAST }))),
    h("label", { class: "switch" }, seen, h("span", {}, _("Show the password"))),
    h("label", { class: "switch" }, h("input", { type: "checkbox", name: "remember", checked: true }), h("span", {}, _("Stay signed in on this device"))),
    h("button", { class: "primary" }, _("Save and sign in")));
  onSubmit(node, problem, async ({ password, remember }) => {
    if ([...password.value].length < LEAST) throw new Error(_("At least {n} characters.", { n: LEAST }));
    try {
      const session = await ask("POST", "welcome/accept", { token, password: password.value, remember: remember.checked });
      password.value = "";
      if (remember.checked) localStorage.setItem(NAME, user);
      else localStorage.removeItem(NAME);
      go("/", { replace: true });
      app.enter(session);
    } catch (error) {
      if (error.code !== USED) throw error;
      refused(error.message);
    }
  });
  return node;
}
