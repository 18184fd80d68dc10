#!/usr/bin/env python3
"""Makes the .json files beside this file: what PyTorch computes.

    apt-get install python3-torch
    tests/reference/make_reference.py

Both sides must read the same numbers. Those that go into recurrent.json and layer_norm.json come
from a generator that the tests have, too (class Draw), and are not stored; the others are
decimals of four digits. PyTorch computes in double: the tests compare it with f64 closely and with
f32 to 1e-5.
"""

import json
import math
import pathlib

import torch
from torch import nn

HERE = pathlib.Path(__file__).parent


def write(name, cases):
    """One case per line; tensors as {"shape": [...], "data": [...]}."""
    lines = [json.dumps(case, separators=(",", ":")) for case in cases]
    (HERE / name).write_text("[\n" + ",\n".join(lines) + "\n]\n")


def draw(*shape):
    return torch.round(torch.randn(shape, dtype=torch.double) * 0.5, decimals=4)


def given(tensor):
    data = [round(x, 4) for x in tensor.detach().flatten().tolist()]
    return {"shape": list(tensor.shape), "data": data}


def computed(tensor, digits):
    data = [float(f"%.{digits}g" % x) for x in tensor.detach().flatten().tolist()]
    return {"shape": list(tensor.shape), "data": data}


class Draw:
    """Numbers in (-0.5, 0.5) that floats hold exactly, from a linear congruential generator."""

    def __init__(self, seed):
        self.state = seed

    def __call__(self, *shape):
        values = []
        for _ in range(math.prod(shape)):
            self.state = (self.state * 1103515245 + 12345) % 2**31
            values.append(((self.state >> 16) % 1001 - 500) / 1024)
        return torch.tensor(values, dtype=torch.double).reshape(shape)


def numbers(tensor):
    return [float(f"{x:.12g}") for x in tensor.detach().flatten().tolist()]


def recurrent_case(seed, cell, sizes, layers=1, bidirectional=False, **options):
    """loss = sum(outputs * outputs_seed) + sum(h_n * h_seed) (+ sum(c_n * c_seed))

    Drawn in this order: parameters, xs, initial states, outputs_seed, seeds of the last states.
    """
    draw = Draw(seed)
    steps, batch, inputs, hidden = sizes
    bias = options.get("bias", True)
    batch_first = options.get("batch_first", False)
    lengths = options.get("lengths")
    proj_size = options.get("proj_size", 0)

    kind = {"tanh": nn.RNN, "relu": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell]
    extra = {"nonlinearity": cell} if kind is nn.RNN else {}
    if proj_size:
        extra["proj_size"] = proj_size
    module = kind(
        inputs,
        hidden,
        num_layers=layers,
        bias=bias,
        batch_first=batch_first,
        dropout=0.0,
        bidirectional=bidirectional,
        **extra,
    ).double()
    for parameter in module.parameters():
        parameter.data = draw(*parameter.shape)
    leading = (batch, steps) if batch_first else (steps, batch)
    xs = draw(*leading, inputs).requires_grad_()
    directions = 2 if bidirectional else 1
    width = proj_size or hidden
    states = {"h": draw(layers * directions, batch, width).requires_grad_()}
    if cell == "lstm":
        states["c"] = draw(layers * directions, batch, hidden).requires_grad_()
    outputs_seed = draw(*leading, directions * width)
    seeds = {name: draw(*value.shape) for name, value in states.items()}

    start = (states["h"], states["c"]) if cell == "lstm" else states["h"]
    if lengths:
        packed = nn.utils.rnn.pack_padded_sequence(xs, lengths, batch_first, enforce_sorted=False)
        outputs, last = module(packed, start)
        outputs, _ = nn.utils.rnn.pad_packed_sequence(outputs, batch_first, total_length=steps)
    else:
        outputs, last = module(xs, start)
    last = dict(zip(states, last if cell == "lstm" else [last]))
    loss = (outputs * outputs_seed).sum()
    for name, value in last.items():
        loss = loss + (value * seeds[name]).sum()
    loss.backward()

    return {
        "seed": seed,
        "cell": cell,
        "sizes": sizes,
        "layers": layers,
        "bidirectional": bidirectional,
        "bias": bias,
        "batch_first": batch_first,
        "lengths": lengths,
        "proj_size": proj_size,
        "outputs": numbers(outputs),
        "last": {name: numbers(value) for name, value in last.items()},
        "parameter_grads": {name: numbers(p.grad) for name, p in module.named_parameters()},
        "xs_grad": numbers(xs.grad),
        "initial_grads": {name: numbers(value.grad) for name, value in states.items()},
    }


def recurrent_cases():
    table = []
    for cell in ("tanh", "relu", "gru", "lstm"):
        for bias in (True, False):
            for sizes in ((6, 3, 4, 5), (1, 1, 1, 1), (9, 2, 5, 3)):
                table.append(dict(cell=cell, sizes=sizes, bias=bias))
    for cell, proj_size in (("tanh", 0), ("relu", 0), ("gru", 0), ("lstm", 0), ("lstm", 2)):
        for layers, bidirectional in ((1, False), (1, True), (2, False), (2, True), (3, True)):
            for lengths in (None, (2, 4, 3), (3, 1, 2)):
                case = dict(cell=cell, layers=layers, bidirectional=bidirectional, lengths=lengths)
                case["sizes"] = (4, 3, 2, 3 if proj_size else 2)
                case["proj_size"] = proj_size
                case["batch_first"] = len(table) % 2 == 1
                case["bias"] = layers != 2 or lengths is None
                if layers == 3 and lengths is None:
                    continue
                table.append(case)
    return [recurrent_case(seed + 1, **case) for seed, case in enumerate(table)]


def layer_norm_case(seed, shape, normalized_shape, eps, affine):
    """loss = sum(y * y_seed). Drawn in this order: weight, bias, x, y_seed."""
    draw = Draw(seed)
    module = nn.LayerNorm(normalized_shape, eps=eps, elementwise_affine=affine).double()
    for parameter in module.parameters():
        parameter.data = draw(*parameter.shape)
    x = draw(*shape).requires_grad_()
    y = module(x)
    (y * draw(*shape)).sum().backward()
    return {
        "seed": seed,
        "shape": shape,
        "normalized_shape": normalized_shape,
        "eps": eps,
        "affine": affine,
        "y": numbers(y),
        "x_grad": numbers(x.grad),
        "parameter_grads": {name: numbers(p.grad) for name, p in module.named_parameters()},
    }


def loss_cases():
    """Values, and gradients of sum(value * seed). Classes are the last dimension, as in unroll."""
    F = nn.functional
    cases = []

    def add(name, function, x, y, options, tensors={}):
        for reduction in ("none", "mean", "sum"):
            x = x.detach().requires_grad_()
            value = function(x, y, reduction=reduction, **options, **tensors)
            seed = draw(*value.shape)
            (value * seed).sum().backward()
            cases.append(
                {
                    "loss": name,
                    "reduction": reduction,
                    "options": options,
                    "tensors": {key: given(tensor) for key, tensor in tensors.items()},
                    "input": given(x),
                    "target": given(y),
                    "seed": given(seed),
                    "value": computed(value, 17),
                    "input_grad": computed(x.grad, 17),
                }
            )
            x.grad = None

    def classes_last(function):
        return lambda x, *rest, **options: function(x.movedim(-1, 1), *rest, **options)

    steps, batch, classes = 3, 2, 4
    for some_ignored in (False, True):
        for weighted in (False, True):
            y = torch.randint(classes, (steps, batch))
            if some_ignored:
                y[1, 0] = y[2, 1] = -100
            tensors = {"weight": draw(classes).abs() + 0.1} if weighted else {}
            x = draw(steps, batch, classes) * 4
            add("nll_loss", classes_last(F.nll_loss), x, y, {}, tensors)
            for label_smoothing in (0.0, 0.1, 1.0):
                options = {"label_smoothing": label_smoothing}
                add("cross_entropy", classes_last(F.cross_entropy), x, y, options, tensors)
    x, y = draw(steps, batch) * 4, draw(steps, batch) * 4
    add("mse_loss", F.mse_loss, x, y, {})
    add("l1_loss", F.l1_loss, x, y, {})
    for delta in (0.5, 1.0, 2.0):
        add("huber_loss", F.huber_loss, x, y, {"delta": delta})
    bce = F.binary_cross_entropy_with_logits
    y = torch.round(torch.rand(steps, batch, dtype=torch.double), decimals=4)
    weight, pos_weight = draw(batch).abs() + 0.1, draw(steps, 1).abs() + 0.1
    for tensors in ({}, {"weight": weight}, {"pos_weight": pos_weight}):
        add("binary_cross_entropy_with_logits", bce, x, y, {}, tensors)
    return cases


OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sparse_adam": torch.optim.SparseAdam,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
}


def optim_case(name, options):
    """20 steps on mean((x w' + b - y)^2) + mean(s^2) / 2; s has a gradient in even steps only."""
    x, y = draw(8, 3), draw(8, 2)
    start = {"w": draw(2, 3), "b": draw(2), "s": draw(4)}
    case = {"optimizer": name, "options": options, "x": given(x), "y": given(y)}
    case["start"] = {key: given(value) for key, value in start.items()}
    for dtype, digits in ((torch.float, 9), (torch.double, 17)):
        w, b, s = (value.clone().to(dtype).requires_grad_() for value in start.values())
        optimizer = OPTIMIZERS[name]([w, b, s], **options)
        for step in range(20):
            optimizer.zero_grad(set_to_none=True)
            loss = ((x.to(dtype) @ w.T + b - y.to(dtype)) ** 2).mean()
            if step % 2 == 0:
                loss = loss + (s**2).mean() / 2
            loss.backward()
            optimizer.step()
        end = {"w": w, "b": b, "s": s}
        case[f"end_f{32 if dtype == torch.float else 64}"] = {
            key: computed(value, digits) for key, value in end.items()
        }
    return case


def embedding_case(name, options):
    """20 steps on mean((table[indices[step]] - y)^2) with gradients by rows; rows 5 and 6 are never
    looked up, others twice in one step."""
    table, y = draw(7, 3), draw(4, 3)
    indices = torch.randint(5, (20, 4))
    case = {"optimizer": name, "options": options, "table": given(table), "y": given(y)}
    case["indices"] = {"shape": [20, 4], "data": indices.flatten().tolist()}
    for dtype, digits in ((torch.float, 9), (torch.double, 17)):
        module = nn.Embedding(7, 3, _weight=table.clone().to(dtype), sparse=True)
        optimizer = OPTIMIZERS[name](module.parameters(), **options)
        for step in range(20):
            optimizer.zero_grad(set_to_none=True)
            ((module(indices[step]) - y.to(dtype)) ** 2).mean().backward()
            optimizer.step()
        case[f"end_f{32 if dtype == torch.float else 64}"] = computed(module.weight, digits)
    return case


def schedule_case(name, options, lr=0.5, metrics=None):
    """The learning rates of 30 epochs; a list of schedules is a chain."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)
    make = torch.optim.lr_scheduler
    if name in ("ChainedScheduler", "SequentialLR"):
        parts = [getattr(make, part)(optimizer, **of_part) for part, of_part in options["rules"]]
        if name == "ChainedScheduler":
            schedule = make.ChainedScheduler(parts)
        else:
            schedule = make.SequentialLR(optimizer, parts, options["milestones"])
    else:
        schedule = getattr(make, name)(optimizer, **options)
    rates = []
    for epoch in range(30):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step(*([metrics[epoch]] if metrics else []))
    case = {"schedule": name, "options": options, "lr": lr, "rates": rates}
    return case | {"metrics": metrics} if metrics else case


def plateau_cases():
    metrics = [round(2.0 / (1 + epoch) + 0.3 * (epoch % 3) + (epoch > 12), 4) for epoch in range(30)]
    rising = [round(-x, 4) for x in metrics]
    quick = {"patience": 2, "factor": 0.5}
    for options, values in (
        (quick, metrics),
        (quick | {"mode": "max"}, rising),
        (quick | {"threshold": 0.2, "threshold_mode": "abs"}, metrics),
        (quick | {"threshold": 0.2}, metrics),
        (quick | {"cooldown": 3}, metrics),
        (quick | {"patience": 0, "min_lr": 0.1}, metrics),
        ({"patience": 1, "factor": 0.9, "eps": 0.049}, metrics),
    ):
        yield schedule_case("ReduceLROnPlateau", options, metrics=values)


def schedule_cases():
    linear, decay = ("LinearLR", {"total_iters": 4}), ("ExponentialLR", {"gamma": 0.9})
    cosine = ("CosineAnnealingLR", {"T_max": 12})
    step = ("StepLR", {"step_size": 3, "gamma": 0.5})
    return [
        schedule_case(*step),
        schedule_case("MultiStepLR", {"milestones": [3, 8, 8, 20], "gamma": 0.5}),
        schedule_case(*decay),
        schedule_case(*linear),
        schedule_case("LinearLR", {"start_factor": 1.0, "end_factor": 0.1, "total_iters": 20}),
        schedule_case("CosineAnnealingLR", {"T_max": 29, "eta_min": 0.05}),
        schedule_case("CosineAnnealingLR", {"T_max": 7}),
        schedule_case("CosineAnnealingWarmRestarts", {"T_0": 6}),
        schedule_case("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2, "eta_min": 0.01}),
        schedule_case("ChainedScheduler", {"rules": [linear, decay]}),
        schedule_case("ChainedScheduler", {"rules": [linear, decay, step]}),
        schedule_case("SequentialLR", {"rules": [linear, decay], "milestones": [6]}),
        schedule_case("SequentialLR", {"rules": [linear, step, decay], "milestones": [4, 15]}),
        *plateau_cases(),
    ]


def main():
    torch.manual_seed(0)
    write("recurrent.json", recurrent_cases())
    write(
        "layer_norm.json",
        [
            layer_norm_case(1, (4, 6), (6,), 1e-5, True),
            layer_norm_case(2, (2, 3, 4), (3, 4), 0.1, True),
            layer_norm_case(3, (2, 3, 4), (4,), 1e-5, False),
            layer_norm_case(4, (5,), (5,), 1e-3, True),
            layer_norm_case(5, (3, 1), (1,), 1e-5, True),
        ],
    )
    torch.manual_seed(1)
    write("losses.json", loss_cases())
    torch.manual_seed(2)
    write(
        "optim.json",
        [
            optim_case("sgd", {"lr": 0.1}),
            optim_case("sgd", {"lr": 0.1, "weight_decay": 0.2}),
            optim_case("sgd", {"lr": 0.05, "momentum": 0.9}),
            optim_case("sgd", {"lr": 0.05, "momentum": 0.8, "nesterov": True}),
            optim_case(
                "sgd", {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}
            ),
            optim_case("adam", {"lr": 0.001}),
            optim_case("adam", {"lr": 0.1, "betas": [0.7, 0.9]}),
            optim_case("adam", {"lr": 0.05, "betas": [0.9, 0.99], "eps": 0.1}),
            optim_case("adam", {"lr": 0.05, "weight_decay": 0.3}),
            optim_case("adamw", {"lr": 0.05}),
            optim_case("adamw", {"lr": 0.05, "betas": [0.7, 0.9], "weight_decay": 0.3}),
            optim_case("rmsprop", {"lr": 0.01}),
            optim_case("rmsprop", {"lr": 0.02, "alpha": 0.9, "weight_decay": 0.1}),
            optim_case("rmsprop", {"lr": 0.01, "alpha": 0.9, "centered": True}),
            optim_case("rmsprop", {"lr": 0.01, "momentum": 0.9}),
            optim_case("rmsprop", {"lr": 0.01, "momentum": 0.9, "centered": True}),
            optim_case("adagrad", {"lr": 0.1}),
            optim_case("adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1}),
            optim_case("adagrad", {"lr": 0.1, "initial_accumulator_value": 0.5, "eps": 0.01}),
            optim_case("adadelta", {}),
            optim_case("adadelta", {"lr": 0.5, "rho": 0.8, "eps": 1e-4, "weight_decay": 0.1}),
        ],
    )
    torch.manual_seed(3)
    write(
        "embedding.json",
        [
            embedding_case("sgd", {"lr": 0.5}),
            embedding_case("adagrad", {"lr": 0.1, "lr_decay": 0.1}),
            embedding_case("adagrad", {"lr": 0.1, "initial_accumulator_value": 0.5}),
            embedding_case("sparse_adam", {"lr": 0.05}),
            embedding_case("sparse_adam", {"lr": 0.05, "betas": [0.7, 0.9]}),
        ],
    )
    write("schedules.json", schedule_cases())


if __name__ == "__main__":
    main()
