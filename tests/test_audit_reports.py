"""The audit's reports: SARIF, baselines, text with source, and what a repository needs of it."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from audit_projects import lay_out
from click.testing import CliRunner

from loopsentry.audit.auditor import audit, load_rules
from loopsentry.audit.reports import as_json, render
from loopsentry.cli import cli
from loopsentry.explanation import explain

SCHEMA = Path(__file__).parent / "data" / "sarif-schema-2.1.0.json"
CASES = ("typer-main-runs-two-helpers", "migrate-then-server", "gather-route-depends")


def run(*arguments: Any) -> tuple[int, str]:
    """Run the command; give its status and what it printed."""
    ended = CliRunner().invoke(cli, ["audit", "--no-cache", *map(str, arguments)])
    return ended.exit_code, ended.output


@pytest.mark.parametrize("rule", load_rules(), ids=lambda rule: rule.CODE)
def test_each_rule_shows_a_broken_and_a_cured_program(tmp_path: Path, rule: Any) -> None:
    """The audit finds the rule's mistake in the first, nothing of it in the second."""
    for source, expected in ((rule.BROKEN, True), (rule.CURED, False)):
        ast.parse(source)
        (tmp_path / "test_shop.py" if rule.CODE == "LSA108" else tmp_path / "shop.py").write_text(
            source, "utf-8"
        )
        codes = {each.code for each in audit([tmp_path]).findings}
        assert (rule.CODE in codes) is expected
        assert source in explain(rule.CODE)


@pytest.mark.parametrize("case", CASES)
def test_sarif_is_valid_and_has_a_flow_for_each_loop(tmp_path: Path, case: str) -> None:
    """The log keeps to the published schema; two ways that meet are two thread flows."""
    (tmp_path / "broken.py").write_text("def (", "utf-8")
    found = audit([lay_out(tmp_path, case)])
    log = json.loads(render(found, "sarif"))
    jsonschema.Draft4Validator(json.loads(SCHEMA.read_text("utf-8"))).validate(log)
    (told,) = log["runs"]
    assert len(told["results"]) == len(found.findings)
    for result, finding in zip(told["results"], found.findings, strict=True):
        (place,) = result["locations"]
        assert place["physicalLocation"]["artifactLocation"]["uri"] == finding.file
        assert place["physicalLocation"]["region"]["startLine"] == finding.line
        rules = told["tool"]["driver"]["rules"]
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == finding.code
        (flow,) = result["codeFlows"]
        assert len(flow["threadFlows"]) == 1 + bool(finding.other)
    assert told["invocations"][0]["toolExecutionNotifications"]


def test_a_fingerprint_outlives_moved_lines(tmp_path: Path) -> None:
    """Lines that move change no fingerprint; another object or function does."""
    (first,) = audit([lay_out(tmp_path, CASES[0])]).findings[:1]
    main = tmp_path / "app" / "main.py"
    source = main.read_text("utf-8")
    main.write_text("# one line\n# another\n" + source, "utf-8")
    (moved,) = audit([tmp_path]).findings[:1]
    assert moved.line == first.line + 2
    assert moved.key == first.key
    main.write_text(source.replace("def seed", "def sow").replace("seed()", "sow()"), "utf-8")
    (renamed,) = audit([tmp_path]).findings[:1]
    assert renamed.key != first.key


def test_two_ways_are_told_with_their_source(tmp_path: Path) -> None:
    """A reader sees both loops' ways, each step's line of source, and where they meet."""
    shown = render(audit([lay_out(tmp_path, CASES[0])]), "text")
    one, other = shown.index("  one loop\n"), shown.index("  the other loop\n")
    assert one < other < shown.index("  where they meet: engine `engine`\n")
    assert shown.count("      | return asyncio.run(go())") == 2
    assert "create_async_engine" in shown


def test_findings_at_one_object_are_told_once(tmp_path: Path) -> None:
    """Of many ways to one engine the surest is told in full, the others in a line each."""
    lay_out(tmp_path, "contextmanager-helper")
    main = tmp_path / "app" / "main.py"
    more = "".join(f"@celery.task\ndef more_{n}():\n    asyncio.run(load())\n" for n in range(3))
    main.write_text(main.read_text("utf-8") + more, "utf-8")
    shown = render(audit([tmp_path]), "text")
    assert shown.count("proven[LSA101]") == 1
    assert "  and 3 more at the same place\n" in shown
    for number in range(3):
        assert f"  more_{number}  proven\n" in shown
    assert render(audit([tmp_path]), "concise").count("LSA101") == 4


def test_no_password_of_the_source_is_shown(tmp_path: Path) -> None:
    """A URL with a password is shown without it, in each format."""
    lay_out(tmp_path, CASES[0])
    db = tmp_path / "app" / "db.py"
    db.write_text(db.read_text("utf-8").replace("//db/", "//me:hunter2@db/"), "utf-8")
    found = audit([tmp_path])
    assert "//me:***@db/" in render(found, "text")
    for how in ("text", "concise", "json", "github", "sarif"):
        assert "hunter2" not in render(found, how)


def test_a_baseline_lets_only_new_findings_count(tmp_path: Path) -> None:
    """Accepted findings do not fail a run, wherever they move; a new one does."""
    source, kept = tmp_path / "source", tmp_path / "baseline.json"
    lay_out(source, CASES[0])
    status, shown = run(source, "--write-baseline", "--baseline", kept)
    assert (status, "are accepted" in shown) == (0, True)
    main = source / "app" / "main.py"
    main.write_text("#\n" + main.read_text("utf-8"), "utf-8")
    status, shown = run(source, "--baseline", kept)
    assert status == 0
    assert "0 proven, 0 likely, 0 latent" in shown
    assert "more are in the baseline" in shown
    log = json.loads(run(source, "--baseline", kept, "--format", "sarif")[1])
    assert all(each["suppressions"] for each in log["runs"][0]["results"])
    main.write_text(main.read_text("utf-8") + "asyncio.run(go())\nasyncio.run(go())\n", "utf-8")
    status, shown = run(source, "--baseline", kept, "--format", "concise")
    assert status == 1
    assert "LSA101" in shown


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "write it first"), ("{", "is no baseline"), ('{"accepted": [1]}', "is no baseline")],
)
def test_a_baseline_that_cannot_be_used_is_an_error(
    tmp_path: Path, text: str | None, words: str
) -> None:
    """A missing or broken baseline is told with what to do, and never taken for an empty one."""
    kept = tmp_path / "baseline.json"
    if text is not None:
        kept.write_text(text, "utf-8")
    status, shown = run(lay_out(tmp_path / "source", CASES[0]), "--baseline", kept)
    assert status == 2
    assert words in " ".join(shown.split())


def test_a_baseline_needs_a_file_to_write(tmp_path: Path) -> None:
    """`--write-baseline` alone is an error that says what is missing."""
    status, shown = run(lay_out(tmp_path, CASES[0]), "--write-baseline")
    assert status == 2
    assert "--baseline FILE" in shown


def test_a_report_can_go_to_a_file(tmp_path: Path) -> None:
    """`--output` writes the report, keeps the terminal quiet and the exit status."""
    target = tmp_path / "audit.sarif"
    source = tmp_path / "source"
    status, shown = run(lay_out(source, CASES[0]), "--format", "sarif", "--output", target)
    assert (status, shown) == (1, "")
    assert json.loads(target.read_text("utf-8"))["version"] == "2.1.0"


def test_a_comment_at_the_engine_silences_its_findings(tmp_path: Path) -> None:
    """`# noqa: LSA101` where the engine is made takes out what meets at it."""
    lay_out(tmp_path, CASES[0])
    db = tmp_path / "app" / "db.py"
    assert [each.code for each in audit([tmp_path]).findings] == ["LSA101"]
    db.write_text(db.read_text("utf-8").replace('shop")', 'shop")  # noqa: LSA101'), "utf-8")
    assert audit([tmp_path]).findings == []


def test_the_json_form_carries_both_ways(tmp_path: Path) -> None:
    """Programs get the chain, the other loop's chain and the key of each finding."""
    (told, *_) = as_json(audit([lay_out(tmp_path, CASES[0])]))["findings"]
    assert [step["function"] for step in told["other"]] == ["main", "check", "go"]
    assert told["key"]


def test_the_hook_audits_the_whole_program() -> None:
    """The pre-commit hook hands over no file names: a mistake lies between files."""
    root = Path(__file__).parents[1]
    text = (root / ".pre-commit-hooks.yaml").read_text("utf-8")
    assert "entry: loopsentry audit" in text
    assert "pass_filenames: false" in text


def test_latent_findings_at_one_object_share_a_line(tmp_path: Path) -> None:
    """What nothing calls is told in one line for each object, with how many more there are."""
    lay_out(tmp_path, "contextmanager-helper")
    main = tmp_path / "app" / "main.py"
    text = main.read_text("utf-8").replace("@celery.task", "@print")
    more = "".join(f"def more_{n}():\n    asyncio.run(load())\n" for n in range(3))
    main.write_text(text + more, "utf-8")
    shown = render(audit([tmp_path]), "text")
    assert shown.count(": LSA101: ") == 1
    assert "; and 3 more at the same place\n" in shown
