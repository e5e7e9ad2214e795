"""The static audit: event loops that reach one shared object, found in source before they run.

    sources ─▶ facts ─▶ symbols ─▶ starts ─▶ reach ─▶ rules ─▶ findings ─▶ reports

Nothing of the audited project is imported or run. What a name means is worked out when a search
asks for it, and remembered.
"""
