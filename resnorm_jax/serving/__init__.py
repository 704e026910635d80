"""A run behind HTTP: a page with a form, and a small JSON API. See its README."""
