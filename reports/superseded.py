"""What a page and a data set card say once a newer release has taken their place."""

import html

from ..pipeline.release import Release

MARK = "<!-- superseded -->"
"""Where the notice will stand; templates of released pages and cards hold it."""


def page_with_notice(page: str, newer: Release) -> str:
    """The HTML of an earlier release's page, which now points to the newer one, two folders above."""
    words = html.escape(_words(newer))
    link = '<a href="../../index.html">Read that one.</a>'
    return page.replace(MARK, f'<p class="warning superseded" role="note">{words} {link}</p>', 1)


def card_with_notice(card: str, newer: Release) -> str:
    """The same of a data set card."""
    return card.replace(MARK, f"> **{_words(newer)}** [Read that one.](../../README.md)", 1)


def _words(newer: Release) -> str:
    return f"Superseded by release {newer.id}."
