"""The diagnosis record of the contract: one JSON object, `"schema": 1`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from loopsentry.model import (
    Diagnosis,
    EngineInfo,
    FirstFailure,
    Holder,
    LoopInfo,
    Operation,
    Original,
    Place,
    Subject,
    Wait,
)

SCHEMA = 1


def render(diagnosis: Diagnosis) -> str:
    """Render one record, on one line and in ASCII: no surrogate and no odd line end is lost."""
    return json.dumps(to_dict(diagnosis), default=str)


def to_dict(diagnosis: Diagnosis) -> dict[str, Any]:
    """The record as plain dictionaries and lists, every field present."""
    return {
        "schema": SCHEMA,
        "id": diagnosis.id,
        "version": diagnosis.version,
        "time": diagnosis.time.isoformat(),
        "pid": diagnosis.pid,
        "code": diagnosis.code,
        "cause": diagnosis.cause,
        "certainty": diagnosis.certainty,
        "severity": diagnosis.severity,
        "phase": diagnosis.phase,
        "context": diagnosis.context,
        "framework": dict(diagnosis.framework) if diagnosis.framework else None,
        "others": [
            {"code": code, "title": title, "certainty": certainty}
            for code, title, certainty in diagnosis.others
        ],
        "used_at": _place(diagnosis.used_at),
        "current_task": diagnosis.current_task,
        "operation": diagnosis.operation,
        "owner_loop": _loop(diagnosis.owner_loop),
        "current_loop": _loop(diagnosis.current_loop),
        "object": _subject(diagnosis.object),
        "engine": _engine(diagnosis.engine),
        "other_operation": _operation(diagnosis.other_operation),
        "first_failure": _failure(diagnosis.first_failure),
        "data": diagnosis.data,
        "action": diagnosis.action,
        "waits": [_wait(wait) for wait in diagnosis.waits],
        "holders": [_holder(holder) for holder in diagnosis.holders],
        "facts": list(diagnosis.facts),
        "fixes": [asdict(fix) for fix in diagnosis.fixes],
        "original": _original(diagnosis.original),
    }


def _place(place: Place | None) -> dict[str, Any] | None:
    if place is None:
        return None
    return {"file": place.file, "line": place.line, "function": place.function}


def _wait(wait: Wait) -> dict[str, Any]:
    return {
        "task": wait.task,
        "thread": wait.thread,
        "place": _place(wait.place),
        "for": wait.awaits,
        "seconds": round(wait.seconds, 3),
    }


def _holder(holder: Holder) -> dict[str, Any]:
    return {
        "label": holder.label,
        "task": holder.task,
        "place": _place(holder.place),
        "opened_at": _place(holder.opened_at),
        "seconds": None if holder.seconds is None else round(holder.seconds, 3),
    }


def _loop(loop: LoopInfo | None) -> dict[str, Any] | None:
    if loop is None:
        return None
    record = asdict(loop)
    del record["contexts"], record["followed"]
    record["started_by"] = _place(loop.started_by)
    return record


def _subject(subject: Subject | None) -> dict[str, Any] | None:
    if subject is None:
        return None
    birth = subject.birth
    return {
        "kind": subject.kind,
        "label": subject.label,
        "opened_at": _place(birth.place if birth else None),
        "opened_by_task": birth.task if birth else None,
    }


def _engine(engine: EngineInfo | None) -> dict[str, Any] | None:
    if engine is None:
        return None
    return {
        "url": engine.url,
        "driver": engine.driver,
        "variable": engine.variable,
        "created_at": _place(engine.created_at),
    }


def _operation(operation: Operation | None) -> dict[str, Any] | None:
    return None if operation is None else asdict(operation)


def _failure(failure: FirstFailure | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    return {
        "time": failure.time.isoformat(),
        "code": failure.code,
        "place": _place(failure.place),
    }


def _original(original: Original | None) -> dict[str, Any] | None:
    return None if original is None else asdict(original)
