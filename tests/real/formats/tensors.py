"""Writes tensors with torch, as `write.py` does: `zip.pt` and `old.pt` in first, second and ulp."""
import collections, os, sys

import torch

out = sys.argv[1]


def state(ulp):
    torch.manual_seed(7)
    layer = torch.nn.Linear(4, 3)
    optimiser = torch.optim.Adam(layer.parameters(), lr=1e-3)
    layer(torch.ones(2, 4)).sum().backward()
    optimiser.step()
    matrix = torch.arange(12, dtype=torch.float64).sin().reshape(3, 4)
    if ulp:
        matrix[1, 2] = torch.nextafter(matrix[1, 2], torch.tensor(9.0, dtype=torch.float64))
    return collections.OrderedDict(
        matrix=matrix, half=matrix.half(), brain=matrix.bfloat16(), ints=torch.arange(5), flags=matrix > 0, turned=matrix.t(), gaps=matrix[:, ::2], spread=matrix[:1].expand(5, 4),
        held=torch.empty(10_000)[:3].fill_(1),
        part=torch.arange(10)[2:5], empty=torch.empty(0, 3), model=layer.state_dict(), optimiser=optimiser.state_dict(),
        parameter=torch.nn.Parameter(torch.ones(2)), epoch=3, name="é")


for folder, ulp in (("first", False), ("second", False), ("ulp", True)):
    os.makedirs(f"{out}/{folder}", exist_ok=True)
    for name, new in (("zip", True), ("old", False)):
        # Tensors of the first are at other addresses; a zip is named by its file.
        keep = [torch.ones(i + 1) for i in range(100)] if folder == "first" else []
        torch.save(state(ulp), f"{out}/{folder}/{folder}.pt", _use_new_zipfile_serialization=new)
        os.rename(f"{out}/{folder}/{folder}.pt", f"{out}/{folder}/{name}.pt")
        del keep
