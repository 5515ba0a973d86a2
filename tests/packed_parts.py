"""Access to a page's compressed parts: Bokeh, and the models of its explorer."""

import base64
import re
import zlib


def unpacked(page: str, part: str) -> str:
    """Return the text of ``explorer-library`` or ``explorer-models`` of a page."""
    found = re.search(f'<script type="text/plain" id="{part}">(.*?)</script>', page, re.DOTALL)
    assert found, part
    return zlib.decompress(base64.b64decode(found[1], validate=True)).decode()
