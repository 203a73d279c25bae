"""Riemannian Walk written out one scalar at a time: plain floats in plain lists, so that it can be read and trusted.

Nothing here is shared with the package. A model's parameters are a ``dict`` from name to a list of floats; a step's
gradients are such a ``dict`` of the parameters that have one.
"""

Values = dict[str, list[float]]


def zeros_like(values: Values) -> Values:
    return {name: [0.0] * len(listed) for name, listed in values.items()}


class NaiveRWalk:
    """Equations 6-8 of arXiv:1801.10112 with the settings of ``RWalkConfig``, of which only the fields are read."""

    def __init__(self, config, floor: float = 2.0**-970):
        self.config = config
        self.strength = config.ewc_lambda * config.penalty_factor
        self.floor = floor  # of a relative damping, for a window in which nothing moved; by the state's dtype
        self.tasks = self.steps = self.window_steps = self.task_steps = 0
        self.updates: dict[str, int] = {}
        self.trained: set[str] = set()  # in this task
        self.fisher: Values = {}
        self.old_fisher: Values = {}  # as the window began
        self.change: Values = {}
        self.old_score: Values = {}  # of past tasks, averaged
        self.new_score: Values = {}  # of this task
        self.start: Values = {}
        self.importance: Values = {}
        self.anchor: Values = {}
        self.average: Values = {}  # of this task's iterates
        self.iterates: dict[str, int] = {}

    @property
    def score(self) -> Values:
        """What was averaged over past tasks, plus this task's windows."""
        return {n: [a + b for a, b in zip(old, self.new_score[n], strict=True)] for n, old in self.old_score.items()}

    def penalty(self, theta: Values) -> float:
        """λ Σ (F + s)(θ − θ*)²."""
        total = 0.0
        for name, importance in self.importance.items():
            for i, weight in enumerate(importance):
                total += weight * (theta[name][i] - self.anchor[name][i]) ** 2
        return self.strength * total

    def penalised(self, gradients: Values, theta: Values) -> Values:
        """What the optimizer gets: g + 2λ(F + s)(θ − θ*)."""
        result = {name: list(values) for name, values in gradients.items()}
        if self.config.penalty == "gradient":
            for name in set(result) & set(self.importance):
                for i, weight in enumerate(self.importance[name]):
                    result[name][i] += 2.0 * self.strength * weight * (theta[name][i] - self.anchor[name][i])
        return result

    def pulled(self, theta: Values, gradients: Values, lr: float) -> Values:
        """Weights after the proximal step (θ + cθ*)/(1 + c); as they are in gradient mode."""
        result = {name: list(values) for name, values in theta.items()}
        if self.config.penalty == "proximal":
            for name in set(gradients) & set(self.importance):
                for i, weight in enumerate(self.importance[name]):
                    c = 2.0 * lr * self.strength * weight
                    result[name][i] = (theta[name][i] + c * self.anchor[name][i]) / (1.0 + c)
        return result

    def observe(self, gradients: Values, before: Values, after: Values) -> None:
        """One optimizer step: gradients of the plain loss, and all weights on either side of it; none without any."""
        if not gradients:
            return
        self.trained.update(gradients)
        for name, g in gradients.items():
            if name not in self.fisher:
                self.updates[name] = 0
                for quantity in (self.fisher, self.old_fisher, self.change, self.old_score, self.new_score):
                    quantity[name] = [0.0] * len(g)
        if self.window_steps == 0:
            self.start = {name: list(values) for name, values in before.items()}
            self.old_fisher = {name: list(values) for name, values in self.fisher.items()}
        self.steps, self.task_steps, self.window_steps = self.steps + 1, self.task_steps + 1, self.window_steps + 1
        for name, g in gradients.items():
            for i in range(len(g)):
                self.change[name][i] += -g[i] * (after[name][i] - before[name][i])
            if self.steps % self.config.fisher_every == 0:
                self.update_fisher(name, g)
        if self.task_steps % self.config.average_every == 0:
            self.average_weights(after)
        if self.config.delta_t is not None:
            counted = self.steps if self.config.window_phase == "run" else self.window_steps
            if counted % self.config.delta_t == 0:
                self.close_window(after)

    def average_weights(self, theta: Values) -> None:
        """The k-th iterate has a share of 4/(k + 3) in the average."""
        for name in self.fisher:
            k = self.iterates[name] = self.iterates.get(name, 0) + 1
            old = self.average.get(name, theta[name])
            self.average[name] = [a + 4.0 / (k + 3.0) * (w - a) for a, w in zip(old, theta[name], strict=True)]

    def update_fisher(self, name: str, g: list[float]) -> None:
        """F ← αg² + (1 − α)F."""
        self.updates[name] += 1
        t, alpha = self.updates[name], self.config.ewc_alpha
        if self.config.alpha_warmup:
            alpha = max(alpha, 1.0 / t)
        if t == 1 and self.config.fisher_start == "first":
            alpha = 1.0
        for i in range(len(g)):
            self.fisher[name][i] = alpha * g[i] * g[i] + (1.0 - alpha) * self.fisher[name][i]

    def close_window(self, theta: Values) -> None:
        """s += ΔL / (½FΔθ² + ε)."""
        distance: Values = {}
        total, count = 0.0, 0
        for name in self.fisher:
            distance[name] = []
            for i in range(len(self.fisher[name])):
                f = (self.fisher if self.config.fisher_in_score == "window_end" else self.old_fisher)[name][i]
                if self.config.distance == "euclidean":
                    f = 1.0
                distance[name].append(self.config.distance_factor * f * (theta[name][i] - self.start[name][i]) ** 2)
                total, count = total + distance[name][i], count + 1
        for name in self.fisher:
            for i, d in enumerate(distance[name]):
                gained = self.change[name][i] / (d + self.damping(total, count))
                if self.config.rectify == "window" and gained < 0.0:
                    gained = 0.0
                self.new_score[name][i] += gained
        self.change, self.window_steps = zeros_like(self.change), 0

    def damping(self, total: float, count: int) -> float:
        """ε, from all distances of the window if it is relative."""
        if self.config.damping_scale == "absolute":
            return 2.0**-23 if self.config.damping in (None, "machine") else self.config.damping
        relative = 1.0 if self.config.damping is None else self.config.damping
        return max(relative * total / count, self.floor)

    def end_task(self, theta: Values) -> None:
        """Average the scores, scale Fisher and scores, remember where the weights stand."""
        if self.task_steps == 0 or not self.fisher:
            return
        if self.window_steps > 0 and self.config.unfinished == "flush":
            self.close_window(theta)
        if self.config.unfinished != "carry":
            self.change, self.window_steps = zeros_like(self.change), 0
        for name in sorted(self.trained):  # what rests keeps its score
            for i, (old, new) in enumerate(zip(self.old_score[name], self.new_score[name], strict=True)):
                self.old_score[name][i] = self.averaged(old, max(new, 0.0) if self.config.rectify == "task" else new)
        if self.config.score_average == "latest":  # what rests has none
            self.old_score = {n: v if n in self.trained else [0.0] * len(v) for n, v in self.old_score.items()}
        self.new_score = zeros_like(self.new_score)
        scores = {name: [max(s, 0.0) for s in values] for name, values in self.old_score.items()}
        adding = (
            self.trained if self.config.combine in ("sum", "mean") else set(self.fisher)
        )  # then what rests does not
        scaled_fisher, scaled_score = (
            {**values, **self.scaled({n: values[n] for n in self.fisher if n in adding})}
            for values in (self.fisher, scores)
        )
        for name in self.fisher:
            past, anchors = self.importance.get(name), self.anchor.get(name)
            ends = self.average.get(name, theta[name]) if self.config.anchor_at == "average" else theta[name]
            self.importance[name], self.anchor[name] = [], list(ends)
            for i, (f, s) in enumerate(zip(scaled_fisher[name], scaled_score[name], strict=True)):
                new = {"both": f + s, "fisher": f, "score": s}[self.config.terms] if name in adding else 0.0
                old = 0.0 if past is None else self.config.decay * past[i]
                if self.config.combine == "max":
                    new = max(new, old)
                elif self.config.combine in ("sum", "mean") and old + new > 0.0:
                    old, new = self.shares(old, new)
                    if anchors is not None and self.config.anchors == "weighted":
                        self.anchor[name][i] = (old * anchors[i] + new * ends[i]) / (old + new)
                    new += old
                self.importance[name].append(new)
        if self.config.fisher_boundary == "reset":
            self.fisher, self.updates = zeros_like(self.fisher), dict.fromkeys(self.updates, 0)
        self.tasks, self.task_steps, self.trained = self.tasks + 1, 0, set()
        self.average, self.iterates = {}, {}

    def shares(self, old: float, new: float) -> tuple[float, float]:
        """Of past tasks and of this one in what they come to together."""
        if self.config.combine == "sum":
            return old, new
        return old * self.tasks / (self.tasks + 1), new / (self.tasks + 1)

    def averaged(self, old: float, new: float) -> float:
        """Of the past tasks' score and this task's."""
        if self.config.score_average == "accumulate":
            return 1.5 * old + 0.5 * new if self.tasks else new
        if self.config.score_average == "sum":
            return old + new
        if self.config.score_average == "latest":
            return new
        if self.tasks == 0 and self.config.score_average == "mean":
            return new
        return (old + new) / 2.0

    def scaled(self, values: Values) -> Values:
        """To [0, 1] over all parameters together."""
        if self.config.scaling == "none":
            return values
        everything = [value for listed in values.values() for value in listed]
        if self.config.scaling == "sum":
            total = sum(everything)
            return {n: [v / total if total > 0.0 else 0.0 for v in listed] for n, listed in values.items()}
        low = min(everything) if self.config.scaling == "minmax" else 0.0
        span = max(everything) - low
        return {n: [(v - low) / span if span > 0.0 else 0.0 for v in listed] for n, listed in values.items()}
