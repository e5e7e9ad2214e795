"""SQLAlchemy's own way in: `?plugin=loopsentry` in a URL, or `plugins=["loopsentry"]`."""

from __future__ import annotations

import logging
from typing import Any

from sqlalchemy import URL
from sqlalchemy.engine import CreateEnginePlugin, Engine

from . import installation

logger = logging.getLogger("loopsentry")

PREFIX = "loopsentry_"
OPTIONS = ("loopsentry_on_mismatch",)


class LoopSentryPlugin(CreateEnginePlugin):
    """Installs loopsentry when an engine is made, and takes that engine's options.

        create_async_engine("postgresql+asyncpg://…/shop?plugin=loopsentry")
        create_async_engine(url, plugins=["loopsentry"])

    The URL may say `loopsentry_on_mismatch=raise` (or `annotate`, `reconnect`) for this engine; an
    execution option of that name comes first. The driver sees neither. It also records where the
    engine was made, which messages then name. With `LOOPSENTRY=off` it only removes its options.

    Since version 0.1.0. SQLAlchemy calls it (sqlalchemy/engine/interfaces.py: CreateEnginePlugin).
    """

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        super().__init__(url, kwargs)
        self.options = {name: value for name, value in url.query.items() if name.startswith(PREFIX)}
        for name in sorted(self.options.keys() - set(OPTIONS)):
            logger.warning("%s in the URL is not known; known are: %s", name, ", ".join(OPTIONS))
            del self.options[name]
        if self.options:
            given = kwargs.get("execution_options") or {}
            kwargs["execution_options"] = {**self.options, **given}

    def update_url(self, url: URL) -> URL:
        """Remove what the driver must not see."""
        return url.difference_update_query([name for name in url.query if name.startswith(PREFIX)])

    def engine_created(self, engine: Engine) -> None:
        """Watch the engine, and remember where it was made."""
        installation.watch(engine)
