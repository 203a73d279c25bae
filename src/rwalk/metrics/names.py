"""What a metric is called."""

from __future__ import annotations

from typing import Literal

__all__ = ["metric_key"]


def metric_key(
    metric: str,
    stream: str,
    *,
    phase: Literal["eval", "train"] = "eval",
    task: int | None = None,
    experience: int | None = None,
) -> str:
    """The name under which a metric is published; Avalanche's.

    Args:
        metric: What was measured, and over what: ``"Top1_Acc_Stream"``, ``"Loss_Exp"``, ``"StreamForgetting"``, …
        stream: Name of the stream.
        phase: When it was measured.
        task: Task label, of what was measured on one experience.
        experience: Place of that experience in the stream.

    Example:
        >>> metric_key("Top1_Acc_Stream", "test")
        'Top1_Acc_Stream/eval_phase/test_stream'
        >>> metric_key("Top1_Acc_Exp", "test", task=0, experience=2)
        'Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp002'
    """
    place = "" if experience is None else f"/Task{task or 0:03d}/Exp{experience:03d}"
    return f"{metric}/{phase}_phase/{stream}_stream{place}"
