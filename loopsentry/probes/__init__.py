"""The shelf of watched libraries, one file each.

An entry may define any of:

- `PACKAGES`: top-level packages that are machinery, never the user's own frames.
- `read(exc, text)`: translate one exception, whose first argument is `text`, into a `Symptom`, or
  None. Its words decide nothing but that it is time to look. Ask for the type of `exc` only: its
  class may override everything else.
- `sight(target)`: recognise an object found in a stack, or None.
- `face_of(symptom, sites)`: which form of its cause a complaint has, read off its frames, as a
  `Face`, or None.
- `transport_of(target)`: the asyncio transport below a connection, where `_sockets` would not find
  it, or None.
- `OPERATIONS`: module prefixes whose functions are what a user calls.
- `attach(report, registry)`: listen to the library's own events; return what undoes that.
"""
