"""The page that shows what is found on a picture that is dropped on it."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path


def page() -> tuple[str, str]:
    """Return the page, and the policy that lets it load and run nothing else.

    Returns:
        HTML with its style and its script inside, and the value of a Content-Security-Policy: the
        style and the script by their digests, pictures that the page itself makes, and requests to
        this server.
    """
    html = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    style, script = (
        _digest(re.search(rf"<{name}>(.*?)</{name}>", html, re.DOTALL)[1])
        for name in ("style", "script")
    )
    policy = (
        f"default-src 'none'; style-src {style}; script-src {script}; img-src blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html, policy


def _digest(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
