"""Values as a command line gives them."""

import json
import re
from typing import Any, ClassVar

import yaml


class _Loader(yaml.SafeLoader):
    """YAML with the literals of its version 1.2: PyYAML reads 1e-3 as a string, `no` as false and 1:30 as ninety."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


for _tag, _pattern in {
    "null": r"null|Null|NULL|None|~|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(0|[1-9][0-9_]*)",
    "float": r"[-+]?(([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.inf)|\.nan",
}.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), None)


def parse_value(text: str) -> Any:
    """Reads a parameter of the command line: a number, true, false, None, a list such as `[mix, same/ic]`, or text."""
    try:
        value = yaml.load(text, _Loader)
        json.dumps(value)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError):  # tags, endless lists
        return text
    return text if isinstance(value, dict) or "#" in text else value  # YAML would drop what follows a #
