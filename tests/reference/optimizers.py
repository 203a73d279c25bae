"""Optimizers one scalar at a time, for the naive twin."""

from math import sqrt

from reference.naive import Values


class NaiveSGD:
    """v ← μv + g + wθ, θ ← θ − lr·v."""

    def __init__(self, lr: float, momentum: float = 0.0, weight_decay: float = 0.0):
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.velocity: Values = {}

    def step(self, theta: Values, gradients: Values) -> Values:
        result = {name: list(values) for name, values in theta.items()}
        for name, g in gradients.items():
            velocity = self.velocity.setdefault(name, [0.0] * len(g))
            for i in range(len(g)):
                velocity[i] = self.momentum * velocity[i] + g[i] + self.weight_decay * theta[name][i]
                result[name][i] -= self.lr * velocity[i]
        return result


class NaiveAdam:
    """Adam with weight decay in the gradient, or (``decoupled``) AdamW."""

    def __init__(self, lr: float, weight_decay: float = 0.0, decoupled: bool = False):
        self.lr, self.weight_decay, self.decoupled = lr, weight_decay, decoupled
        self.moments: dict[str, list[list[float]]] = {}
        self.count: dict[str, int] = {}

    def step(self, theta: Values, gradients: Values) -> Values:
        result = {name: list(values) for name, values in theta.items()}
        for name, g in gradients.items():
            m, v = self.moments.setdefault(name, [[0.0] * len(g), [0.0] * len(g)])
            t = self.count[name] = self.count.get(name, 0) + 1
            for i in range(len(g)):
                decay = self.weight_decay * theta[name][i]
                if self.decoupled:
                    result[name][i] -= self.lr * decay
                gradient = g[i] if self.decoupled else g[i] + decay
                m[i] = 0.9 * m[i] + 0.1 * gradient
                v[i] = 0.999 * v[i] + 0.001 * gradient * gradient
                corrected = (m[i] / (1.0 - 0.9**t), v[i] / (1.0 - 0.999**t))
                result[name][i] -= self.lr * corrected[0] / (sqrt(corrected[1]) + 1e-8)
        return result
