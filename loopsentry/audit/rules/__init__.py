"""The shelf of rules: mistakes that are visible in source, one file each.

An entry has a docstring (its first line is the title, the rest explains), `CODE`, `NAME`, and
`find(program)`, which yields findings, and notes what it keeps silent about.
"""
