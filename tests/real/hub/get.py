"""What a script gets from the hub by its own library, a line each. Nothing in it knows of trainlock."""

import hashlib
import os
import sys

from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download

commit, out = sys.argv[1:]
lines = []


def told(what, data):
    lines.append(f"{what} {len(data)} {hashlib.sha256(data).hexdigest()}")


def folder(what, at):
    for root, _, files in os.walk(at):
        for path in (os.path.join(root, file) for file in files):
            with open(path, "rb") as file:
                told(f"{what} {os.path.basename(at)} {os.path.relpath(path, at)}", file.read())


def file(what, path):
    with open(path, "rb") as file:
        told(what, file.read())


for revision in ("v1", commit):
    folder(f"snapshot words@{revision}", snapshot_download("lab/words", repo_type="dataset", revision=revision))
    file(
        f"file words@{revision}",
        hf_hub_download("lab/words", "train/ä b.csv", repo_type="dataset", revision=revision),
    )
folder("snapshot tiny", snapshot_download("lab/tiny"))
folder("part of tiny", snapshot_download("lab/tiny", allow_patterns="*.json", cache_dir="part"))
file("file tiny", hf_hub_download("lab/tiny", "weights/model.bin", cache_dir="alone"))
file("local tiny", hf_hub_download("lab/tiny", "model.bin", subfolder="weights", local_dir="here"))

api = HfApi()
lines.append(f"sha {api.model_info('lab/tiny', revision='main').sha} {api.dataset_info('lab/words', revision='v1').sha}")
for revision in ("v1", commit):
    files = api.list_repo_files("lab/words", repo_type="dataset", revision=revision)
    lines.append(f"files words@{revision} {sorted(files)}")
lines.append(f"files tiny {sorted(api.list_repo_files('lab/tiny', revision='main'))}")
lfs = [(e.path, e.lfs.sha256) for e in api.list_repo_tree("lab/tiny", recursive=True) if e.path.endswith(".bin")]
lines.append(f"tree tiny {lfs}")
lines.append(f"exists {api.file_exists('lab/tiny', 'config.json')}")

fs = HfFileSystem()
told("fs words", fs.read_bytes("datasets/lab/words@v1/train/x.csv"))
told("fs tiny", fs.read_bytes("lab/tiny@main/weights/model.bin"))
lines.append(f"glob {sorted(fs.glob('datasets/lab/words@v1/train/*.csv'))}")

with open(out, "w") as file:
    print(*sorted(lines), sep="\n", file=file)
