"""Each program that the tests run tests secrecy: its database's URL has a marked password."""

from __future__ import annotations

PASSWORD = "S3cr3tPassword"  # noqa: S105 - the mark; the server trusts everybody


def with_password(uri: str) -> str:
    """Put the mark into the URL of a server that asks for no password."""
    return uri.replace("postgres:@", f"postgres:{PASSWORD}@")


def assert_kept(*outputs: str) -> None:
    """Assert that nothing of what a program and loopsentry wrote shows the password."""
    for output in outputs:
        told = [line for line in output.splitlines() if PASSWORD in line]
        assert told == [], told
