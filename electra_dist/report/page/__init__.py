"""One HTML page that compares runs and needs nothing but a browser.

Comes in: `Comparison`, the runs and what is said of them. Goes out: the text of the page, with the
plotting library, the numbers and the pictures in it. Needs plotly (its script) and Jinja2.

`charts` says which curves there are, `content` which tables, `render` puts them into `report.html`
with `report.css` and `report.js`, which draws.
"""

from electra_dist.report.page.render import render_page

__all__ = ["render_page"]
