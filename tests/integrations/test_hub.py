"""Push and pull, against a small server that answers as the Hub does: nothing leaves the machine."""

import base64
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module

import pytest
import torch
from torch import nn

from rwalk import RWalk, RWalkConfig, RWalkError, StateError
from rwalk.integrations.hub import STATE, model_card, pull_state, push_state, write_folder

huggingface_hub = pytest.importorskip("huggingface_hub")

REPOSITORY = "somebody/protected"


class Hub(BaseHTTPRequestHandler):
    """Repositories in memory: created, committed to, and read."""

    files: dict[str, bytes]
    log: list[str]

    def log_message(self, *arguments):
        pass

    def answer(self, value, code=200, **headers):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        for name, content in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, content)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.log.append(self.path)
        here = f"http://{self.headers['Host']}/{REPOSITORY}"
        if self.path.endswith("/create"):
            self.answer({"url": here, "name": REPOSITORY, "id": "1"})
        elif "/preupload/" in self.path:
            wanted = [file["path"] for file in json.loads(body)["files"]]
            self.answer({"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in wanted]})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer({"success": True, "commitOid": "a" * 40, "commitUrl": f"{here}/commit/{'a' * 40}"})
        else:
            self.answer({"errors": [], "warnings": []})

    def do_GET(self):
        found = re.fullmatch(rf"/{REPOSITORY}/resolve/[^/]+/(.*)", self.path)
        if found is None or found[1] not in self.files:
            self.answer({}, 404, **{"X-Error-Code": "EntryNotFound"})
        else:
            self.answer(self.files[found[1]], ETag='"1"', **{"X-Repo-Commit": "a" * 40})

    do_HEAD = do_GET  # noqa: N815 - the protocol's name


@pytest.fixture
def hub(tmp_path, monkeypatch):
    class Mine(Hub):
        files: dict[str, bytes] = {}  # noqa: RUF012 - this test's own
        log: list[str] = []  # noqa: RUF012

    server = ThreadingHTTPServer(("127.0.0.1", 0), Mine)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(import_module("huggingface_hub.constants"), "HF_HUB_CACHE", str(tmp_path / "hub"))
    api = huggingface_hub.HfApi(endpoint=f"http://127.0.0.1:{server.server_port}", token="hf_x")
    yield api, Mine
    server.shutdown()
    thread.join()
    server.server_close()


def learned(name="body"):
    torch.manual_seed(0)
    model = nn.ModuleDict({name: nn.Linear(3, 4), "head": nn.Linear(4, 2)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(delta_t=2))
    for _ in range(5):
        optimizer.zero_grad()
        model["head"](model[name](torch.ones(2, 3))).square().sum().backward()
        optimizer.step()
    return model, optimizer, rwalk


@pytest.mark.parametrize("compact", [True, False])
def test_what_was_pushed_is_pulled(hub, compact):
    api, server = hub
    model, optimizer, rwalk = learned()
    rwalk.consolidate()
    assert push_state(rwalk, REPOSITORY, compact=compact, api=api).endswith("/commit/" + "a" * 40)
    assert set(server.files) == {STATE, "README.md"}
    path = pull_state(REPOSITORY, api=api)
    assert path.read_bytes() == server.files[STATE]
    rwalk.detach()
    again = RWalk.load(path, model, optimizer)
    for name, importance in rwalk.importances().items():
        torch.testing.assert_close(again.importances()[name], importance, rtol=0.05 if compact else 0, atol=0)


def test_nothing_is_uploaded_before_a_task_has_ended(hub):
    api, server = hub
    with pytest.raises(RWalkError, match="no task has ended"):
        push_state(learned()[2], REPOSITORY, api=api)
    assert server.log == []


def test_what_is_no_state_is_refused(hub):
    api, server = hub
    server.files[STATE] = b"something else"
    with pytest.raises(StateError):
        pull_state(REPOSITORY, api=api)


def test_the_card_says_what_is_protected_and_nothing_else(tmp_path):
    _, _, rwalk = learned("<script>|`x`")
    rwalk.consolidate()
    write_folder(rwalk, tmp_path, REPOSITORY)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert card == model_card(tmp_path / STATE, REPOSITORY)
    assert huggingface_hub.ModelCard(card).data.library_name == "rwalk"
    assert "**Tasks learned:** 1, in 5 steps" in card
    assert "**Parameters protected:** 26 in 4 tensors" in card
    assert "<script>" not in card
    shares = [float(found) for found in re.findall(r"</code> \| ([\d.]+) % \|", card)]
    assert len(shares) == 2
    assert sum(shares) == pytest.approx(100, abs=0.2)
