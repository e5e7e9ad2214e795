"""The program of the story: a set-up wizard, then a web server, on one global engine."""
