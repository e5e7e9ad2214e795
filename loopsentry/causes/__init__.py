"""The shelf of root causes, one file each, in no library's words.

The docstring of an entry is what the user sees: its first line the title, the rest the
explanation that `loopsentry explain` prints. `CODE` and `CAUSE` are the contract's;
`match(evidence)` returns a `Verdict`, or None where the cause does not apply.
"""
