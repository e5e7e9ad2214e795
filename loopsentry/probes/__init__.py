"""The shelf of watched libraries, one file each.

An entry may define any of:

- `PACKAGES`: top-level packages that are machinery, never the user's own frames.
- `read(exc)`: translate one exception into a `Symptom`, or None. Its words decide nothing but that
  it is time to look.
- `sight(target)`: recognise an object found in a stack, or None.
- `OPERATIONS`: module prefixes whose functions are what a user calls.
- `attach(registry, report)` and `detach()`: listen to the library's own events.
"""
