// Pictures of first pages: they come sealed to a key that lives as long as this page view, and are opened here.

import { ask } from "./api.js";

const AT_ONCE = 32;
const GATHER = 50;
/** Seconds after which a picture that could not be had is asked for again: its node may have woken up. */
const AGAIN = [4, 15, 60];
const NONCE = 12;

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const base64 = (raw) => btoa(String.fromCharCode(...raw));

export class Pictures {
  #addresses = new Map();
  #places = new Map();
  #wanted = new Set();
  #tries = new Map();
  #timer = 0;
  #key = null;

  /** Put the picture of job `id` into `place` as soon as there is one. */
  show(id, place) {
    if (this.#addresses.has(id)) return this.#put(place, this.#addresses.get(id));
    const places = this.#places.get(id) ?? new Set();
    this.#places.set(id, places.add(place));
    if (!this.#tries.has(id)) this.#want(id, 0);
  }

  #want(id, tries) {
    this.#tries.set(id, tries);
    this.#wanted.add(id);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#fetch(), GATHER);
  }

  async #fetch() {
    const jobs = [...this.#wanted].slice(0, AT_ONCE);
    for (const id of jobs) this.#wanted.delete(id);
    if (this.#wanted.size) this.#timer = setTimeout(() => this.#fetch(), GATHER);
    try {
      const { newKey } = await import("./hpke.js");
      this.#key ??= await newKey();
      const pictures = await ask("POST", "pictures", { public: base64(this.#key.public), jobs });
      await Promise.all(pictures.filter(({ job }) => jobs.includes(job)).map((picture) => this.#open(picture)));
    } catch {
      // A page without pictures is a page all the same: it shows drawn ones, and asks again.
    }
    for (const id of jobs) if (!this.#addresses.has(id)) this.#later(id);
  }

  #later(id) {
    const tries = this.#tries.get(id) ?? 0;
    if (tries < AGAIN.length) setTimeout(() => this.#tries.get(id) === tries && this.#want(id, tries + 1), AGAIN[tries] * 1000);
  }

  async #open({ job, picture, key }) {
    const { infoOf, open } = await import("./hpke.js");
    const raw = await open(this.#key, infoOf("picture", job), bytes(key));
    const aes = await crypto.subtle.importKey("raw", raw, "AES-GCM", false, ["decrypt"]);
    const sealed = bytes(picture);
    const algorithm = { name: "AES-GCM", iv: sealed.slice(0, NONCE), additionalData: new TextEncoder().encode(job) };
    const image = await crypto.subtle.decrypt(algorithm, aes, sealed.slice(NONCE));
    const address = URL.createObjectURL(new Blob([image], { type: "image/webp" }));
    this.#addresses.set(job, address);
    for (const place of this.#places.get(job) ?? []) this.#put(place, address);
    this.#places.delete(job);
  }

  #put(place, address) {
    if (place.querySelector("img")) return;
    const image = new Image();
    image.alt = "";
    image.src = address;
    image.decode().then(() => place.replaceChildren(image), () => {});
  }
}
