"""The static audit: event loops that reach one shared object, found in source before they run.

    summaries ─▶ sources ─▶ facts ─▶ symbols, flows ─▶ starts ─▶ reach ─▶ rules ─▶ reports

Nothing of the audited project is imported or run. A file is read once, into a plain value; what
stands in a function, and what a name means, is worked out when a search asks for it.
"""
