"""Documents to print, made on the spot."""

import io
import secrets

import pikepdf
from fpdf import FPDF


def pdf(pages: int = 1, *, color: bool = False, marker: str = "", same: bool = False) -> bytes:
    """A PDF of A4 pages; *marker* stands in it uncompressed. With *same* a second call gives the same bytes."""
    document = pikepdf.new()
    for number in range(1, pages + 1):
        page = document.add_blank_page(page_size=(595, 842))
        ink = "1 0 0 rg" if color else "0 g"
        content = f"{ink} 72 {700 - number} 200 40 re f\n% {marker or 'page'} {number}\n"
        page.Contents = document.make_stream(content.encode())
    buffer = io.BytesIO()
    document.save(buffer, compress_streams=False, deterministic_id=same)
    return buffer.getvalue()


def marker() -> str:
    """A word that stands nowhere else."""
    return f"MARKER-{secrets.token_hex(16)}"


def letter(text: str) -> bytes:
    """A PDF of one page on which *text* can be read."""
    page = FPDF()
    page.add_page()
    page.set_font("Helvetica", size=20)
    page.cell(text=text)
    return bytes(page.output())
