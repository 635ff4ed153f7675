"""A page as Markdown, HTML, LaTeX, CSV and terminal output. Formats read values and never parse a rendered text."""
