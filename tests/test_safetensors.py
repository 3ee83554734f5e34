"""Files: the same bits back, exchange with the safetensors package, bad files refused, writes all or nothing."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import rnnfast as rf
from compare import assert_same_bits
from harness import python
from rnnfast.io import safetensors

# What a child process may take while it refuses every bad file: address space beyond what it has after its imports.
MEMORY_LIMIT = 50 << 20

DTYPES = ["?", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8"]


def lstm_model(dtype="float32", seed=1):
    layers = rf.LSTM(3, 5, dtype=dtype, seed=seed), rf.Last(), rf.Dense(5, 2, "tanh", dtype=dtype, seed=seed)
    return rf.Sequential(*layers)


def raw(header, data=b""):
    """A file with this header, whatever it may be worth."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


GOOD = raw({"a": entry()}, bytes(8))
A = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'

# Name, bytes of the file, and what the error says.
BAD_FILES = [
    ("empty", b"", "0 bytes long, too short for a header"),
    ("seven-bytes", bytes(7), "7 bytes long, too short for a header"),
    ("length-only", GOOD[:8], "header of 61 bytes in a file of 8"),
    ("half-header", GOOD[:40], "header of 61 bytes in a file of 40"),
    ("no-data", GOOD[:-8], "tensors end at byte 8 of 0"),
    ("half-data", GOOD[:-4], "tensors end at byte 8 of 4"),
    ("trailing-byte", GOOD + b"\0", "tensors end at byte 8 of 9"),
    ("length-0", bytes(8) + b"{}", "header does not start with '{'"),
    ("length-1", (1).to_bytes(8, "little") + b"{", "header is not valid"),
    ("length-2**63", (2**63).to_bytes(8, "little") + GOOD[8:], "header of 9223372036854775808 bytes in a file of 77"),
    ("length-2**64-1", b"\xff" * 8 + GOOD[8:], "header of 18446744073709551615 bytes in a file of 77"),
    (
        "long-header",
        raw(b"{" + b" " * (12 << 20) + b"}"),
        "header of 12582914 bytes, more than the 12582912 that are read",
    ),
    ("not-utf-8", raw(b'{"\xff":' + A.encode() + b"}", bytes(8)), "header is not valid: 'utf-8' codec"),
    ("leading-space", raw(b' {"a":' + A.encode() + b"}", bytes(8)), "header does not start with '{'"),
    ("array", raw(b"[]"), "header does not start with '{'"),
    ("nested", raw(b'{"a":' + b"[" * 100_000), "header is not valid: JSON nested too deep"),
    ("nested-mappings", raw(b'{"a":' * 100_000), "header is not valid: JSON nested too deep"),
    ("not-json", raw(b"{'a': 1}"), "header is not valid"),
    ("json-twice", raw(b"{}{}"), "header is not valid: Extra data"),
    ("twice-the-same-name", raw(f'{{"a":{A},"a":{A}}}'.encode(), bytes(8)), "JSON with the key 'a' twice"),
    (
        "twice-the-same-key",
        raw(b'{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
        "JSON with the key 'dtype' twice",
    ),
    ("nan", raw(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', bytes(8)), "JSON with NaN"),
    ("infinity", raw(b'{"a":{"dtype":"F32","shape":[-Infinity],"data_offsets":[0,8]}}'), "JSON with -Infinity"),
    ("endless-integer", raw(b'{"a":' + b"9" * 1_000_000 + b"}"), "JSON with an integer of 1000000 digits"),
    ("entry-is-a-list", raw({"a": [1, 2]}), "'a' is not described by dtype, shape and data_offsets alone"),
    ("entry-is-null", raw({"a": None}), "'a' is not described by"),
    ("no-shape", raw({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, bytes(8)), "'a' is not described by"),
    ("extra-key", raw({"a": entry() | {"strides": [1]}}, bytes(8)), "'a' is not described by"),
    ("unknown-dtype", raw({"a": entry("F33")}, bytes(8)), "'a' has dtype 'F33', none of BOOL, U8"),
    ("numpy-dtype", raw({"a": entry("float32")}, bytes(8)), "'a' has dtype 'float32', none of"),
    ("dtype-without-numpy", raw({"a": entry("BF16")}, bytes(8)), "'a' has dtype 'BF16', none of"),
    ("dtype-is-a-list", raw({"a": entry(["F32"])}, bytes(8)), "'a' has dtype ['F32'], none of"),
    ("shape-is-a-number", raw({"a": entry() | {"shape": 2}}, bytes(8)), "'a' has shape 2, not up to 8 sizes"),
    ("negative-size", raw({"a": entry(shape=(-2, -1))}, bytes(8)), "'a' has shape [-2, -1], not up to 8 sizes"),
    ("fractional-size", raw({"a": entry(shape=(2.0,))}, bytes(8)), "'a' has shape [2.0], not up to 8 sizes"),
    ("size-is-true", raw({"a": entry(shape=(True, 2))}, bytes(8)), "'a' has shape [True, 2], not up to 8 sizes"),
    ("nine-axes", raw({"a": entry(shape=[1] * 8 + [2])}, bytes(8)), "not up to 8 sizes"),
    ("huge-shape", raw({"a": entry(shape=(2**62, 2**62))}, bytes(8)), "'a' has 8 bytes for shape (4611686018427387904"),
    (
        "overflowing-shape",
        raw({"a": entry(shape=(2**32, 2**32, 2))}, bytes(8)),
        "'a' has 8 bytes for shape (4294967296",
    ),
    ("size-2**64", raw({"a": entry(shape=(2**64,))}, bytes(8)), "'a' has shape [18446744073709551616], not"),
    ("wrong-shape", raw({"a": entry(shape=(3,))}, bytes(8)), "'a' has 8 bytes for shape (3,) of F32"),
    (
        "negative-offset",
        raw({"a": entry(offsets=(-8, 0))}, bytes(8)),
        "'a' has data_offsets [-8, 0], not two that ascend",
    ),
    ("fractional-offset", raw({"a": entry(offsets=(0, 8.0))}, bytes(8)), "'a' has data_offsets [0, 8.0], not two"),
    ("text-offset", raw({"a": entry(offsets=("0", "8"))}, bytes(8)), "'a' has data_offsets ['0', '8'], not two"),
    ("one-offset", raw({"a": entry(offsets=(8,))}, bytes(8)), "'a' has data_offsets [8], not two that ascend"),
    ("descending-offsets", raw({"a": entry(offsets=(8, 0))}, bytes(8)), "'a' has data_offsets [8, 0], not two"),
    ("offset-beyond-the-end", raw({"a": entry(shape=(4,), offsets=(0, 16))}, bytes(8)), "tensors end at byte 16 of 8"),
    (
        "huge-tensor",
        raw({"a": entry(shape=(2**40,), offsets=(0, 2**42))}, bytes(8)),
        "tensors end at byte 4398046511104 of 8",
    ),
    (
        "gap-at-the-start",
        raw({"a": entry(offsets=(8, 16))}, bytes(16)),
        "'a' begins at byte 8, the tensor before it ends",
    ),
    (
        "gap",
        raw({"a": entry(), "b": entry(offsets=(16, 24))}, bytes(24)),
        "'b' begins at byte 16, the tensor before it ends at 8",
    ),
    (
        "overlap",
        raw({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)),
        "'b' begins at byte 4, the tensor before it ends at 8",
    ),
    (
        "same-bytes-twice",
        raw({"a": entry(), "b": entry()}, bytes(8)),
        "'b' begins at byte 0, the tensor before it ends",
    ),
    ("metadata-is-a-list", raw({"__metadata__": ["a"]}), "__metadata__ is not a mapping of texts to texts"),
    ("metadata-is-null", raw({"__metadata__": None}), "__metadata__ is not a mapping of texts to texts"),
    ("metadata-number", raw({"__metadata__": {"a": 1}}), "__metadata__ is not a mapping of texts to texts"),
    ("metadata-nested", raw({"__metadata__": {"a": {"b": "c"}}}), "__metadata__ is not a mapping of texts to texts"),
    ("pickle", b"\x80\x04\x95" + bytes(100), "bytes in a file of 103"),
    ("zip", b"PK\x03\x04" + bytes(100), "header of 67324752 bytes in a file of 104"),
    (
        "many-tensors",
        raw(
            b"{" + b",".join(b'"%d":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}' % k for k in range(300_000)) + b"}"
        ),
        "more than the 12582912 that are read",
    ),
    (
        "many-empty-mappings",
        raw(b"{" + b",".join(b'"%x":{}' % k for k in range(90_000)) + b"}"),
        "is not described by dtype, shape and data_offsets alone",
    ),
]


def model_file(change=None, tensors=None, **metadata):
    """A model's file in which something was changed; None as a text leaves it out."""
    layers = [
        {"type": "LSTM", "config": rf.LSTM(3, 5).config()},
        {"type": "Last", "config": {}},
        {"type": "Dense", "config": rf.Dense(5, 2).config()},
    ]
    if change is not None:
        change(layers)
    texts = {"format": "rnnfast", "version": "1", "model": json.dumps({"layers": layers})} | metadata
    header, data = {"__metadata__": {k: v for k, v in texts.items() if v is not None}}, b""
    for name, value in (lstm_model().state_dict() | (tensors or {})).items():
        if value is not None:
            code = {"float32": "F32", "float64": "F64", "float16": "F16"}[value.dtype.name]
            header[name] = entry(code, value.shape, (len(data), len(data) + value.nbytes))
            data += value.tobytes()
    return raw(header, data)


def put(k, key, value):
    return lambda layers: layers[k]["config"].__setitem__(key, value)


BAD_MODELS = [
    ("other-format", model_file(format="pt"), "no rnnfast model; expected a file of Sequential.save"),
    ("no-metadata", GOOD, "no rnnfast model; expected a file of Sequential.save"),
    ("no-model", model_file(model=None), "no rnnfast model; expected a file of Sequential.save"),
    ("other-version", model_file(version="2"), "model of version '2'; expected '1'"),
    ("model-is-not-json", model_file(model="import os"), "Expecting value"),
    ("model-is-a-list", model_file(model="[]"), "the model in the metadata is not a mapping with a list of layers"),
    (
        "model-with-extras",
        model_file(model='{"layers": [], "hook": "os.system"}'),
        "is not a mapping with a list of layers",
    ),
    ("model-nested", model_file(model="[" * 100_000), "JSON nested too deep"),
    ("no-layers", model_file(model='{"layers": []}'), "tensor '0.weight_ih_l0' belongs to no layer"),
    ("layer-is-text", model_file(lambda layers: layers.__setitem__(0, "LSTM")), "layer 0: not described by a type"),
    (
        "unknown-layer",
        model_file(lambda layers: layers[0].update(type="Conv")),
        "layer 0: type 'Conv'; expected one of",
    ),
    (
        "dangerous-layer",
        model_file(lambda layers: layers[0].update(type="os.system")),
        "layer 0: type 'os.system'; expected",
    ),
    (
        "wrong-layer",
        model_file(lambda layers: layers[0].update(type="GRU")),
        "layer 0: GRU.load_state_dict: weight_ih_l0",
    ),
    (
        "unknown-argument",
        model_file(put(0, "hook", 1)),
        "layer 0: LSTM.__init__() got an unexpected keyword argument 'hook'",
    ),
    (
        "missing-argument",
        model_file(lambda layers: layers[0]["config"].pop("hidden_size")),
        "layer 0: LSTM.__init__() miss",
    ),
    ("left-to-default", model_file(lambda layers: layers[2]["config"].pop("bias")), "layer 2: config {"),
    (
        "smaller-hidden-size",
        model_file(put(0, "hidden_size", 4)),
        "layer 0: LSTM.load_state_dict: weight_ih_l0 has shape",
    ),
    ("larger-hidden-size", model_file(put(0, "hidden_size", 9)), "layer 0: parameters of shapes"),
    (
        "huge-hidden-size",
        model_file(put(0, "hidden_size", 2**40)),
        "layer 0: hidden_size is 1099511627776, but its tensors",
    ),
    ("huge-features", model_file(put(2, "in_features", 2**62)), "layer 2: in_features is 4611686018427387904, but its"),
    ("negative-hidden-size", model_file(put(0, "hidden_size", -5)), "layer 0: LSTM: hidden_size is -5"),
    ("text-hidden-size", model_file(put(0, "hidden_size", "5")), "layer 0: LSTM: hidden_size is '5'"),
    ("float-features", model_file(put(2, "in_features", 5.0)), "layer 2: Dense: in_features is 5.0"),
    ("unknown-activation", model_file(put(2, "activation", "eval")), "layer 2: Dense: activation is 'eval'"),
    ("unknown-dtype", model_file(put(2, "dtype", "object")), "layer 2: Dense: dtype is object"),
    ("other-dtype", model_file(put(2, "dtype", "float64")), "layer 2: weight has dtype float32; expected float64"),
    (
        "half-precision",
        model_file(tensors={"2.bias": np.zeros(2, "f2")}),
        "layer 2: bias has dtype float16; expected float32",
    ),
    (
        "wrong-tensor",
        model_file(tensors={"2.bias": np.zeros(3, "f4")}),
        "layer 2: Dense.load_state_dict: bias has shape (3,)",
    ),
    ("missing-tensor", model_file(tensors={"2.bias": None}), "layer 2: parameters of shapes"),
    (
        "extra-tensor",
        model_file(tensors={"2.extra": np.zeros(2, "f4")}),
        "layer 2: Dense.load_state_dict: missing parameters",
    ),
    ("tensor-of-no-layer", model_file(tensors={"3.bias": np.zeros(2, "f4")}), "tensor '3.bias' belongs to no layer"),
    ("other-spelling", model_file(tensors={"02.bias": np.zeros(2, "f4")}), "tensor '02.bias' belongs to no layer"),
    (
        "unjoinable",
        model_file(lambda layers: layers[1].update(type="Dense", config=rf.Dense(1, 1).config())),
        "layer 1: ",
    ),
]


# The format.


def test_round_trip_of_every_dtype(tmp_path, rng):
    tensors = {}
    for dtype in DTYPES:
        for shape in [(), (0,), (1,), (3, 2), (2, 0, 3), (1,) * 8]:
            bits = rng.integers(0, 256, int(np.prod(shape)) * np.dtype(dtype).itemsize, np.uint8)
            tensors[f"{dtype} {shape}"] = (bits % 2 if dtype == "?" else bits).view(dtype).reshape(shape)
    tensors["special"] = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324])
    metadata = {"": "", "a": 'ü\n\0"', "__metadata__": "x"}
    safetensors.write(tmp_path / "t", tensors, metadata)
    got, got_metadata = safetensors.read(tmp_path / "t")
    assert got_metadata == metadata
    assert got.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert_same_bits(got[name], tensor, name)
        assert got[name].flags.writeable


def test_memory_layout_and_byte_order_are_not_kept(tmp_path, rng):
    array = rng.standard_normal((4, 6))
    changed = {
        "fortran": np.asfortranarray(array),
        "big": array.astype(">f8"),
        "strided": np.repeat(array, 2, 1)[:, ::2],
    }
    safetensors.write(tmp_path / "t", changed)
    for name, got in safetensors.read(tmp_path / "t")[0].items():
        assert_same_bits(got, array, name)


def test_tensors_are_aligned(tmp_path):
    safetensors.write(
        tmp_path / "t", {"a": np.zeros(3, "u1"), "b": np.zeros(3, "f4"), "c": np.zeros(3), "d": np.zeros(1, "f2")}
    )
    content = (tmp_path / "t").read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    offsets = {name: tensor["data_offsets"][0] for name, tensor in json.loads(content[8 : 8 + length]).items()}
    assert [offsets[name] % size for name, size in (("b", 4), ("c", 8), ("d", 2))] == [0, 0, 0]


def test_nothing_at_all(tmp_path):
    safetensors.write(tmp_path / "t", {})
    assert safetensors.read(tmp_path / "t") == ({}, {})


def test_exchange_with_the_safetensors_package(tmp_path, rng):
    peer = pytest.importorskip("safetensors.numpy", reason="the safetensors package, an extra, is not installed")
    tensors = {
        f"t{k}": rng.standard_normal((k, 3)).astype(dtype) for k, dtype in enumerate(["f2", "f4", "f8", "i8", "u1"])
    }
    safetensors.write(tmp_path / "ours", tensors, {"made": "here"})
    theirs = peer.load_file(tmp_path / "ours")
    peer.save_file(tensors, tmp_path / "theirs", {"made": "there"})
    ours, metadata = safetensors.read(tmp_path / "theirs")
    assert metadata == {"made": "there"}
    for name, tensor in tensors.items():
        assert_same_bits(theirs[name], tensor, f"{name} read by the package")
        assert_same_bits(ours[name], tensor, f"{name} written by the package")
    with sys.modules["safetensors"].safe_open(tmp_path / "ours", "numpy") as file:
        assert file.metadata() == {"made": "here"}


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES, ids=[name for name, _, _ in BAD_FILES])
def test_bad_file(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        safetensors.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith("; expected a safetensors file")
    assert message in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 300


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "t"
    safetensors.write(path, {"a": np.arange(5.0), "b": np.arange(3, dtype="f4")}, {"x": "y"})
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="expected a safetensors file"):
            safetensors.read(path)


def test_flipped_bytes_never_do_harm(tmp_path):
    """Every byte of length and header, changed in three ways: an error, or tensors within the file's own size."""
    path = tmp_path / "t"
    safetensors.write(path, {"a": np.arange(4.0), "b": np.arange(3, dtype="f4")}, {"x": "y"})
    content = path.read_bytes()
    data = 4 * 8 + 3 * 4
    refused = 0
    for position in range(len(content) - data):
        for flip in (1, 0x20, 0xFF):
            path.write_bytes(content[:position] + bytes([content[position] ^ flip]) + content[position + 1 :])
            try:
                tensors, _ = safetensors.read(path)
            except ValueError as error:
                refused += 1
                assert "expected a safetensors file" in str(error)
            else:
                assert sum(tensor.nbytes for tensor in tensors.values()) == data
    assert refused > 2 * (len(content) - data)


def test_what_is_no_regular_file(tmp_path):
    with pytest.raises(ValueError, match="a directory; expected a safetensors file"):
        safetensors.read(tmp_path)
    with pytest.raises(FileNotFoundError):
        safetensors.read(tmp_path / "absent")
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes and devices here")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name in ("pipe", "link"):
        with pytest.raises(ValueError, match="not a regular file; expected a safetensors file"):
            safetensors.read(tmp_path / name)
        with pytest.raises(ValueError, match="not a regular file; expected a file that may be replaced"):
            safetensors.write(tmp_path / name, {})


def test_link_to_a_file(tmp_path):
    """It is read and written through: the link stays one."""
    (tmp_path / "link").symlink_to(tmp_path / "file")
    safetensors.write(tmp_path / "link", {"a": np.ones(3)})
    assert (tmp_path / "link").is_symlink()
    assert_same_bits(safetensors.read(tmp_path / "link")[0]["a"], np.ones(3), "a")


@pytest.mark.parametrize(
    ("tensors", "metadata", "error", "message"),
    [
        ({"a": np.zeros(2, complex)}, {}, TypeError, "safetensors.write: a has dtype complex128; expected one of BOOL"),
        ({"a": np.array(["x"])}, {}, TypeError, "safetensors.write: a has dtype <U1; expected one of BOOL"),
        ({"a": object()}, {}, TypeError, "safetensors.write: a has dtype object; expected one of BOOL"),
        ({1: np.zeros(2)}, {}, TypeError, "safetensors.write: the name 1 is int; expected str"),
        ({"__metadata__": np.zeros(2)}, {}, ValueError, "safetensors.write: a tensor is named __metadata__"),
        ({}, {"a": 1}, TypeError, "safetensors.write: metadata 'a': 1; expected texts"),
        (
            {},
            {"a": "x" * (12 << 20)},
            ValueError,
            "safetensors.write: header of 12582944 bytes; expected at most 12582912",
        ),
    ],
)
def test_what_cannot_be_written(tensors, metadata, error, message, tmp_path):
    with pytest.raises(error) as caught:
        safetensors.write(tmp_path / "t", tensors, metadata)
    assert str(caught.value).startswith(message)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_failed_write_leaves_what_was_there(failing, tmp_path, monkeypatch):
    path = tmp_path / "t"
    safetensors.write(path, {"a": np.ones(3)})
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="disk full"):
        safetensors.write(path, {"a": np.zeros(300)})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["t"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_written_files_have_ordinary_permissions(tmp_path):
    safetensors.write(tmp_path / "t", {})
    (tmp_path / "ordinary").touch()
    assert (tmp_path / "t").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


# Models.


@pytest.mark.parametrize("batch_first", [False, True])
def test_model_comes_back_to_the_bit(batch_first, dtype, tmp_path, rng):
    options = {"batch_first": batch_first, "dtype": dtype}
    model = rf.Sequential(
        rf.Dense(4, 3, "relu", dtype=dtype),
        rf.LSTM(3, 5, **options),
        rf.GRU(5, 4, bias=False, **options),
        rf.RNN(4, 6, nonlinearity="relu", **options),
        rf.Last(),
        rf.Dense(6, 2, bias=False, dtype=dtype),
    )
    model.parameters["5.weight"][0, :3] = [np.nan, -0.0, np.inf]
    model.save(tmp_path / "m.safetensors")
    again = rf.load(tmp_path / "m.safetensors")
    assert repr(again) == repr(model)
    assert list(again.parameters) == list(model.parameters)
    assert_same_bits(again.parameters.flat, model.parameters.flat, "parameters")
    x = rng.standard_normal((7, 3, 4)).astype(dtype)
    assert_same_bits(again(x), model(x), "prediction")
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_model_without_parameters_and_feed_forward(tmp_path):
    model = rf.Sequential(rf.Dense(3, 2, "sigmoid"))
    model.save(str(tmp_path / "m"))
    assert repr(rf.load(str(tmp_path / "m"))) == repr(model)


def test_model_is_read_by_torchs_reader(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch, the extra witness, is not installed")
    peer = pytest.importorskip("safetensors.torch", reason="the safetensors package, an extra, is not installed")
    model = lstm_model()
    model.save(tmp_path / "m")
    tensors = peer.load_file(tmp_path / "m")
    module = torch.nn.Sequential(torch.nn.LSTM(3, 5), torch.nn.Identity(), torch.nn.Linear(5, 2))
    module.load_state_dict(tensors)
    peer.save_file(module.state_dict(), tmp_path / "t")
    other = lstm_model(seed=2)
    other.load_state_dict(safetensors.read(tmp_path / "t")[0])
    assert_same_bits(other.parameters.flat, model.parameters.flat, "parameters")


def test_training_goes_on_after_load(tmp_path, rng):
    x, y = rng.standard_normal((4, 9, 3)).astype("f4"), rng.standard_normal((9, 2)).astype("f4")
    model = lstm_model()
    model.save(tmp_path / "m")
    again = rf.load(tmp_path / "m")
    for trained in (model, again):
        trained.fit(x, y, epochs=2, progress=False)
    assert_same_bits(again.parameters.flat, model.parameters.flat, "parameters")


def test_layers_of_ones_own_are_not_saved(tmp_path):
    class Dense(rf.Dense):
        pass

    with pytest.raises(ValueError, match=r"Sequential\.save: layers\[0\] is Dense; expected one of Dense, Dropout"):
        rf.Sequential(Dense(2, 2)).save(tmp_path / "m")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("name", "content", "message"), BAD_MODELS, ids=[name for name, _, _ in BAD_MODELS])
def test_bad_model(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        rf.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_the_unchanged_model_file_is_good(tmp_path):
    """What the bad ones were made from: without this, they might be refused for another reason."""
    (tmp_path / "m").write_bytes(model_file())
    assert_same_bits(rf.load(tmp_path / "m").parameters.flat, lstm_model().parameters.flat, "parameters")


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_bad_files_take_little_memory(tmp_path):
    """All of them in one process that may take 50 MB more than its imports did."""
    for name, content, _ in (*BAD_FILES, *BAD_MODELS):
        (tmp_path / name).write_bytes(content)
    code = f"""
import pathlib, resource, rnnfast as rf
import rnnfast.io.model_file
pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + {MEMORY_LIMIT}
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sorted(pathlib.Path({str(tmp_path)!r}).iterdir()):
    try:
        rf.load(path)
    except ValueError as error:
        pass
    else:
        raise SystemExit(f"{{path.name}} was read")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "MB")
"""
    result = python(code)
    assert result.returncode == 0, result.stderr


def test_nothing_here_can_execute_a_file():
    for path in Path(safetensors.__file__).parent.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        for word in ("pickle", "eval(", "exec(", "__import__"):
            assert word not in text, (path.name, word)
