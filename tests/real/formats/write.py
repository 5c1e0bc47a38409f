"""Writes the same values by real writers, twice in other containers and once with one element that is one ULP further.

first/NAME and second/NAME hold the same; ulp/NAME differs from second/NAME at element 5 (or [1, 2] of the matrix).
"""
import bz2, collections, gzip, io, json, lzma, os, pickle, subprocess, sys, tarfile, zipfile

import joblib, numpy as np, pandas as pd, png, pyarrow as pa, pyarrow.csv, pyarrow.parquet as pq
from PIL import Image
from safetensors.numpy import save as tensors

out = sys.argv[1]
matrix = np.sin(np.arange(12.0)).reshape(3, 4)
vector = np.cos(np.arange(40, dtype="f4"))
pixels = (np.arange(48 * 32 * 3) * 7 % 251).astype("u1").reshape(32, 48, 3)


def values(ulp):
    """The matrix and the vector."""
    a, b = matrix.copy(), vector.copy()
    if ulp:
        a[1, 2] = np.nextafter(a[1, 2], np.float64(9))
        b[5] = np.nextafter(b[5], np.float32(9))
    return a, b


def npy(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


def table(ulp):
    rows = 40
    return pa.table({
        "v": pa.array(values(ulp)[1]),
        "s": pa.array([None if i % 7 == 0 else f"text {i % 9}" for i in range(rows)]),
        "n": pa.array([[float(j) for j in range(i % 4)] for i in range(rows)]),
        "c": pa.array(["x", "yy"] * 20).dictionary_encode(),
    })


def arrow(**how):
    def make(ulp):
        file = io.BytesIO()
        pq.write_table(table(ulp), file, **how)
        return file.getvalue()
    return make


def frame(ulp):
    v = np.cos(np.arange(40.0))
    if ulp:
        v[5] = np.nextafter(v[5], 9)
    return pd.DataFrame({"v": v, "s": [f"text {i}, {i}" for i in range(40)]})


def plain_csv(ulp):
    return frame(ulp).to_csv(index=False).encode()


def quoted_csv(ulp):
    return frame(ulp).to_csv(index=False, quoting=1, lineterminator="\r\n").encode()


def arrow_csv(ulp):
    file = io.BytesIO()
    pyarrow.csv.write_csv(pa.Table.from_pandas(frame(ulp)), file)
    return file.getvalue()


def pandas_parquet(**how):
    def make(ulp):
        file = io.BytesIO()
        frame(ulp).to_parquet(file, **how)
        return file.getvalue()
    return make


def model(ulp):
    a, b = values(ulp)
    return collections.OrderedDict(
        w=a, b=b, f=np.asfortranarray(a), names=["é", "b"], kinds={"x", "y", "z"}, raw=b"\0\xff", pair=(1, 2.5, None, True),
        big=2**70, scalar=np.float64(0.1), strings=np.array(["a", "bcd"]), when=np.datetime64("2020-01-01"))


def pickled(protocol):
    return lambda ulp: pickle.dumps(model(ulp), protocol)


def joblibbed(compress):
    def make(ulp):
        file = io.BytesIO()
        joblib.dump(model(ulp), file, compress=compress)
        return file.getvalue()
    return make


def npz(save, turned):
    def make(ulp):
        a, b = values(ulp)
        file = io.BytesIO()
        arrays = {"w": a, "b": b}
        save(file, **dict(reversed(arrays.items())) if turned else arrays)
        return file.getvalue()
    return make


def archive(kind, time):
    def make(ulp):
        file = io.BytesIO()
        members = [("x/b.npy", npy(values(ulp)[1])), ("readme.txt", b"text\n")]
        with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
            for name, data in members if time else members[::-1]:
                info = tarfile.TarInfo(name)
                info.size, info.mtime, info.uid, info.uname = len(data), time, time, "user" if time else ""
                tar.addfile(info, io.BytesIO(data))
        return file.getvalue()
    return make


def zipped(level, time):
    def make(ulp):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if level else zipfile.ZIP_STORED, compresslevel=level) as z:
            z.writestr(zipfile.ZipInfo("b.npy", time), npy(values(ulp)[1]), compress_type=z.compression)
        return file.getvalue()
    return make


def shown(ulp):
    image = pixels.copy()
    image[1, 2, 0] += ulp
    return image


def pillow(**how):
    def make(ulp):
        file = io.BytesIO()
        Image.fromarray(shown(ulp)).save(file, "PNG", **how)
        return file.getvalue()
    return make


def pypng(ulp):
    file = io.BytesIO()
    png.Writer(48, 32, greyscale=False, compression=9).write(file, shown(ulp).reshape(32, -1).tolist())
    return file.getvalue()


def packed(pack):
    return lambda ulp: pack(npy(values(ulp)[1]))


def program(*command):
    return packed(lambda data: subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout)


def arrow_zstd(data):
    file = pa.BufferOutputStream()
    with pa.CompressedOutputStream(file, "zstd") as stream:
        stream.write(data)
    return file.getvalue().to_pybytes()


def safe(metadata):
    return lambda ulp: tensors(dict(zip("wb", values(ulp))), metadata)


keys = {f"k{i}": str(i) for i in range(9)}
writers = {
    "v.npy": (packed(bytes), lambda ulp: npy(values(ulp)[1], (2, 0))),
    "plain.npz": (npz(np.savez, False), npz(np.savez_compressed, True)),
    "model.joblib": (joblibbed(0), lambda ulp: joblibbed(0)(ulp)),
    "zlib.joblib": (joblibbed(1), joblibbed(9)),
    "gzip.joblib": (joblibbed(("gzip", 1)), joblibbed(("gzip", 9))),
    "other.joblib": (joblibbed(("bz2", 1)), joblibbed(("xz", 1))),
    **{f"protocol-{n}.pkl": (pickled(n), pickled(4 if n == 5 else 5)) for n in (0, 2, 3, 4, 5)},
    "m.safetensors": (safe(keys), safe(dict(reversed(keys.items())))),
    "groups.parquet": (arrow(), arrow(row_group_size=7, compression="gzip", version="1.0", write_statistics=False)),
    "pages.parquet": (arrow(compression="none"), arrow(data_page_version="2.0", compression="zstd", use_dictionary=False, data_page_size=64)),
    "encodings.parquet": (
        arrow(compression="lz4"),
        arrow(use_dictionary=["c"], column_encoding={"v": "BYTE_STREAM_SPLIT", "s": "DELTA_BYTE_ARRAY"}, store_schema=False),
    ),
    "pandas.parquet": (pandas_parquet(), pandas_parquet(compression="zstd", row_group_size=11)),
    "pandas.csv": (plain_csv, quoted_csv),
    "arrow.csv": (plain_csv, arrow_csv),
    "a.tar": (archive(tarfile.GNU_FORMAT, 0), archive(tarfile.PAX_FORMAT, 1_600_000_000)),
    "a.zip": (zipped(0, (1990, 1, 1, 0, 0, 0)), zipped(9, (2020, 1, 1, 0, 0, 0))),
    "levels.png": (pillow(compress_level=1), pillow(optimize=True, dpi=None)),
    "writers.png": (pillow(), pypng),
    "v.npy.gz": (packed(lambda d: gzip.compress(d, 1, mtime=1)), program("gzip", "-9")),
    "v.npy.xz": (packed(lambda d: lzma.compress(d, preset=0)), program("xz", "-9e", "--check=crc32")),
    "v.npy.bz2": (packed(lambda d: bz2.compress(d, 1)), program("bzip2", "-9")),
    "v.npy.zst": (packed(arrow_zstd), program("zstd", "-19", "--long=24", "-q")),
    "a.tar.gz": (
        lambda ulp: gzip.compress(archive(tarfile.GNU_FORMAT, 0)(ulp), 1, mtime=1),
        lambda ulp: gzip.compress(archive(tarfile.PAX_FORMAT, 2)(ulp), 9, mtime=2),
    ),
}
for name, (one, two) in writers.items():
    for folder, make, ulp in (("first", one, False), ("second", two, False), ("ulp", two, True)):
        os.makedirs(f"{out}/{folder}", exist_ok=True)
        with open(f"{out}/{folder}/{name}", "wb") as file:
            file.write(make(ulp))
print(json.dumps(sorted(writers)))
