"""The shelf of destinations, one file each.

An entry defines `open_sink(environment)`, which returns an object with `close()` and
`send(diagnosis, *, shown)`, called once for each mistake; or None where nothing asks for it. An
object with `tally(diagnosis)` hears of each occurrence too. With `OPTIONAL = True` an entry is
opened only where its name is asked for (`install(sinks=…)`, `LOOPSENTRY_SINKS`). Its library is
imported in `open_sink`.
"""
