"""Three published codes as naive float64 loops, each written for itself from what is known of it.

Each function replays recorded training: ``tasks`` is a list of tasks, a task a list of steps, a step ``(g, before,
after)`` with the gradient of the plain loss and the weights around the step, as flat lists of floats. Each returns, for
every task, what the penalty multiplies the squared distance to the anchor by (strength included).
"""


def facil(tasks, batches, strength=1.0, keep=0.5, damping=0.1):
    """``batches[k]``: (gradient with predicted labels, batch size) over task k's data, after it was learned."""
    size = len(tasks[0][0][0])
    fisher, score, weights = [0.0] * size, [0.0] * size, []
    for steps, passes in zip(tasks, batches, strict=True):
        path = [0.0] * size
        for g, before, after in steps:
            for i in range(size):
                path[i] -= g[i] * (after[i] - before[i])
        samples = sum(count for _, count in passes)
        for i in range(size):
            estimate = sum(g[i] ** 2 * count for g, count in passes) / samples
            fisher[i] = keep * fisher[i] + (1.0 - keep) * estimate
            moved = steps[-1][2][i] - steps[0][1][i]
            gained = max(path[i] / (fisher[i] * moved**2 + damping), 0.0)
            score[i] = (score[i] + gained) / 2.0
        weights.append([strength * (fisher[i] + score[i]) for i in range(size)])
    return weights


def agem(tasks, strength=1.0, alpha=0.9, delta_t=10, damping=1e-3):
    """The authors' code step by step: what is done before a step, the step, and the end of a task."""
    size = len(tasks[0][0][0])
    fisher, score, weights = [0.0] * size, [0.0] * size, []
    corner = list(tasks[0][0][1])
    for k, steps in enumerate(tasks):
        total, path, new = [0.0] * size, [0.0] * size, [0.0] * size
        for number, (g, before, after) in enumerate(steps, start=1):
            if number % delta_t == 0:  # the first window of a task is a step short; what is left at its end is dropped
                for i in range(size):
                    new[i] += max(path[i] / (fisher[i] * (before[i] - corner[i]) ** 2 + damping), 0.0)
                    fisher[i] = (1.0 - alpha) * fisher[i] + alpha / delta_t * total[i]
                corner, path = list(before), [0.0] * size
            for i in range(size):
                total[i] += g[i] ** 2  # over the whole task: a window does not start it anew
                path[i] -= g[i] * (after[i] - before[i])
        for i in range(size):
            score[i] = 1.5 * score[i] + 0.5 * new[i] if k else new[i]
        scaled = [[(v - min(values)) / (max(values) - min(values)) for v in values] for values in (fisher, score)]
        weights.append([strength * (f + s) for f, s in zip(*scaled, strict=True)])
        corner = list(steps[-1][2])
    return weights


def capymoa(tasks, strength=1.0, alpha=0.9, delta_t=10, tiny=2.0**-23):
    """Fisher from zero in each task, windows flushed at its end, half the penalty."""
    size = len(tasks[0][0][0])
    old, weights = None, []
    for steps in tasks:
        fisher, path, score = [0.0] * size, [0.0] * size, [0.0] * size
        corner = steps[0][1]
        for number, (g, before, after) in enumerate(steps, start=1):
            for i in range(size):
                fisher[i] = (1.0 - alpha) * fisher[i] + alpha * g[i] ** 2
                path[i] -= g[i] * (after[i] - before[i])
            if number % delta_t == 0 or number == len(steps):
                for i in range(size):
                    score[i] += path[i] / (0.5 * fisher[i] * (after[i] - corner[i]) ** 2 + tiny)
                path, corner = [0.0] * size, after
        old = score if old is None else [(o + s) / 2.0 for o, s in zip(old, score, strict=True)]
        top_fisher, top_score = max(*fisher, tiny), max(*old, tiny)
        weights.append(
            [0.5 * strength * (f / top_fisher + max(s, 0.0) / top_score) for f, s in zip(fisher, old, strict=True)]
        )
    return weights
