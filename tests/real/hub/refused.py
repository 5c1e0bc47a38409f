"""Asks the hub for what no data set of the project has; the errors of its library, a line each."""

import sys

from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download


def refused(ask):
    try:
        print(ask(), file=sys.stderr)
    except Exception as error:
        print(f"refused: {type(error).__name__}", file=sys.stderr)


refused(lambda: hf_hub_download("lab/other", "x.json"))
refused(lambda: snapshot_download("lab/more", repo_type="dataset"))
refused(lambda: HfApi().list_repo_files("lab/words", repo_type="dataset", revision="v2"))
refused(lambda: hf_hub_download("lab/tiny", "config.json"))
refused(lambda: HfFileSystem().read_bytes("datasets/lab/third/x.csv"))
sys.exit(1)
