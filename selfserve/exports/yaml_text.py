"""Values as YAML that every reader takes for the same values."""

from __future__ import annotations

import re
from typing import Any

import yaml

__all__ = ["yaml_text"]

# PyYAML follows YAML 1.1 and leaves bare what a reader of YAML 1.2 takes for a number, such as 1e3 or 0o7.
_NUMBER_LIKE = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|0o[0-7]+|0x[0-9a-fA-F]+")

# Ends of lines in YAML 1.1 alone. Between single quotation marks PyYAML writes them as they are: its own reader folds
# one of them into a blank, and a reader of YAML 1.2 keeps the indentation behind them.
_OLD_LINE_ENDS = re.compile("[\x85\u2028\u2029]")


class _Dumper(yaml.SafeDumper):
    """PyYAML's dumper, with quotation marks where readers differ, and with repeats instead of aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        """Write out what stands in several places."""
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "'" if _NUMBER_LIKE.fullmatch(text) else '"' if _OLD_LINE_ENDS.search(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def yaml_text(value: Any) -> str:
    """Return plain values (dicts, lists, texts, numbers, booleans, None) as a YAML document, keys in their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
