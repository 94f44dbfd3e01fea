"""Files made to break a reader: headers and pickles changed at random, and some made by hand."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import save

from motion.models.motion_module import MotionModel, MotionModuleConfig

Tensors = dict[str, torch.Tensor]


def small_motion_module() -> Tensors:
    """HotShot-XL's levels, at the smallest width there is and with one module each."""
    torch.manual_seed(0)
    levels = (32,) * 3
    model = MotionModel(MotionModuleConfig(levels, levels, None, max_length=24, down_modules=1, up_modules=1))
    return {key: value.half() for key, value in model.state_dict().items()}


class Command:
    """Makes a folder when a careless reader unpickles it."""

    def __reduce__(self):
        return os.mkdir, ("code-was-run",)


def zip_of(tensors: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


def old_pickle_of(tensors: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensors, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def rezip(data: bytes, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A PyTorch archive with its records changed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return buffer.getvalue()


def change_bytes(data: bytes, dice: random.Random, start: int, end: int) -> bytes:
    """Up to eight bytes between start and end overwritten, removed, doubled or swapped for meaningful ones."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 8)):
        at = dice.randrange(start, end)
        action = dice.randrange(4)
        if action == 0:
            changed[at] = dice.randrange(256)
        elif action == 1:
            changed[at : at + dice.randint(1, 40)] = b""
        elif action == 2:
            changed[at:at] = changed[at : at + dice.randint(1, 200)]
        else:
            changed[at] = dice.choice(b'(RbcoitsuQ}]\x85\x86\x87\x93\x94.0-9e"{}[],:')
        end = min(end, len(changed))
    return bytes(changed)


def mutated_safetensors(tensors: Tensors, dice: random.Random) -> bytes:
    data = save(tensors)
    length = int.from_bytes(data[:8], "little")
    return change_bytes(data, dice, dice.choice([0, 8]), 8 + length)


def edited_header(tensors: Tensors, dice: random.Random) -> bytes:
    """A header that is sound JSON and says something wrong."""
    data = save(tensors)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    key = dice.choice([name for name in header if name != "__metadata__"])
    huge = [2**31, 2**62, 2**64, -1, 0, 1.5, None, "4", [], 10**400]
    edits: list[Callable[[], Any]] = [
        lambda: header[key].update(shape=[dice.choice(huge)] * dice.randint(0, 3)),
        lambda: header[key].update(data_offsets=[dice.choice(huge), dice.choice(huge)]),
        lambda: header[key].update(dtype=dice.choice(["F8", "F128", "", None, "I64", "F64", "BOOL"])),
        lambda: header[key].pop(dice.choice(["shape", "dtype", "data_offsets"])),
        lambda: header.update({key: dice.choice([None, [], "x", {}])}),
        lambda: header.update({"../" * 50 + "\x00\x1b[31m": header.pop(key)}),
        lambda: header.update(__metadata__=dice.choice([None, 3, {"a": 1}, {"a": "b" * 10_000}])),
    ]
    dice.choice(edits)()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def mutated_zip(tensors: Tensors, dice: random.Random) -> bytes:
    def change(name: str, data: bytes) -> bytes:
        return change_bytes(data, dice, 0, len(data)) if name.endswith("data.pkl") else data

    return rezip(zip_of(tensors), change)


def broken_archive(tensors: Tensors, dice: random.Random) -> bytes:
    """An archive whose index or records are not what they were."""
    data = zip_of(tensors)
    victim = dice.choice(["data/3", "data.pkl", "version", "byteorder", "data/0"])
    return dice.choice(
        [
            lambda: change_bytes(data, dice, len(data) - 2000, len(data)),
            lambda: rezip(data, lambda name, old: old[: len(old) // 2] if name.endswith(victim) else old),
            lambda: rezip(data, lambda name, old: old, zipfile.ZIP_DEFLATED),
            lambda: data[: dice.randrange(len(data))],
        ]
    )()


def mutated_old_pickle(tensors: Tensors, dice: random.Random) -> bytes:
    data = old_pickle_of(tensors)
    return change_bytes(data, dice, 0, len(data) // 3)


def with_code(tensors: Tensors, dice: random.Random) -> bytes:
    content: Any = {**tensors, dice.choice(list(tensors)): Command()}
    content = dice.choice([content, {"state_dict": content}, [Command()], Command(), {Command: 1}])
    write = dice.choice([zip_of, old_pickle_of, lambda each: pickle.dumps(each, protocol=dice.randint(2, 5))])
    return write(content)


FUZZERS = (
    mutated_safetensors,
    edited_header,
    mutated_zip,
    broken_archive,
    mutated_old_pickle,
    with_code,
)


def _bomb_of_tuples() -> bytes:
    """A dict key whose hash meets 2^60 items."""
    layers = b"".join(b"q%c0h%ch%c\x86" % (index, index, index) for index in range(1, 61))
    return b"\x80\x02})" + layers + b"K\x01s."


def _raw_archive(pickled: bytes) -> bytes:
    return rezip(zip_of({"a": torch.zeros(2)}), lambda name, old: pickled if name.endswith("data.pkl") else old)


def handmade() -> dict[str, bytes]:
    """Name -> content of files with one trick each."""
    bombs = {
        "tuples": _bomb_of_tuples(),
        "bytearray": b"\x80\x02c__builtin__\nbytearray\n\x8a\x05\x00\x00\x00\x00\x10\x85R.",
        "deep lists": b"\x80\x02" + b"](" * 20_000 + b"e" * 20_000 + b".",
        "deep tuples": b"\x80\x02)" + b"\x85" * 20_000 + b".",
        "far memo": b"\x80\x02]r\xff\xff\xff\x7f.",
        "long string": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b".",
        "long integer": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".",
        "no stop": b"\x80\x02" + b"]0" * 1000,
        "empty stack": b"\x80\x02.",
        "recursive dict": b"\x80\x02}q\x01h\x01h\x01s.",
        "code by inst": b"\x80\x02(S'code-was-run'\nios\nmkdir\n.",
        "code by obj": b"\x80\x02(cos\nmkdir\nX\x0c\x00\x00\x00code-was-runo.",
        "extension": b"\x80\x02\x82\x01.",
    }
    deep_json = b"[" * 20_000
    wide_json = json.dumps({"a": {"dtype": "F16", "shape": [1.5, 10**400], "data_offsets": [0, 2]}}).encode()
    end_of_zip = b"PK\x05\x06" + bytes(18)
    whole = bytes(2**20)
    return {
        **{f"{name}, plain": data for name, data in bombs.items()},
        **{f"{name}, archive": _raw_archive(data) for name, data in bombs.items()},
        "header of nothing": struct.pack("<Q", 0) + b"{",
        "header beyond everything": struct.pack("<Q", 2**64 - 1) + b"{" + whole,
        "deep header": struct.pack("<Q", len(deep_json) + 5) + b'{"a":' + deep_json,
        "shape beyond every float": struct.pack("<Q", len(wide_json)) + wide_json + b"00",
        "zip of many disks": b"PK\x03\x04" + bytes(100) + b"PK\x06\x07" + struct.pack("<LQL", 7, 0, 9) + end_of_zip,
        "header of blanks": struct.pack("<Q", 2**20) + b"{" + b" " * (2**20 - 1),
        "zip of zeros": b"PK\x03\x04" + whole,
        "pickle of zeros": b"\x80\x02" + whole,
    }
