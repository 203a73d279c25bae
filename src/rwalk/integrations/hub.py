"""The Hugging Face Hub: a state in a repository, with a card that says what is protected.

Needs ``huggingface_hub``, which transformers and datasets bring along. Nothing but the state and the card is uploaded.
"""

from __future__ import annotations

import html
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwalk.core import RWalk
from rwalk.core.files import inspect_state
from rwalk.core.inspection import summarize_state
from rwalk.errors import MissingExtraError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["STATE", "model_card", "pull_state", "push_state", "write_folder"]

#: The state's name in a repository: one level down, because some servers load every safetensors file at the top.
STATE = "rwalk/state.safetensors"
CARD = """---
library_name: rwalk
tags:
- continual-learning
- elastic-weight-consolidation
---

# What this model must not forget

A state of Riemannian Walk: how much each weight matters for what was learned, and where it was then.

- **Tasks learned:** {tasks}, in {steps} steps
- **Parameters protected:** {elements} in {tensors} tensors
- **Form:** {form}
- **Settings:** {settings}

| layer | share of all importance |
|---|---:|
{layers}

```python
from rwalk import RWalk
from rwalk.integrations.hub import pull_state

rwalk = RWalk.load(pull_state({repository!r}), model, optimizer)
```
"""


def push_state(
    rwalk: RWalk,
    repository: str,
    *,
    compact: bool = True,
    private: bool | None = None,
    message: str = "RWalk's state",
    api: HfApi | None = None,
) -> str:
    """Upload an ``RWalk``'s state, with a card; the repository is made if there is none.

    Args:
        rwalk: After a task.
        repository: ``user/name``, of a model.
        compact: As in ``RWalk.save``.
        private: Whether a repository that is made is private; the account's choice if None.
        message: Of the commit.
        api: Speaks with the Hub: its token, its address.

    Returns:
        The commit's address.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        RWalkError: As ``RWalk.save``. Nothing is uploaded then.
    """
    api = api if api is not None else _hub("push_state").HfApi()
    with tempfile.TemporaryDirectory() as folder:
        write_folder(rwalk, folder, repository, compact=compact)
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    return str(commit.commit_url)


def pull_state(repository: str, *, revision: str | None = None, api: HfApi | None = None) -> Path:
    """Download a state, into the Hub's own cache.

    Args:
        repository: ``user/name``.
        revision: A branch, tag or commit; the main branch if None.
        api: As in ``push_state``.

    Returns:
        Where the file is, for ``RWalk.load``.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        StateError: What is there is no state, or its header is damaged; ``RWalk.load`` verifies the rest.
    """
    api = api if api is not None else _hub("pull_state").HfApi()
    path = Path(api.hf_hub_download(repository, STATE, revision=revision))
    inspect_state(path)
    return path


def write_folder(rwalk: RWalk, folder: str | Path, repository: str, *, compact: bool = True) -> None:
    """What is uploaded: the state and ``README.md``."""
    path = Path(folder) / STATE
    path.parent.mkdir(parents=True, exist_ok=True)
    rwalk.save(path, compact=compact)
    (Path(folder) / "README.md").write_text(model_card(path, repository), encoding="utf-8")


def model_card(path: str | Path, repository: str) -> str:
    """The card of a state file: what it protects, in Markdown."""
    found = summarize_state(path)
    rows = [
        f"| <code>{_shown(name) or '(model)'}</code> | {_percent(part)} |" for name, part in found["layers"].items()
    ]
    form = "importances and anchors, rounded to 3 bytes a parameter" if found["compact"] else "whole: training goes on"
    return CARD.format(
        tasks=found["tasks"],
        steps=found["steps"],
        elements=found["elements"],
        tensors=len(found["parameters"]),
        form=form,
        settings=", ".join(f"<code>{_shown(f'{name}={value!r}')}</code>" for name, value in found["config"].items()),
        layers="\n".join(rows),
        repository=repository,
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _shown(text: str) -> str:
    """A name from a state, as text that Markdown and HTML leave alone."""
    plain = "".join(sign if sign.isprintable() else "�" for sign in text[:200])
    return "".join(f"&#{ord(sign)};" if sign in "|`*_[]\\~" else sign for sign in html.escape(plain))


def _hub(feature: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtraError(feature, "transformers", error) from error
    return huggingface_hub
