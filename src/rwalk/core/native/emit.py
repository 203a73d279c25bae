"""C source of the equations, taken from the equations themselves.

Each function of ``functional`` is run once on symbols; what it does to them is written down as C. So the mathematics
has one home, and a change there changes the kernels.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

from torch import fx

__all__ = ["c_function"]

BINARY = {"add": "+", "sub": "-", "mul": "*", "div": "/", "truediv": "/"}


def c_function(function: Callable[..., Any], name: str | None = None, **fixed: Any) -> str:
    """An elementwise function as a C function of one element.

    Args:
        function: Works on tensors; its arguments annotated ``Tensor …`` become ``S`` (the state's type in C), all
            others ``double``, as torch takes its scalars.
        name: Of the C function; the Python function's own if None.
        fixed: Arguments with a constant value; they do not appear in C.

    Returns:
        Its definition, ``static inline S name(...)``.

    Raises:
        NotImplementedError: It uses an operation that has no C form here.

    Example:
        >>> from rwalk.core import functional as F
        >>> print(c_function(F.loss_change))
        static inline S loss_change(S accumulated, S gradient, S decrease) {
          const S addcmul = accumulated + gradient * decrease;
          return addcmul;
        }
    """
    graph = fx.Graph()
    tracer = fx.proxy.GraphAppendingTracer(graph)
    arguments: dict[str, Any] = {}
    signature = []
    values = _Values()
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in fixed:
            arguments[parameter.name] = fixed[parameter.name]
        elif parameter.name != "out":
            arguments[parameter.name] = fx.Proxy(graph.placeholder(parameter.name), tracer)
            kind = "S" if parameter.annotation.startswith("Tensor") else "double"
            values.types[parameter.name] = kind
            signature.append(f"{kind} {parameter.name}")
    result = function(**arguments)
    lines = [values.assign(node) for node in graph.nodes if node.op != "placeholder"]
    lines.append(f"  return {values.name(result.node)};")
    body = "\n".join(lines)
    return f"static inline S {name or function.__name__}({', '.join(signature)}) {{\n{body}\n}}"


class _Values:
    """What each symbol holds: a C constant, and after an operation in place the next one."""

    def __init__(self) -> None:
        self.types: dict[str, str] = {}
        self._memory: dict[fx.Node, fx.Node] = {}
        self._content: dict[fx.Node, str] = {}

    def name(self, node: fx.Node) -> str:
        """The constant that a symbol stands for by now."""
        memory = self._memory.get(node, node)
        return self._content.get(memory, memory.name)

    def assign(self, node: fx.Node) -> str:
        """The C line of an operation."""
        kind, expression = self._expression(node)
        self.types[node.name] = kind
        in_place = node.op == "call_method" and str(node.target).endswith("_")
        target = node.args[0] if in_place else node.kwargs.get("out")
        if isinstance(target, fx.Node):
            memory = self._memory.get(target, target)
            self._memory[node], self._content[memory] = memory, node.name
        return f"  const {kind} {node.name} = {expression};"

    def _expression(self, node: fx.Node) -> tuple[str, str]:
        operation = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "?")
        operation = operation.rstrip("_")
        of_numbers = getattr(operator, operation, None) is node.target and not any(map(self._is_tensor, node.args))
        operands = [self._operand(argument, of_numbers) for argument in node.args]
        kind = "double" if of_numbers else "S"
        options = {key: value for key, value in node.kwargs.items() if key != "out"}
        if operation == "addcmul":
            value = options.pop("value", 1)
            operands[1:] = operands[1:] if value == 1 else [self._operand(value, of_numbers), *operands[1:]]
        if not options:
            if operation in BINARY and len(operands) == 2:
                return kind, f" {BINARY[operation]} ".join(operands)
            if operation == "addcmul":
                return kind, f"{operands[0]} + {' * '.join(operands[1:])}"
            if operation == "reciprocal":
                return kind, f"1 / {operands[0]}"
            if operation == "lerp":
                start, end, weight = operands
                near, far = f"{start} + {weight} * ({end} - {start})", f"{end} - ({end} - {start}) * (1 - {weight})"
                return kind, f"{weight} < (S)0.5 ? {near} : {far}"
        raise NotImplementedError(f"{node.format_node()}: no C form; add one to {__name__}")

    def _is_tensor(self, argument: Any) -> bool:
        return isinstance(argument, fx.Node) and self.types[self.name(argument)] == "S"

    def _operand(self, argument: Any, of_numbers: bool) -> str:
        """A name or number; in an operation on tensors numbers take the tensors' type, as in torch."""
        text = self.name(argument) if isinstance(argument, fx.Node) else repr(float(argument))
        return text if of_numbers or self._is_tensor(argument) else f"(S){text}"
