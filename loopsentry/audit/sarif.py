"""An audit as SARIF 2.1.0, the format in which code scanners exchange results.

Plain dictionaries, which the published schema (OASIS, sarif-schema-2.1.0.json) checks in the tests.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from loopsentry import __version__, catalog

from .findings import Audit, Finding, Link

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {"proven": "error", "likely": "warning", "latent": "note"}
#: How sure each level is, as code scanners order results.
_RANKS = {"proven": 100.0, "likely": 60.0, "latent": 20.0}


def as_sarif(audit: Audit, rules: tuple[ModuleType, ...]) -> dict[str, Any]:
    """An audit as one SARIF log: a thread flow for each of the two loops of a finding."""
    codes = [str(rule.CODE) for rule in rules]
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "loopsentry",
                        "version": __version__,
                        "semanticVersion": __version__.partition(".dev")[0],
                        "rules": [_rule(rule) for rule in rules],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "originalUriBaseIds": {"SRCROOT": {"description": {"text": "the audited folder"}}},
                "invocations": [
                    {
                        "executionSuccessful": True,
                        "toolExecutionNotifications": [_not_read(each) for each in audit.skipped],
                    }
                ],
                "results": [_result(each, codes) for each in audit.findings],
            }
        ],
    }


def _rule(rule: ModuleType) -> dict[str, Any]:
    title, text = catalog.words_of(rule)
    return {
        "id": rule.CODE,
        "name": rule.NAME,
        "shortDescription": {"text": title},
        "fullDescription": {"text": " ".join(text.split())},
        "help": {"text": text, "markdown": text},
    }


def _result(finding: Finding, codes: list[str]) -> dict[str, Any]:
    flows = [way for way in (finding.chain, finding.other) if way]
    told: dict[str, Any] = {
        "ruleId": finding.code,
        "ruleIndex": codes.index(finding.code),
        "level": _LEVELS[finding.certainty],
        "rank": _RANKS[finding.certainty],
        "message": {"text": f"{finding.message}; {finding.certainty}: {finding.reason}"},
        "locations": [{"physicalLocation": _place(finding.file, finding.line)}],
        "partialFingerprints": {"loopsentry/v1": finding.key},
        "properties": {"certainty": finding.certainty, "fixes": [*finding.fixes]},
    }
    if flows:
        told["codeFlows"] = [{"threadFlows": [_flow(*numbered) for numbered in enumerate(flows)]}]
    thing = finding.object
    if thing is not None:
        text = f"{thing.kind} {thing.name}"
        place = _place(thing.file, thing.line)
        told["relatedLocations"] = [{"physicalLocation": place, "message": {"text": text}}]
    if finding.accepted:
        told["suppressions"] = [{"kind": "external", "justification": "it is in the baseline"}]
    return told


def _flow(number: int, way: tuple[Link, ...]) -> dict[str, Any]:
    return {
        "id": f"loop {'AB'[number]}",
        "locations": [
            {
                "location": {
                    "physicalLocation": _place(link.file, link.line),
                    "message": {"text": f"{link.function}  {link.note}".strip()},
                }
            }
            for link in way
        ],
    }


def _place(file: str, line: int) -> dict[str, Any]:
    return {
        "artifactLocation": {"uri": file, "uriBaseId": "SRCROOT"},
        "region": {"startLine": max(line, 1)},
    }


def _not_read(skipped: tuple[str, str, bool]) -> dict[str, Any]:
    file, reason, _ = skipped
    where = {"physicalLocation": {"artifactLocation": {"uri": file, "uriBaseId": "SRCROOT"}}}
    return {"level": "warning", "message": {"text": f"not read: {reason}"}, "locations": [where]}
