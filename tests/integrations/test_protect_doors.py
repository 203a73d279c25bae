"""``protect=`` of every door: what ``RWalk.protect`` finds by hand, once, and kept when tasks end."""

import copy

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import TrainerCallback

from contracts.doors_lightning import QUIET, quiet
from integrations.trainers import classifier, labelled, language_model, sentences, trainer
from reference.problems import assert_same, weights
from rwalk import RWalk, RWalkConfig, RWalkPlugin
from rwalk.errors import StateError
from rwalk.integrations.accelerate import prepare_rwalk
from rwalk.integrations.lightning import RWalkCallback
from rwalk.integrations.peft import BaseProtection
from rwalk.integrations.transformers import RWalkTrainerCallback
from rwalk.training import Naive
from training.toys import toy

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

WEAK = RWalkConfig(ewc_lambda=1e-3)


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def inputs(seed=0, count=40):
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


def by_hand(model, batches, **options):
    """Importances of a copy, as it stands."""
    twin = copy.deepcopy(model)
    rwalk = RWalk(twin, torch.optim.SGD(twin.parameters(), lr=0.1), WEAK)
    rwalk.protect(batches, **options)
    return rwalk.importances()


class Lit(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(module, *callbacks, **options):
    data = TensorDataset(inputs(9), torch.arange(40) % 3)
    with quiet():
        Trainer(max_epochs=1, callbacks=[*callbacks], **{**QUIET, **options}).fit(
            module, DataLoader(data, batch_size=8)
        )


def test_hugging_face_trainer(tmp_path):
    model, old = classifier(), labelled(0, 12)
    batches = [{name: torch.stack([row[name] for row in old[at : at + 4]]) for name in old[0]} for at in (0, 4, 8)]
    expected = by_hand(model, batches, max_samples=10)
    callback = RWalkTrainerCallback(WEAK, consolidate_on=None, protect=old, protect_options={"max_samples": 10})
    assert callback.config.combine == "sum"
    trainer(model, tmp_path, labelled(1), callback).train()
    assert_same(callback.rwalk.importances(), expected)
    assert callback.rwalk.tasks == 1
    trainer(model, tmp_path, labelled(1), callback).train()
    assert callback.rwalk.tasks == 1  # once
    callback.rwalk.consolidate()
    assert all(bool((now >= expected[name]).all()) for name, now in callback.rwalk.importances().items())  # and kept


def test_hugging_face_dataset_with_columns_that_the_model_does_not_take(tmp_path):
    model, old = classifier(), labelled(0, 8)
    rows = [{name: value.tolist() for name, value in row.items()} for row in old]
    dataset = Dataset.from_list([{**row, "text": "never a tensor"} for row in rows]).with_format("torch")
    expected = by_hand(model, [{name: torch.stack([row[name] for row in old]) for name in old[0]}])
    callback = RWalkTrainerCallback(WEAK, consolidate_on=None, protect=dataset)
    trainer(model, tmp_path, labelled(1), callback, per_device_train_batch_size=8).train()
    assert_same(callback.rwalk.importances(), expected)


def test_a_state_that_is_loaded_has_it_already(tmp_path):
    model = classifier()
    first = RWalkTrainerCallback(WEAK, consolidate_on=None, protect=labelled(0, 8))
    trainer(model, tmp_path, labelled(1), first).train()
    first.rwalk.save(tmp_path / "state.safetensors")
    second = RWalkTrainerCallback(
        consolidate_on=None, protect=labelled(0, 8), start_from=tmp_path / "state.safetensors"
    )
    trainer(model, tmp_path, labelled(1), second).train()
    assert second.rwalk.tasks == 1
    assert second.rwalk.config == WEAK.replace(combine="sum")  # the saved one


def test_reporters_in_front_get_the_figures_too(tmp_path):
    reported = []

    class Reporter(TrainerCallback):
        def on_log(self, args, state, control, **kwargs):
            reported.append(dict(kwargs["logs"]))

    class Counter(TrainerCallback):
        begun = 0

        def on_train_begin(self, *_, **__):
            self.begun += 1

    others = [Counter(), Counter()]
    callback = RWalkTrainerCallback(WEAK, protect=labelled(0, 8), log=True)
    framework = trainer(
        classifier(), tmp_path, labelled(1), Reporter(), others[0], callback, others[1],
        logging_strategy="steps", logging_steps=4,
    )  # fmt: skip
    framework.train()
    assert {"rwalk/penalty", "rwalk/gradient_ratio", "rwalk/held", "loss"} <= reported[0].keys()
    assert [other.begun for other in others] == [1, 1]


def test_lightning(tmp_path):
    module = Lit()
    expected = by_hand(module, [inputs()[:32], inputs()[32:]])
    callback = RWalkCallback(WEAK, consolidate_on=None, protect=list(inputs().split(32)))
    fit(module, callback, max_steps=3)
    assert_same(callback.rwalk.importances(), expected)
    fit(module, callback, max_steps=3)
    assert callback.rwalk.tasks == 1


@pytest.mark.parametrize("data", ["loader", "dataset"])
def test_lightning_with_labels_in_bfloat16(data):
    module = Lit()
    dataset = TensorDataset(inputs(), torch.arange(40) % 3)
    protect = DataLoader(dataset, batch_size=32) if data == "loader" else dataset
    callback = RWalkCallback(WEAK, consolidate_on=None, protect=protect, protect_options={"labels": "data"})
    fit(module, callback, max_steps=2, precision="bf16-true")
    assert callback.rwalk.tasks == 1
    assert all(bool(value.any()) for value in callback.rwalk.importances().values())


def test_lightning_logs_each_optimizers_figures():
    module, callback = Lit(), RWalkCallback(WEAK, protect=[inputs()], log=True)
    with quiet():
        framework = Trainer(max_steps=4, callbacks=[callback], log_every_n_steps=2, **QUIET)
        framework.fit(module, DataLoader(TensorDataset(inputs(9), torch.arange(40) % 3), batch_size=8))
    assert {"rwalk/penalty", "rwalk/gradient_ratio", "rwalk/drift"} <= framework.callback_metrics.keys()


def test_accelerate():
    accelerator, plain = Accelerator(cpu=True), network()
    expected = by_hand(plain, [inputs()])
    model, optimizer = accelerator.prepare(plain, torch.optim.SGD(plain.parameters(), lr=0.1))
    loader = accelerator.prepare(DataLoader(TensorDataset(inputs()), batch_size=40))
    rwalk = prepare_rwalk(accelerator, model, optimizer, protect=loader, protect_options={"seed": 0})
    assert rwalk.attached
    assert rwalk.config.combine == "sum"
    assert_same(rwalk.importances(), expected)


@pytest.mark.parametrize("data", ["batches", "dataset"])
def test_plugin(data):
    stream = toy().train_stream
    x = torch.randn(20, *stream[0].dataset[0][0].shape, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    model = nn.Linear(x.shape[1], 10)
    expected = by_hand(model, [x[:8], x[8:16], x[16:]])
    batches = [(part, torch.zeros(len(part)).long()) for part in x.split(8)]
    protect = batches if data == "batches" else TensorDataset(x, torch.zeros(20).long())
    plugin = RWalkPlugin.from_config(WEAK, protect=protect)
    strategy = Naive(
        model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.0), train_mb_size=8, plugins=[plugin]
    )
    begins = []
    original = plugin.before_training_iteration
    plugin.before_training_iteration = lambda *args, **kwargs: (
        begins.append(plugin.rwalk.importances()) if not begins else None,
        original(*args, **kwargs),
    )
    strategy.train(stream[0])
    assert_same(begins[0], expected)
    assert plugin.rwalk.tasks == 2
    assert plugin.config.combine == "sum"


def test_the_plugin_tells_of_classes_without_exemplars():
    from rwalk.training import ReplayPlugin

    for others, told in (([], True), ([ReplayPlugin(per_class=2)], False)):
        data, plugin = toy(), RWalkPlugin()
        torch.manual_seed(0)
        model = nn.Linear(data.train_stream[0].dataset[0][0].shape[0], 10)
        strategy = Naive(
            model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), train_mb_size=8,
            plugins=[plugin, *others],
        )  # fmt: skip
        strategy.train(data.train_stream[0])
        assert not any("outvoted" in warning for warning in plugin.report().warnings)
        strategy.train(data.train_stream[1])
        assert any("outvoted" in warning for warning in plugin.report().warnings) is told


@pytest.mark.parametrize(
    "door", [RWalkTrainerCallback, RWalkCallback, lambda **kwargs: RWalkPlugin.from_config(WEAK, **kwargs)]
)
def test_what_is_refused(door):
    with pytest.raises(TypeError, match=r"protect is one Tensor.*\[batch\]"):
        door(protect=inputs())
    with pytest.raises(ValueError, match="protect_options has 'labelz': expected some of labels, likelihood"):
        door(protect=[inputs()], protect_options={"labelz": "data"})
    with pytest.raises(ValueError, match="protect_options without protect"):
        door(protect_options={"labels": "data"})


def test_hugging_face_trainer_does_not_take_a_generator():
    with pytest.raises(TypeError, match=r"protect is a generator.*expected a dataset .*list\(\.\.\.\)"):
        RWalkTrainerCallback(protect=(row for row in labelled(0, 4)))


def adapted(seed=0):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(language_model(seed, dropout=0.0), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))


def test_hugging_face_trainer_with_adapters_protects_the_frozen_base(tmp_path):
    model, old = adapted(), sentences(0, 8)
    twin = adapted()
    by_hand = BaseProtection(twin, torch.optim.SGD([p for p in twin.parameters() if p.requires_grad], lr=0.1))
    rows = {name: torch.stack([row[name] for row in old]) for name in old[0]}
    by_hand.protect([{name: value[at : at + 4] for name, value in rows.items()} for at in (0, 4)])

    callback = RWalkTrainerCallback(WEAK, protect=old, base_lambda=0.5)
    options = {"save_strategy": "steps", "save_steps": 4}
    trainer(model, tmp_path, sentences(1), callback, **options).train()
    held = callback.base.protection
    assert_same(held.importances(), by_hand.importances())
    assert (held.ewc_lambda, held.attached, callback.rwalk.tasks) == (0.5, False, 1)
    assert float(held.penalty().detach()) > 0
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer(model, tmp_path / "second", sentences(1), callback).train()
    assert callback.base.protection is held
    assert any(not torch.equal(p, before[name]) for name, p in model.named_parameters())

    resumed, again = RWalkTrainerCallback(WEAK, protect=old, base_lambda=0.5), adapted()
    trainer(again, tmp_path, sentences(1), resumed, **options).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-4")
    )
    assert_same(resumed.base.protection.importances(), held.importances())
    assert_same(weights(again), before)  # bit for bit the training that was not interrupted


@pytest.mark.parametrize("where", [0.3, 0.9])
def test_a_damaged_base_state_is_refused(tmp_path, where):
    model = adapted()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    protection = BaseProtection(model, optimizer)
    protection.protect(
        [{"input_ids": torch.stack([row["input_ids"] for row in sentences(0, 8)])}], likelihood="categorical"
    )
    path = tmp_path / "base.safetensors"
    protection.save(path)
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1
    path.write_bytes(content)
    protection.detach()
    with pytest.raises(StateError):
        BaseProtection.load(path, model, optimizer)
