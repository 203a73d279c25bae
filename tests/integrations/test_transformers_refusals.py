"""What cannot work under Trainer is refused: when, and in which words."""

import subprocess
import sys

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils.deepspeed import DeepSpeedOptimizerWrapper
from transformers import TrainerCallback
from transformers.trainer_callback import TrainerControl, TrainerState

from integrations.trainers import arguments, classifier, labelled, language_model, trainer
from rwalk import RWalkConfig, RWalkError
from rwalk.integrations.transformers import RWalkTrainerCallback

CONFIG = RWalkConfig(ewc_lambda=5.0, delta_t=3)


@pytest.mark.parametrize("moment", ["train_start", 0, -1, True, 2.0])
def test_a_moment_that_is_none(moment):
    with pytest.raises(ValueError, match=r"consolidate_on=.*expected 'train_end', 'epoch_end'"):
        RWalkTrainerCallback(CONFIG, consolidate_on=moment)


@pytest.mark.parametrize("missing", ["transformers", "accelerate"])
def test_a_missing_extra_is_named(missing):
    program = f"""
import sys
sys.modules[{missing!r}] = None
from rwalk.errors import MissingExtraError
try:
    import rwalk.integrations.transformers
except MissingExtraError as error:
    print(error)
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert found == f"RWalkTrainerCallback needs {missing}; install it with: pip install 'rwalk[transformers]'\n"


def test_two_callbacks_on_one_trainer(tmp_path):
    framework = trainer(classifier(), tmp_path, labelled(0), RWalkTrainerCallback(CONFIG), RWalkTrainerCallback(CONFIG))
    with pytest.raises(RWalkError, match="another RWalk is attached to this optimizer"):
        framework.train()


def test_the_callback_of_another_model(tmp_path):
    callback = RWalkTrainerCallback(CONFIG)
    trainer(classifier(), tmp_path, labelled(0), callback).train()
    kept = callback.rwalk.state_dict()["steps"]
    with pytest.raises(RWalkError, match=r"no longer has 'bert\.embeddings"):
        trainer(language_model(), tmp_path, labelled(0), callback).train()
    assert callback.rwalk.state_dict()["steps"] == kept


def test_the_state_of_another_model(tmp_path):
    callback = RWalkTrainerCallback(CONFIG)
    trainer(classifier(), tmp_path, labelled(0), callback).train()
    callback.rwalk.save(tmp_path / "state.safetensors")
    start = RWalkTrainerCallback(start_from=tmp_path / "state.safetensors")
    with pytest.raises(ValueError, match=r"parameter\(s\) that this model does not"):
        trainer(language_model(), tmp_path, labelled(0), start).train()


def test_a_state_that_is_not_there(tmp_path):
    for place in (tmp_path / "none.safetensors", tmp_path):
        start = RWalkTrainerCallback(start_from=place)
        with pytest.raises(FileNotFoundError, match="no rwalk state at"):
            trainer(classifier(), tmp_path, labelled(0), start).train()


def test_an_optimizer_of_another_model(tmp_path):
    optimizer = torch.optim.SGD(classifier(seed=1).parameters(), lr=0.1)
    constant = torch.optim.lr_scheduler.ConstantLR(optimizer)
    framework = trainer(
        classifier(), tmp_path, labelled(0), RWalkTrainerCallback(CONFIG), optimizers=(optimizer, constant)
    )
    with pytest.raises(RWalkError, match="holds none of the parameters"):
        framework.train()


def test_an_optimizer_replaced_in_mid_training(tmp_path):
    class Replace(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 3:
                other = torch.optim.SGD(framework.model.parameters(), lr=0.1)
                framework.optimizer = framework.accelerator.prepare(other)

    callback = RWalkTrainerCallback(CONFIG)
    framework = trainer(classifier(), tmp_path, labelled(0), callback, Replace())
    with pytest.raises(RWalkError, match=r"SGD is about to move parameters .* \(AdamW\), and would not see this step"):
        framework.train()
    assert callback.rwalk.steps == 3


@pytest.mark.parametrize("hooked", [True, False])
def test_an_optimizer_that_takes_its_steps_in_secret(tmp_path, hooked):
    class InBackward(torch.optim.SGD):
        """As LOMO: what Trainer calls a step is none."""

        def __init__(self, parameters, lr):
            super().__init__(parameters, lr)
            for parameter in self.param_groups[0]["params"]:
                parameter.register_post_accumulate_grad_hook(self.move)

        @torch.no_grad()
        def move(self, parameter):
            parameter.data.add_(parameter.grad, alpha=-self.param_groups[0]["lr"])
            parameter.grad = None

        def step(self, closure=None):
            return None

    if not hooked:
        InBackward.step.hooked = True  # as torch marks what runs its hooks already
    model, callback = classifier(), RWalkTrainerCallback(CONFIG)
    optimizer = InBackward(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    options = {"optimizers": (optimizer, schedule), "max_grad_norm": 0.0}
    framework = trainer(model, tmp_path, labelled(0), callback, **options)
    with pytest.raises(RWalkError, match=r"did not see optimizer step 1: .*changes weights during backward \(LOMO\)"):
        framework.train()


def begin(tmp_path, optimizer, model, **state):
    """What Trainer tells its callbacks as training begins, where the engine itself cannot be had here."""
    RWalkTrainerCallback(CONFIG).on_train_begin(
        arguments(tmp_path), TrainerState(**state), TrainerControl(), model=model, optimizer=optimizer
    )


def test_deepspeed(tmp_path):
    model = classifier()
    Accelerator(cpu=True)  # the wrapper wants to know what it runs under
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(RWalkError, match=r"DeepSpeed steps inside backward.*train with DDP or FSDP"):
        begin(tmp_path, DeepSpeedOptimizerWrapper(optimizer), model)
    begin(tmp_path, optimizer, model)


def test_a_hyperparameter_search(tmp_path):
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(RWalkError, match="a hyperparameter search trains many models with one callback"):
        begin(tmp_path, optimizer, model, is_hyper_param_search=True)


def test_a_task_cannot_end_before_training_has_begun(tmp_path):
    with pytest.raises(RWalkError, match="no training has begun"):
        RWalkTrainerCallback(CONFIG).on_train_end(
            arguments(tmp_path), TrainerState(), TrainerControl(), model=classifier()
        )


def test_a_number_of_steps_whose_data_is_not_known(tmp_path):
    callback = RWalkTrainerCallback(RWalkConfig.laplace(), consolidate_on=4)
    with pytest.raises(RWalkError, match="fisher_source='samples' needs a task's data"):
        trainer(classifier(), tmp_path, labelled(0), callback).train()
    epochs = RWalkTrainerCallback(RWalkConfig.laplace(), consolidate_on="epoch_end")
    trainer(classifier(), tmp_path, labelled(0), epochs, num_train_epochs=2).train()
    assert epochs.rwalk.tasks == 2
