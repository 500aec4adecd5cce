// A printer's QR code, read in the page where the browser can; elsewhere the phone's own camera app does it.

import { h, problemLine } from "../dom.js";
import { _ } from "../i18n.js";
import { match } from "../router.js";
import { sheet } from "../sheet.js";

const EVERY = 200;

export const canScan = () => "BarcodeDetector" in globalThis && Boolean(navigator.mediaDevices?.getUserMedia);

/** `onprinter(id)` once a printer's code was seen; the camera is off again by then. */
export async function scan(app, onprinter) {
  let stream = null;
  let timer;
  const problem = problemLine();
  const video = h("video", { muted: true, autoplay: true, playsinline: "", "aria-label": _("What the camera sees") });
  const node = sheet(_("Scan the printer’s code"), [
    h("div", { class: "finder" }, video), h("p", { class: "soft" }, _("Hold the code on the printer into the frame.")), problem,
  ], { kind: "scan", onclose: stop });

  function stop() {
    clearTimeout(timer);
    for (const track of stream?.getTracks() ?? []) track.stop();
    stream = null;
  }

  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    if (!node.isConnected) return stop();
    video.srcObject = stream;
    await video.play();
    look(new BarcodeDetector({ formats: ["qr_code"] }));
  } catch {
    problem.tell(_("The camera cannot be used. Allow it in the browser’s settings, or point your phone’s camera app at the code."));
  }

  async function look(detector) {
    const codes = await detector.detect(video).catch(() => []);
    if (!stream) return;
    for (const { rawValue } of codes) {
      const address = URL.canParse(rawValue) ? new URL(rawValue) : null;
      const view = address?.origin === location.origin ? match(address.pathname) : null;
      if (view?.name === "here") {
        stop();
        node.dismiss();
        return onprinter(view.id);
      }
      problem.tell(_("This is not the code of a printer of yours."));
    }
    timer = setTimeout(() => look(detector), EVERY);
  }
}
