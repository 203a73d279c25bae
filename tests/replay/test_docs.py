"""The code blocks of docs/replay.md run, one after another."""

import re
from pathlib import Path

import torch

from rwalk.training import RWalkPlugin
from training.toys import net, sgd, toy

PAGE = Path(__file__).parents[2] / "docs" / "replay.md"


def test_the_pages_code_runs(tmp_path):
    model, benchmark, trained = net(), toy(per_class=40), []
    data = [experience.dataset for experience in benchmark.train_stream]
    names = {
        "torch": torch,
        "model": model,
        "optimizer": sgd(model),
        "benchmark": benchmark,
        "tasks": [(part, part.targets) for part in data],
        "stream": [part.batch(torch.arange(start, start + 9))[:2] for part in data for start in (0, 9, 18)],
        "train": lambda model, optimizer, dataset, samples: trained.append((len(dataset), len(samples))),
        "folder": tmp_path,
    }
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    compiled = (compile(block, "replay.md", "exec") for block in blocks)
    template, own_loop, own_sampler, judged, judged_by_hand, checkpoint, online = compiled

    exec(template, names)
    assert names["replay"].memory.counts == dict.fromkeys(range(4), 10)
    assert isinstance(names["strategy"].plugins[0], RWalkPlugin)

    exec(own_loop, names)
    assert trained == [(80, 0), (80, 40)]
    assert names["memory"].counts == dict.fromkeys(range(4), 10)

    exec(own_sampler, names)
    names["memory"].update(data[0], data[0].targets, model=model)
    kept = [x.tolist() for x, *_ in names["memory"].samples]
    exec(judged, names)
    assert names["replay"].memory.counts == dict.fromkeys(range(4), 10)
    assert names["strategy"].plugins[1].judge.classes.tolist() == [0, 1, 2, 3]
    exec(judged_by_hand, names)
    assert len(names["predicted"]) == len(names["dataset"])
    assert set(names["predicted"].tolist()) <= {0, 1}
    exec(checkpoint, names)
    assert [x.tolist() for x, *_ in names["memory"].samples] == kept
    assert names["memory"].counts == {0: 3, 1: 3}

    trained.clear()
    exec(online, names)
    assert trained == [(9, 0), (9, 9), (9, 18), (9, 20), (9, 20), (9, 20)]
