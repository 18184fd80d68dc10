#!/usr/bin/env python3
"""Makes weights.safetensors and weights.json beside this file: a PyTorch model with one module of each
kind, and what it computes. With a FILE it loads that file, which unroll wrote, into the same model
instead, and compares what it computes with weights.json.

    apt-get install python3-torch
    tests/reference/make_weights.py [FILE]

It reads and writes the safetensors format itself: Debian 12 has no package for it.
"""

import json
import pathlib
import struct
import sys

import numpy
import torch
from torch import nn

from make_reference import HERE, computed, write


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 3)
        self.rnn = nn.RNN(3, 4)
        self.gru = nn.GRU(4, 5, num_layers=2, bidirectional=True)
        self.lstm = nn.LSTM(10, 4)
        self.norm = nn.LayerNorm(4)
        self.linear = nn.Linear(4, 2)
        nn.init.normal_(self.norm.weight)  # they start as ones and zeros, which would not be seen
        nn.init.normal_(self.norm.bias)

    def forward(self, indices):
        x = self.embedding(indices)
        for layer in (self.rnn, self.gru, self.lstm):
            x, _ = layer(x)
        return self.linear(self.norm(x))


def save(path, tensors, metadata):
    header, data = {"__metadata__": metadata}, b""
    for name, tensor in tensors.items():
        values = tensor.detach().numpy().astype("<f4").tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(values)],
        }
        data += values
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def load(path):
    file = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", file[:8])
    header, data = json.loads(file[8 : 8 + length]), file[8 + length :]
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        values = numpy.frombuffer(data[begin:end], {"F32": "<f4", "F64": "<f8"}[entry["dtype"]])
        tensors[name] = torch.tensor(values.copy()).reshape(entry["shape"])
    return tensors


def main():
    torch.manual_seed(0)
    model = Net()
    if len(sys.argv) == 1:
        indices = torch.randint(7, (6, 2))
        save(HERE / "weights.safetensors", model.state_dict(), {"format": "pt"})
        case = {"indices": {"shape": [6, 2], "data": indices.flatten().tolist()}}
        write("weights.json", [case | {"outputs": computed(model(indices), 9)}])
        return
    model.load_state_dict(load(sys.argv[1]))  # all names must be there, and no other
    (case,) = json.loads((HERE / "weights.json").read_text())
    outputs = model(torch.tensor(case["indices"]["data"]).reshape(case["indices"]["shape"]))
    expected = torch.tensor(case["outputs"]["data"]).reshape(case["outputs"]["shape"])
    print(f"largest difference: {(outputs - expected).abs().max().item():.2e}")


if __name__ == "__main__":
    main()
