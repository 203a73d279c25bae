"""Our plugin with the gradient that Avalanche's takes."""

import torch

from rwalk.training import RWalkPlugin


class EvalPassRWalkPlugin(RWalkPlugin):
    """Takes its gradient from an extra forward and backward pass in eval mode, in which the model then *stays*.

    As with Avalanche's plugin, dropout is off, BatchNorm frozen, and the optimizer gets the penalty's gradient as well,
    which is none of what is measured.
    """

    def before_training_exp(self, strategy, **kwargs):
        super().before_training_exp(strategy, **kwargs)
        self.rwalk.detach()  # what its hooks would read is another gradient

    def before_training_iteration(self, strategy, **kwargs):
        strategy.model.eval()
        strategy.optimizer.zero_grad()
        strategy._criterion(strategy.forward(), strategy.mb_y).backward()
        self.measured = {p: p.grad.clone() for p in strategy.model.parameters() if p.grad is not None}

    def before_update(self, strategy, **kwargs):
        parameters = list(self.measured)
        used = [p.grad for p in parameters]
        penalty = self.rwalk.penalty()
        if penalty.requires_grad:  # from the second task on
            used = torch._foreach_add(used, torch.autograd.grad(penalty, parameters, materialize_grads=True))
        for p, gradient in self.measured.items():
            p.grad = gradient
        self.rwalk.before_step()
        for p, gradient in zip(parameters, used, strict=True):
            p.grad = gradient

    def after_update(self, strategy, **kwargs):
        self.rwalk.after_step()
