// The hosts of the user's office that keep documents, and which of them are awake.

import { ask } from "../api.js";
import { h, problemLine } from "../dom.js";
import { _, ngettext } from "../i18n.js";
import { clean, line } from "../words.js";

const EVERY = 15_000;
const ROLES = { super: () => _("always on"), client: () => _("comes and goes") };

export function open(app, main) {
  const problem = problemLine();
  const lead = h("p", { class: "lead", role: "status" }, _("One moment…"));
  const sites = h("div", { class: "sites" });
  main.append(
    h("h1", { tabindex: "-1" }, _("Your office")), lead, problem, sites,
    h("p", { class: "foot" }, _("Each document is kept on several of these hosts, sealed. Two of them that are awake are enough to print it.")));
  let gone = false;
  const timer = setInterval(() => !document.hidden && load(), EVERY);
  load();
  return () => {
    gone = true;
    clearInterval(timer);
  };

  async function load() {
    try {
      const found = await ask("GET", "mesh");
      if (gone) return;
      problem.tell("");
      const nodes = found.flatMap((site) => site.nodes);
      const awake = nodes.filter((node) => node.awake).length;
      tell(nodes.length ? ngettext("{awake} of {n} host is awake.", "{awake} of {n} hosts are awake.", nodes.length, { awake }) : _("No host has joined yet."));
      sites.replaceChildren(...found.filter((site) => site.nodes.length).map((site) => panel(site, found.length > 1)));
    } catch (error) {
      if (!gone && error.status !== 401) problem.tell(error.message);
    }
  }

  /** What has not changed is not told again by a screen reader. */
  function tell(text) {
    if (lead.textContent !== text) lead.textContent = text;
  }
}

function panel(site, several) {
  const name = clean(site.site, 80);
  return h("section", { class: "panel", "aria-label": name },
    several && h("h2", {}, h("bdi", {}, name)),
    h("ul", { class: "rows" }, site.nodes.map(row)));
}

function row(node) {
  const [tone, word] = node.awake ? ["done", _("awake")] : ["past", _("away")];
  return h("li", { class: "session", "data-tone": tone },
    h("span", { class: "mark", "aria-hidden": "true" }),
    h("span", { class: "names" }, h("bdi", {}, clean(node.name, 80)), h("small", {}, line([word, ROLES[node.role]?.()]))));
}
