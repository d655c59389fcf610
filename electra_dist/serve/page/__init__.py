"""The page to try the model in a browser: one form, one script, nothing from elsewhere."""

from electra_dist.serve.page.render import Page, render_page

__all__ = ["Page", "render_page"]
