"""The shelf of cures, one Markdown file each; `catalog.parse_fix` describes the format."""
