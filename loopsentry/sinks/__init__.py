"""The shelf of destinations, one file each.

An entry defines `open_sink(options)`, which returns an object with `send(diagnosis, *, shown)`
and `close()`, or None where it is not asked for. Its library is imported inside `open_sink`.
"""
