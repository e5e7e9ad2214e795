"""The shelf of formats, one file each: `render(diagnosis)` gives the finished text or object."""
