"""What `mkdocs build` does to a page before it is read."""

import re

# Links to files of the checkout that are no pages: they work where the checkout is browsed, the site has the name.
_BEYOND_DOCS = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?:examples|bench|tests|python|cpp|README|CONTRIBUTING)[^)]*\)")


def on_page_markdown(markdown, **_):
    return _BEYOND_DOCS.sub(r"\1", markdown)
