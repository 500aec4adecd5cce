// A sheet over the page: from below on a phone, at the side on a desk. The browser's own <dialog> keeps the focus inside.

import { h, icon } from "./dom.js";
import { _ } from "./i18n.js";
import { opened } from "./router.js";

let count = 0;

/** Open a sheet with `title` and `content`; `onclose` is called once. The dialog has `dismiss()`. */
export function sheet(title, content, { foot, onclose, kind = "" } = {}) {
  const id = `sheet-${++count}`;
  const heading = h("h2", { id, tabindex: "-1", autofocus: true }, title);
  const node = h("dialog", { class: `sheet ${kind}`, "aria-labelledby": id },
    h("header", {}, heading,
      h("button", { type: "button", class: "quiet square", "aria-label": _("Close"), onclick: () => node.dismiss() }, icon("close"))),
    h("div", { class: "content" }, content),
    foot && h("footer", {}, foot));
  let closed = () => {};
  node.dismiss = () => node.open && node.close();
  node.addEventListener("close", () => {
    closed();
    onclose?.();
    node.remove();
  }, { once: true });
  // A press on what is behind it.
  node.addEventListener("pointerdown", (event) => {
    const box = node.getBoundingClientRect();
    const inside = event.clientX >= box.left && event.clientX <= box.right && event.clientY >= box.top && event.clientY <= box.bottom;
    if (event.target === node && !inside) node.dismiss();
  });
  document.body.append(node);
  const opener = document.activeElement;
  node.showModal();
  closed = opened(() => node.dismiss());
  // The opener may have been drawn anew or be gone.
  node.addEventListener("close", () => setTimeout(() => {
    if (document.activeElement !== document.body) return;
    (opener?.isConnected && opener.checkVisibility() ? opener : document.getElementById("main")).focus();
  }), { once: true });
  return node;
}
