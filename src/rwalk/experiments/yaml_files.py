"""YAML that is no larger than it looks: nothing but plain values, and aliases that cannot multiply."""

from __future__ import annotations

import re
from typing import Any

import yaml

__all__ = ["numbers", "plain_yaml"]

LARGEST = 2**16  # characters
MOST = 20_000  # values, each alias counted as all that it stands for
DEEPEST = 60
INTEGER, FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"


class _Loader(yaml.SafeLoader):
    """YAML 1.1's, with the numbers of YAML 1.2: ``010`` is 10 and not 8, ``1:10`` text and not 70."""

    def whole(self, node: yaml.ScalarNode) -> int:
        """A whole number: with base 10, where it does not begin with 0x or 0b."""
        text = node.value.replace("_", "")
        return int(text, 0 if re.match("[-+]?0[bx]", text) else 10)


_Loader.yaml_implicit_resolvers = {
    sign: [(tag, pattern) for tag, pattern in known if tag not in (INTEGER, FLOAT)]
    for sign, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    FLOAT,
    re.compile(
        r"^(?:(?:[-+]?[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)
_Loader.add_implicit_resolver(
    INTEGER, re.compile(r"^[-+]?(?:0b[0-1_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)$"), list("-+0123456789")
)
_Loader.add_constructor(INTEGER, _Loader.whole)


def plain_yaml(text: str) -> Any:
    """The values of a YAML text, with ``1e-3`` as the number that it is.

    Raises:
        ValueError: It is no YAML, has a key twice, or is larger, deeper or more often repeated than a file of settings
            can be.

    Example:
        >>> plain_yaml("lr: 1e-3")
        {'lr': 0.001}
        >>> plain_yaml("[010, 1:10, 0x10]")
        [10, '1:10', 16]
        >>> plain_yaml("[&a [1], &b [*a, *a], [*b, *b]]")[2]
        [[[1], [1]], [[1], [1]]]
    """
    if len(text) > LARGEST:
        raise ValueError(f"{len(text)} characters of YAML: expected at most {LARGEST}")
    if _brackets(text) > 2 * DEEPEST:  # which would take long to scan
        raise ValueError(f"lists in lists more than {DEEPEST} deep")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node)
        return numbers(loader.construct_document(node))
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError(f"lists in lists more than {DEEPEST} deep") from None


def numbers(value: Any) -> Any:
    """YAML 1.1 reads ``1e-3`` as text, because it has no dot; take it as the number that it is."""
    if isinstance(value, dict):
        return {key: numbers(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [numbers(entry) for entry in value]
    return float(value) if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value) else value


def _brackets(text: str) -> int:
    """How many brackets are open at most."""
    opened = most = 0
    for sign in re.findall(r"[\[\]{}]", text):
        opened = opened + 1 if sign in "[{" else max(0, opened - 1)
        most = max(most, opened)
    return most


def _check(root: yaml.Node) -> None:
    """Refuse what is too large, counting each alias as what it stands for, in time that grows with the text only."""
    sizes: dict[int, tuple[int, int]] = {}

    def measure(node: yaml.Node) -> tuple[int, int]:
        if id(node) in sizes:
            if sizes[id(node)] == (0, 0):
                raise ValueError("an alias stands for a list that it is in itself")
            return sizes[id(node)]
        sizes[id(node)] = 0, 0
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            _refuse_repeated([key for key, _ in inner if isinstance(key, yaml.ScalarNode)])
        parts = [part for entry in inner for part in (entry if isinstance(entry, tuple) else (entry,))]
        found = [measure(part) for part in parts]
        size, depth = 1 + sum(size for size, _ in found), 1 + max((depth for _, depth in found), default=0)
        if size > MOST or depth > DEEPEST:
            raise ValueError(f"more than {MOST} values, or lists in lists more than {DEEPEST} deep")
        sizes[id(node)] = size, depth
        return size, depth

    measure(root)


def _refuse_repeated(keys: list[yaml.ScalarNode]) -> None:
    """Refuse a key that stands twice in a mapping, where YAML's own loader takes the last."""
    lines: dict[tuple[str, str], int] = {}
    for key in keys:
        line, name = key.start_mark.line + 1, (key.tag, key.value)
        if name in lines and key.tag != "tag:yaml.org,2002:merge":
            raise ValueError(f"the key {key.value[:100]!r} stands in line {lines[name]} and again in line {line}")
        lines[name] = line
