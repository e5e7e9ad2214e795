"""The shelf of contexts: where event loops come from, one file each.

An entry defines `NAME` (the contract's word), `RANK` (the more telling context has the higher
one), `recognise(stack)` over the frames from the innermost outwards, and may define `PACKAGES`,
top-level packages that are machinery and never the user's own frames.
"""
