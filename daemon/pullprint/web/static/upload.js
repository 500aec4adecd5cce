// A document's way to a node: sealed here, piece by piece (wire/api.py, UploadOffer), and sent as it is.

import { answerOf, ask, Away } from "./api.js";
import { infoOf, join, seal } from "./hpke.js";
import { _ } from "./i18n.js";
import { clean } from "./words.js";

export const PIECE = 1 << 18;
const TITLE = 255;
const TYPES = {
  pdf: "application/pdf", txt: "text/plain", md: "text/plain", csv: "text/csv", rtf: "application/rtf",
  doc: "application/msword", xls: "application/vnd.ms-excel", ppt: "application/vnd.ms-powerpoint",
  docx: "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
  xlsx: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
  pptx: "application/vnd.openxmlformats-officedocument.presentationml.presentation",
  odt: "application/vnd.oasis.opendocument.text", ods: "application/vnd.oasis.opendocument.spreadsheet",
  odp: "application/vnd.oasis.opendocument.presentation",
};

const typeOf = (file) => file.type || TYPES[file.name.split(".").at(-1).toLowerCase()] || "application/octet-stream";

/** The sealed body of `blob` for an offer, as a Blob; `onpiece(share)` from 0 to 1 while it is made. */
export async function sealed(blob, offer, { onpiece = () => {}, signal } = {}) {
  const raw = crypto.getRandomValues(new Uint8Array(32));
  const recipient = Uint8Array.from(atob(offer.public), (letter) => letter.charCodeAt(0));
  const parts = [await seal(recipient, infoOf("upload", offer.id), raw)];
  const key = await crypto.subtle.importKey("raw", raw, "AES-GCM", false, ["encrypt"]);
  raw.fill(0);
  // The last piece is shorter, and may be empty: a document that was cut off at a piece's end is noticed.
  const last = Math.floor(blob.size / PIECE);
  for (let n = 0; n <= last; n++) {
    signal?.throwIfAborted();
    const piece = await blob.slice(n * PIECE, (n + 1) * PIECE).arrayBuffer();
    const number = new Uint8Array(4);
    new DataView(number.buffer).setUint32(0, n);
    const iv = join(new Uint8Array(7), number, [n === last ? 1 : 0]);
    parts.push(new Blob([await crypto.subtle.encrypt({ name: "AES-GCM", iv }, key, piece)]));
    onpiece((n + 1) / (last + 1));
  }
  return new Blob(parts);
}

/** Upload `file`; the new job. `onprogress(share)` from 0 to 1. Throws Refused, Away, AbortError or Error, each with a sentence. */
export async function upload(file, { onprogress, signal }) {
  if (!file.size) throw new Error(_("This file is empty. Nothing was sent."));
  const title = clean(file.name, TITLE).trim() || _("Untitled");
  const offer = await ask("POST", "uploads", { title, content_type: typeOf(file), size: file.size }, { signal });
  if (file.size > offer.limit) throw new Error(_("This document is larger than the {limit} MB that are taken here. Nothing was sent.", { limit: Math.floor(offer.limit / 1e6) }));
  let body;
  try {
    body = await sealed(file, offer, { onpiece: (share) => onprogress(share * 0.2), signal });
  } catch (error) {
    if (signal.aborted) throw error;
    if (error.name === "NotReadableError" || error.name === "NotFoundError") throw new Error(_("This file cannot be read any more; it may have been changed or moved. Choose it again."));
    if (error.name === "NotSupportedError") throw new Error(_("This browser is too old to seal documents. Nothing was sent; use a newer one."));
    throw error;
  }
  return put(`/api/v1/uploads/${offer.id}`, body, (share) => onprogress(0.2 + share * 0.8), signal);
}

/** fetch does not tell how far a body has come. */
function put(address, body, onprogress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const gone = () => reject(new Away(_("The connection was lost. Look at your jobs, and if it is not there, try again.")));
    request.open("PUT", address);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.onprogress = (event) => onprogress(event.loaded / (event.total || 1));
    request.onload = () => {
      try {
        resolve(answerOf(request.status, request.responseText, "PUT uploads"));
      } catch (error) {
        reject(error);
      }
    };
    request.onerror = gone;
    request.ontimeout = gone;
    request.onabort = () => reject(new DOMException("", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}
