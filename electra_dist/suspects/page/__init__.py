"""One HTML page with marked texts that needs nothing but a browser: no script, no request.

Comes in: judged texts. Goes out: the text of the page; Jinja2 escapes everything that is of a text.
"""

from electra_dist.suspects.page.render import Source, render_page

__all__ = ["Source", "render_page"]
