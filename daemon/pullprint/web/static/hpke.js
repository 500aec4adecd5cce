// HPKE (RFC 9180), base mode, single shot: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, on WebCrypto.
// The same as vault/parts.py; what is sealed is the encapsulated key (32 bytes), then the ciphertext with its tag.

const KEM = [0x4b, 0x45, 0x4d, 0x00, 0x20];
/** The two AEADs that the tests know vectors for: RFC 9180's identifier and the key's bytes. */
export const AES_256 = { id: 2, size: 32 };
export const AES_128 = { id: 1, size: 16 };
const ENC = 32;
const NONE = new Uint8Array();

const utf8 = new TextEncoder();

/** Bytes put behind each other; texts as UTF-8. */
export function join(...parts) {
  const pieces = parts.map((part) => (typeof part === "string" ? utf8.encode(part) : new Uint8Array(part)));
  const whole = new Uint8Array(pieces.reduce((size, piece) => size + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

/** The info of one purpose: lengths in front, so that no two lists of words give the same bytes (vault/parts.py). */
export function infoOf(...words) {
  return join("pullprint/1", ...words.flatMap((word) => {
    const raw = utf8.encode(word);
    return [[raw.length >> 8, raw.length & 255], raw];
  }));
}

/** A fresh X25519 pair: `public` raw, `pair` for `open`; the private half cannot be exported. */
export async function newKey() {
  const pair = await crypto.subtle.generateKey({ name: "X25519" }, false, ["deriveBits"]);
  return { pair, public: new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey)) };
}

/** `text` for the holder of `recipient` (raw public key). `ephemeral` is for test vectors only. */
export async function seal(recipient, info, text, { aad = NONE, aead = AES_256, ephemeral } = {}) {
  const mine = ephemeral ?? await newKey();
  const theirs = await crypto.subtle.importKey("raw", recipient, { name: "X25519" }, false, []);
  const { key, nonce } = await schedule(mine.pair.privateKey, theirs, mine.public, recipient, info, aead);
  const sealed = await crypto.subtle.encrypt({ name: "AES-GCM", iv: nonce, additionalData: aad }, key, text);
  return join(mine.public, sealed);
}

/** What was sealed to `recipient` (as `newKey` makes it). Throws when it is another's or damaged. */
export async function open(recipient, info, sealed, { aad = NONE, aead = AES_256 } = {}) {
  const enc = sealed.slice(0, ENC);
  const theirs = await crypto.subtle.importKey("raw", enc, { name: "X25519" }, false, []);
  const { key, nonce } = await schedule(recipient.pair.privateKey, theirs, enc, recipient.public, info, aead);
  return new Uint8Array(await crypto.subtle.decrypt({ name: "AES-GCM", iv: nonce, additionalData: aad }, key, sealed.slice(ENC)));
}

/** Sections 4.1 and 5.1: the AEAD's key and nonce that both sides come to. */
async function schedule(mine, theirs, enc, recipient, info, aead) {
  const dh = await crypto.subtle.deriveBits({ name: "X25519", public: theirs }, mine, 256);
  const prk = await extract(KEM, NONE, "eae_prk", dh);
  const shared = await expand(KEM, prk, "shared_secret", join(enc, recipient), 32);
  const suite = join("HPKE", [0x00, 0x20, 0x00, 0x01, 0x00, aead.id]);
  const context = join([0], await extract(suite, NONE, "psk_id_hash", NONE), await extract(suite, NONE, "info_hash", info));
  const secret = await extract(suite, shared, "secret", NONE);
  const raw = await expand(suite, secret, "key", context, aead.size);
  return {
    key: await crypto.subtle.importKey("raw", raw, "AES-GCM", false, ["encrypt", "decrypt"]),
    nonce: await expand(suite, secret, "base_nonce", context, 12),
  };
}

const extract = (suite, salt, label, ikm) => hmac(salt, join("HPKE-v1", suite, label, ikm));

/** HKDF-Expand of at most one block: no more is ever needed here. */
async function expand(suite, prk, label, info, size) {
  const block = await hmac(prk, join([0, size], "HPKE-v1", suite, label, info, [1]));
  return block.slice(0, size);
}

async function hmac(key, data) {
  // HMAC fills a short key up with zeros; WebCrypto refuses one of no bytes.
  const raw = key.length ? key : new Uint8Array(32);
  const imported = await crypto.subtle.importKey("raw", raw, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", imported, data));
}
