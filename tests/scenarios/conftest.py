"""The scenarios' own test modules run in child processes only (`tests/test_scenarios.py`)."""

collect_ignore_glob = ["*"]
