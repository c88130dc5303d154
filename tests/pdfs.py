"""PDF files for tests: good ones, and the kinds of which people should hear before anybody relies on them."""

import io

from pypdf import PdfWriter


def pdf(pages: int = 1, *, title: str = "Audit report", password: str | None = None) -> bytes:
    """A file of blank pages; another title is another content."""
    writer = PdfWriter()
    for _ in range(pages):
        writer.add_blank_page(width=595, height=842)
    writer.add_metadata({"/Title": title})
    if password is not None:
        writer.encrypt(password, algorithm="RC4-128")
    content = io.BytesIO()
    writer.write(content)
    return content.getvalue()


def bomb() -> bytes:
    """A few hundred bytes, of which the page tree alone would fill any memory."""
    kids = " ".join(["4 0 R"] * 40)
    levels = [
        f"{n} 0 obj\n<</Type/Pages/Count 99999999/Kids[{' '.join([f'{n + 1} 0 R'] * 40)}]>>\nendobj"
        for n in range(4, 12)
    ]
    body = "\n".join(
        [
            "%PDF-1.7",
            "1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj",
            f"2 0 obj\n<</Type/Pages/Count 99999999/Kids[{kids}]>>\nendobj",
            *levels,
            "12 0 obj\n<</Type/Page/MediaBox[0 0 9 9]>>\nendobj",
            "trailer\n<</Root 1 0 R/Size 13>>",
            "%%EOF",
        ]
    )
    return body.encode()
