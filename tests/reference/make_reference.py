#!/usr/bin/env python3
"""Makes recurrent.json and optim.json beside this file: what PyTorch computes.

    apt-get install python3-torch
    tests/reference/make_reference.py

Inputs are decimals of four digits, so that both sides read the same numbers. PyTorch computes the
recurrent part in double: the tests compare it with f64 closely and with f32 to 1e-5.
"""

import json
import pathlib

import torch
from torch import nn

HERE = pathlib.Path(__file__).parent


def write(name, cases):
    """One case per line; tensors as {"shape": [...], "data": [...]}."""
    lines = [json.dumps(case, separators=(",", ":")) for case in cases]
    (HERE / name).write_text("[\n" + ",\n".join(lines) + "\n]\n")


def draw(*shape):
    return torch.round(torch.randn(*shape, dtype=torch.double) * 0.5, decimals=4)


def given(tensor):
    data = [round(x, 4) for x in tensor.detach().flatten().tolist()]
    return {"shape": list(tensor.shape), "data": data}


def computed(tensor, digits):
    data = [float(f"%.{digits}g" % x) for x in tensor.detach().flatten().tolist()]
    return {"shape": list(tensor.shape), "data": data}


def recurrent_case(kind, bias, steps, batch, inputs, hidden):
    """loss = sum(outputs * outputs_seed) + sum(h_n * h_seed) (+ sum(c_n * c_seed))"""
    if kind in ("tanh", "relu"):
        module = nn.RNN(inputs, hidden, nonlinearity=kind, bias=bias)
    else:
        module = {"gru": nn.GRU, "lstm": nn.LSTM}[kind](inputs, hidden, bias=bias)
    module = module.double()
    for parameter in module.parameters():
        parameter.data = draw(*parameter.shape)
    xs = draw(steps, batch, inputs).requires_grad_()
    states = {"h": draw(1, batch, hidden).requires_grad_()}
    if kind == "lstm":
        states["c"] = draw(1, batch, hidden).requires_grad_()
    outputs_seed = draw(steps, batch, hidden)
    seeds = {name: draw(batch, hidden) for name in states}

    start = (states["h"], states["c"]) if kind == "lstm" else states["h"]
    outputs, last = module(xs, start)
    last = dict(zip(states, last if kind == "lstm" else [last]))
    loss = (outputs * outputs_seed).sum()
    for name, value in last.items():
        loss = loss + (value[0] * seeds[name]).sum()
    loss.backward()

    return {
        "cell": kind,
        "bias": bias,
        "input_size": inputs,
        "hidden_size": hidden,
        "parameters": {name: given(p) for name, p in module.named_parameters()},
        "xs": given(xs),
        "initial": {name: given(value[0]) for name, value in states.items()},
        "outputs_seed": given(outputs_seed),
        "last_seed": {name: given(value) for name, value in seeds.items()},
        "outputs": computed(outputs, 12),
        "last": {name: computed(value[0], 12) for name, value in last.items()},
        "parameter_grads": {name: computed(p.grad, 12) for name, p in module.named_parameters()},
        "xs_grad": computed(xs.grad, 12),
        "initial_grads": {name: computed(v.grad[0], 12) for name, v in states.items()},
    }


def optim_case(name, options):
    """20 steps on mean((x w' + b - y)^2) + mean(s^2) / 2; s has a gradient in even steps only."""
    x, y = draw(8, 3), draw(8, 2)
    start = {"w": draw(2, 3), "b": draw(2), "s": draw(4)}
    case = {"optimizer": name, "options": options, "x": given(x), "y": given(y)}
    case["start"] = {key: given(value) for key, value in start.items()}
    for dtype, digits in ((torch.float, 9), (torch.double, 17)):
        w, b, s = (value.clone().to(dtype).requires_grad_() for value in start.values())
        optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[name]([w, b, s], **options)
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


def main():
    torch.manual_seed(0)
    write(
        "recurrent.json",
        [
            recurrent_case(kind, bias, *shape)
            for kind in ("tanh", "relu", "gru", "lstm")
            for bias in (True, False)
            for shape in ((6, 3, 4, 5), (1, 1, 1, 1), (9, 2, 7, 3))
        ],
    )
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
        ],
    )


if __name__ == "__main__":
    main()
