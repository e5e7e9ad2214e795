"""The shelf of places where exceptions surface, one file each.

An entry defines `attach(report, registry)`, which returns what undoes it. It always calls what was
there before, and puts that back.
"""
