"""State files: verified, replaced at once, streamed, and loaded where the model or the machine is another."""

import errno
import logging
import os
import stat
import subprocess
import sys
import threading
from copy import deepcopy

import pytest
import torch
from torch import nn

from core.saved import CONFIG, learned_walk, walk
from reference.problems import assert_same_state, tanh_net, train
from rwalk import RWalk, RWalkConfig, RWalkError, StateError
from rwalk.core import replacing
from rwalk.core.compact import coded, decoded, halved, restored
from rwalk.core.files import load_state

ROOT_OR_WINDOWS = os.name == "nt" or (hasattr(os, "getuid") and os.getuid() == 0)


@pytest.fixture
def learned():
    return learned_walk()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def load_into(path, model, **options):
    return RWalk.load(path, model, torch.optim.Adam(model.parameters(), lr=0.01), attach=False, **options)


def refused(rwalk, state, **options):
    before = rwalk.state_dict()
    with pytest.raises(StateError) as caught:
        rwalk.load_state_dict(state, **options)
    assert_same_state(rwalk.state_dict(), before)
    assert len(str(caught.value)) <= 500
    return str(caught.value)


# --- what a state may hold --------------------------------------------------------------------------------------------


def parameter(state):
    return state["parameters"]["0.weight"]


def set_element(quantity, value):
    def change(state):
        parameter(state)[quantity].view(-1)[3] = value

    return change


BROKEN = {
    "fisher of '0.weight'|its fisher is negative": set_element("fisher", -1e-9),
    "its importance is negative": set_element("importance", -1.0),
    "its score is not finite": set_element("score", float("nan")),
    "its anchor is not finite": set_element("anchor", float("inf")),
    "its window_start is not finite": set_element("window_start", float("-inf")),
    "has no 'updates'": lambda state: parameter(state).pop("updates"),
    "has no 'anchor'": lambda state: parameter(state).pop("anchor"),
    "has no 'steps'": lambda state: state.pop("steps"),
    "the state's steps: True": lambda state: state.update(steps=True),
    "the state's tasks: 1.0": lambda state: state.update(tasks=1.0),
    "the state's steps: -1": lambda state: state.update(steps=-1),
    "task_steps are 99, of 16 steps": lambda state: state.update(task_steps=99),
    "last_task of '0.weight': 2": lambda state: parameter(state).update(last_task=2),
    "not zero, though no task": lambda state: (
        state.update(tasks=0) or [values.update(last_task=0) for values in state["parameters"].values()]
    ),
    "ewc_alpha=7": lambda state: state["config"].update(ewc_alpha=7),
    "unknown setting 'warp'": lambda state: state["config"].update(warp=7),
    "config is \\[\\]|config is a list": lambda state: state.update(config=[]),
    "its score is in torch.int64": lambda state: parameter(state).update(score=torch.zeros(4, 3, dtype=torch.int64)),
    "its score is a list": lambda state: parameter(state).update(score=[1.0]),
    "no dense tensor": lambda state: parameter(state).update(score=torch.zeros(4, 3, device="meta")),
    "differ in shape": lambda state: parameter(state).update(score=torch.zeros(4, 4)),
    "which no state has": lambda state: parameter(state).update(velocity=torch.zeros(4, 3)),
    "schema 3: this rwalk reads": lambda state: state.update(schema=3),
    "holds no parameter": lambda state: state.update(parameters={}),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_state_dict_that_is_wrong_anywhere_is_refused_and_changes_nothing(learned, message):
    state = deepcopy(learned[2].state_dict())
    BROKEN[message](state)
    assert any(part in refused(learned[2], state).replace("\\", "") for part in message.replace("\\", "").split("|"))


@pytest.mark.parametrize("state", [None, [], {}, "state", 7])
def test_what_is_no_state_at_all_is_refused(learned, state):
    assert "not an rwalk state" in refused(learned[2], state)


def test_a_refused_load_leaves_no_hook_on_the_model(learned, tmp_path):
    learned[2].save(tmp_path / "state")
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    with pytest.raises(StateError, match="strict=False"):
        load_into(tmp_path / "state", model)
    assert not any(module._load_state_dict_post_hooks for module in model.modules())


def test_a_state_that_overflowed_is_not_saved(learned, tmp_path):
    _, _, rwalk = learned
    rwalk.save(tmp_path / "state")
    old = (tmp_path / "state").read_bytes()
    rwalk._tracker.view(rwalk._tracker.entries[0], "score")[0] = float("inf")
    with pytest.raises(RWalkError, match=r"the score of '0\.weight' is not finite"):
        rwalk.save(tmp_path / "state")
    assert (tmp_path / "state").read_bytes() == old
    assert names(tmp_path) == ["state"]


# --- what the file system does ----------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="permissions and links are POSIX's")
def test_the_umask_is_respected_and_links_stay(learned, tmp_path):
    before = os.umask(0)
    try:
        for mask in (0o022, 0o077, 0o002):
            os.umask(mask)
            learned[2].save(tmp_path / f"state-{mask}")
            assert stat.S_IMODE((tmp_path / f"state-{mask}").stat().st_mode) == 0o666 & ~mask
    finally:
        os.umask(before)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "state")
    learned[2].save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert load_state(tmp_path / "elsewhere" / "state")["steps"] == 16


def test_a_full_disk_is_an_os_error_and_the_old_file_stays(learned, tmp_path, monkeypatch):
    learned[2].save(tmp_path / "state")
    old = (tmp_path / "state").read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(replacing.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*state'") as caught:
        learned[2].save(tmp_path / "state")
    assert not isinstance(caught.value, StateError)
    assert (tmp_path / "state").read_bytes() == old
    assert names(tmp_path) == ["state"]


def test_what_a_killed_process_has_left_is_removed_and_what_a_living_one_writes_is_not(learned, tmp_path):
    command = "import os, sys; from rwalk.core.replacing import replacing\nwith replacing(sys.argv[1]): os._exit(1)"
    subprocess.run([sys.executable, "-c", command, str(tmp_path / "state")], check=False)
    assert len(names(tmp_path)) == 1
    with replacing.replacing(tmp_path / "other.safetensors") as file:
        file.write(b"half")
        (living,) = (name for name in names(tmp_path) if "other" in name)
        learned[2].save(tmp_path / "state")
        learned[2].save(tmp_path / "other.safetensors")
        assert names(tmp_path) == sorted(["state", "other.safetensors", living])


@pytest.mark.skipif(ROOT_OR_WINDOWS, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_an_os_error(learned, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        learned[2].save(tmp_path / "state")
    tmp_path.chmod(0o700)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StateError, match="is not a file"):
        load_state(tmp_path / "pipe")


def test_a_load_beside_saves_sees_one_state(tmp_path):
    """Header and tensors come from the file that was opened, whatever takes its place meanwhile."""
    model, optimizer, rwalk = learned_walk()
    path, other = tmp_path / "state", tmp_path / "other"
    rwalk.save(path)
    known = [path.read_bytes()]
    train(model, optimizer, 1, 3, torch.float32)
    rwalk.save(other)
    known.append(other.read_bytes())
    stop = threading.Event()

    def swap():
        turn = 0
        while not stop.is_set():
            turn += 1
            (tmp_path / "next").write_bytes(known[turn % 2])
            (tmp_path / "next").replace(path)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        seen = {load_state(path)["steps"] for _ in range(200)}
    finally:
        stop.set()
        thread.join()
    assert seen <= {16, 19}


# --- models that are others -------------------------------------------------------------------------------------------


def grown(model, rows):
    """Another model whose last layer has more or fewer rows."""
    other = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, rows))
    other[0].load_state_dict(model[0].state_dict())
    return other


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_with_strict_off_what_fits_is_taken(learned, rows, tmp_path, caplog):
    model, _, rwalk = learned
    rwalk.save(tmp_path / "state")
    other = grown(model, rows)
    if rows != 2:
        with pytest.raises(StateError, match="strict=False"):
            load_into(tmp_path / "state", other)
    caplog.set_level(logging.WARNING, logger="rwalk.core.restoring")
    caplog.clear()
    loaded = load_into(tmp_path / "state", other, strict=False)
    told = [record.getMessage() for record in caplog.records if "strict=False" in record.getMessage()]
    assert len(told) == (rows != 2)
    before, after = rwalk.state_dict()["parameters"], loaded.state_dict()["parameters"]
    for quantity in ("fisher", "score", "importance", "anchor"):
        kept = min(rows, 2)
        assert torch.equal(after["2.weight"][quantity][:kept], before["2.weight"][quantity][:kept])
        assert torch.equal(after["0.weight"][quantity], before["0.weight"][quantity])
    if rows == 5:
        assert after["2.weight"]["fresh"][2:].all()
        assert not after["2.weight"]["fresh"][:2].any()
        assert torch.equal(after["2.weight"]["anchor"][2:], other[2].weight.detach()[2:])
        assert not after["2.weight"]["importance"][2:].any()
    loaded.save(tmp_path / "again")
    assert_same_state(load_into(tmp_path / "again", other).state_dict(), loaded.state_dict())


def test_with_strict_off_a_lost_head_is_named(learned, caplog):
    _, _, other = walk(nn.Sequential(nn.Linear(3, 4), nn.Tanh()))
    other.load_state_dict(learned[2].state_dict(), strict=False)
    (told,) = [record.getMessage() for record in caplog.records if "strict=False" in record.getMessage()]
    assert "2 parameter(s) of the state are left out (2.weight, 2.bias)" in told
    assert set(other.importances()) == {"0.weight", "0.bias"}


def test_with_strict_off_a_state_of_something_else_is_refused(learned):
    _, _, other = walk(nn.Sequential(nn.Identity(), nn.Linear(3, 4)))
    assert "no parameter in common" in refused(other, learned[2].state_dict(), strict=False)


def test_what_grew_or_joined_just_before_a_save_loads_again(learned, tmp_path):
    model, optimizer, rwalk = learned
    model[2].weight.data = torch.cat([model[2].weight.data, torch.ones(3, 4)])
    model[2].bias.data = torch.cat([model[2].bias.data, torch.ones(3)])
    model.append(nn.Linear(5, 2))
    optimizer.add_param_group({"params": list(model[3].parameters())})
    rwalk.save(tmp_path / "state")
    again = load_into(tmp_path / "state", model)
    assert_same_state(again.state_dict(), rwalk.state_dict())
    assert again.state_dict()["parameters"]["2.weight"]["fresh"].sum() == 12


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_a_state_loads_under_another_dtype(learned, kind, tmp_path):
    _, _, rwalk = learned
    rwalk.save(tmp_path / "state")
    loaded = load_into(tmp_path / "state", tanh_net(dtype=kind))
    for name, importance in rwalk.importances().items():
        assert torch.equal(loaded.importances()[name].float(), importance)


# --- the compact form -------------------------------------------------------------------------------------------------


def test_a_compact_file_has_less_than_four_bytes_a_parameter_and_starts_a_task(tmp_path, caplog):
    model = nn.Sequential(nn.Linear(40, 60), nn.Tanh(), nn.Linear(60, 10))
    model, optimizer, rwalk = walk(model, CONFIG.replace(combine="sum"))
    with pytest.raises(RWalkError, match="no task has ended"):
        rwalk.save(tmp_path / "state", compact=True)
    for _ in range(9):
        optimizer.zero_grad()
        model(torch.randn(8, 40)).square().sum().backward()
        optimizer.step()
    rwalk.consolidate()
    rwalk.save(tmp_path / "state", compact=True)
    parameters = sum(p.numel() for p in model.parameters())
    assert (tmp_path / "state").stat().st_size < 4 * parameters + 2000
    assert names(tmp_path) == ["state"]
    loaded = load_into(tmp_path / "state", model)
    assert (loaded.tasks, loaded.task_steps, loaded.window_steps) == (1, 0, 0)
    assert loaded.penalty().item() == pytest.approx(0.0, abs=1e-6)
    assert "combine" not in caplog.text
    for name, importance in rwalk.importances().items():
        rounded = loaded.importances()[name]
        assert torch.equal(rounded == 0, importance == 0)
        torch.testing.assert_close(rounded, importance, rtol=0.046, atol=float(importance.max()) * 2.0**-32)
    before = rwalk.importances()
    rwalk.detach()
    loaded.attach()
    for _ in range(5):
        loaded.optimizer.zero_grad()
        model(torch.randn(8, 40)).square().sum().backward()
        loaded.optimizer.step()
    loaded.consolidate()
    assert all((loaded.importances()[name] >= 0.95 * old).all() for name, old in before.items())
    loaded.detach()
    load_into(tmp_path / "state", model, config=RWalkConfig(combine="replace"))
    assert "until the next consolidate()" in caplog.text


def test_rounding_never_protects_what_was_free_nor_frees_what_was_protected():
    values = torch.tensor([0.0, 1e-45, 1e-38, 1e-9, 0.3, 1.0, 3e38])
    codes, high, step = coded(values)
    back = decoded(codes, high, step, torch.float32)
    assert back.isfinite().all()
    assert torch.equal(back == 0, values == 0)
    assert back.max() == values.max()
    narrow = torch.rand(1000) + 0.5
    found = decoded(*coded(narrow), torch.float32)
    torch.testing.assert_close(found, narrow, rtol=2**-8, atol=0)
    for odd in (torch.zeros(0), torch.zeros(3), torch.full((2, 2), 7.0)):
        assert torch.equal(decoded(*coded(odd), torch.float32), odd)


@pytest.mark.parametrize("scale", [1e-30, 1e-5, 1.0, 1e5, 1e30])
def test_anchors_are_right_to_twelve_bits_at_any_scale(scale):
    weights = torch.randn(1000) * scale
    back = restored(*halved(weights), torch.float32)
    torch.testing.assert_close(back, weights, rtol=2**-11, atol=float(weights.abs().max()) * 2**-38)
    assert torch.equal(restored(*halved(torch.zeros(3)), torch.float32), torch.zeros(3))
