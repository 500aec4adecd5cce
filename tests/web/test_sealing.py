"""What the browser seals and opens: HPKE against RFC 9180 and against `vault.parts`, and whole uploads."""

import base64
import os
from typing import Any

import pytest
from playwright.async_api import Page
from tests.web.standin import Standin, opened_upload

from pullprint.vault import parts
from pullprint.wire.api import UPLOAD_PIECE

pytestmark = pytest.mark.asyncio(loop_scope="module")

# RFC 9180, A.1.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-128-GCM, base mode; the first encryption. The RFC has
# no vector for AES-256-GCM with X25519; there the other side is `vault.parts`.
RFC = {
    "info": "4f6465206f6e2061204772656369616e2055726e",
    "ephemeral": "52c4a758a802cd8b936eceea314432798d5baf2d7e9235dc084ab1b9cfa2f736",
    "enc": "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431",
    "recipient": "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d",
    "private": "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8",
    "text": "4265617574792069732074727574682c20747275746820626561757479",
    "aad": "436f756e742d30",
    "sealed": "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a",
}
TOOLS = """
const bytes = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const hex = (raw) => [...raw].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const base64url = (raw) => btoa(String.fromCharCode(...raw)).replace(/\\+/g, "-").replace(/\\//g, "_").replace(/=/g, "");
const pair = async (d, x) => ({
  pair: { privateKey: await crypto.subtle.importKey(
    "jwk", { kty: "OKP", crv: "X25519", d: base64url(d), x: base64url(x) }, "X25519", false, ["deriveBits"]) },
  public: x,
});
const refused = (promise) => promise.then(() => "opened", (error) => error.name);
"""


async def run(page: Page, code: str, values: dict[str, Any]) -> Any:
    """What *code* returns in the page, with the module as ``hpke`` and *values* as ``v``."""
    return await page.evaluate(
        "async (v) => { const hpke = await import('/static/hpke.js');" + TOOLS + code + "}", values
    )


async def test_the_vector_of_the_rfc_both_ways(page: Page) -> None:
    sealed = await run(
        page,
        """const ephemeral = await pair(bytes(v.ephemeral), bytes(v.enc));
        const options = { aad: bytes(v.aad), aead: hpke.AES_128 };
        return hex(await hpke.seal(bytes(v.recipient), bytes(v.info), bytes(v.text), { ...options, ephemeral }));""",
        RFC,
    )
    assert sealed == RFC["enc"] + RFC["sealed"]
    opened = await run(
        page,
        """const recipient = await pair(bytes(v.private), bytes(v.recipient));
        const options = { aad: bytes(v.aad), aead: hpke.AES_128 };
        return hex(await hpke.open(recipient, bytes(v.info), bytes(v.enc + v.sealed), options));""",
        RFC,
    )
    assert opened == RFC["text"]


async def test_the_vault_opens_what_the_browser_seals(page: Page) -> None:
    private, public = parts.new_key()
    key = os.urandom(32)
    sealed = await run(
        page,
        "return hex(await hpke.seal(bytes(v.public), hpke.infoOf('upload', v.id), bytes(v.key)));",
        {"public": public.hex(), "id": "u-ä€", "key": key.hex()},
    )
    assert parts.open_upload_key(bytes.fromhex(sealed), private, upload="u-ä€") == key
    with pytest.raises(parts.PartRefused):
        parts.open_upload_key(bytes.fromhex(sealed), private, upload="another")


async def test_the_browser_opens_what_the_vault_seals_and_nothing_else(page: Page) -> None:
    public = await run(page, "globalThis.mine = await hpke.newKey(); return hex(mine.public);", {})
    key, job = os.urandom(32), "a" * 32
    sealed = parts.seal_picture_key(key, bytes.fromhex(public), job=job)
    values = {
        "sealed": sealed.hex(),
        "job": job,
        "other": parts.seal_picture_key(key, parts.new_key()[1], job=job).hex(),
    }
    code = "return hex(await hpke.open(mine, hpke.infoOf('picture', v.job), bytes(v.sealed)));"
    assert await run(page, code, values) == key.hex()
    wrong = """const info = hpke.infoOf('picture', v.job), flipped = bytes(v.sealed);
        flipped[60] ^= 1;
        return [await refused(hpke.open(mine, hpke.infoOf('picture', 'b'), bytes(v.sealed))),
          await refused(hpke.open(mine, hpke.infoOf('upload', v.job), bytes(v.sealed))),
          await refused(hpke.open(mine, info, bytes(v.other))),
          await refused(hpke.open(mine, info, flipped)),
          await refused(hpke.open(mine, info, bytes(v.sealed).slice(0, 40))),
          await refused(hpke.open(mine, info, new Uint8Array(80)))];"""
    assert await run(page, wrong, values) == ["OperationError"] * 6


@pytest.mark.parametrize("size", [0, 1, UPLOAD_PIECE - 1, UPLOAD_PIECE, UPLOAD_PIECE + 1, 3 * UPLOAD_PIECE])
async def test_a_node_opens_an_upload_of_any_size(page: Page, cloud: Standin, size: int) -> None:
    private, public = parts.new_key()
    document = os.urandom(size)
    sealed = await page.evaluate(
        """async ([public, document]) => {
          const { sealed } = await import("/static/upload.js");
          const raw = Uint8Array.from(atob(document), (letter) => letter.charCodeAt(0));
          const body = await sealed(new Blob([raw]), { id: "u1", public });
          const bytes = new Uint8Array(await body.arrayBuffer());
          let text = "";
          for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
          return btoa(text);
        }""",
        [base64.b64encode(public).decode(), base64.b64encode(document).decode()],
    )
    assert opened_upload(base64.b64decode(sealed), private, "u1") == document
