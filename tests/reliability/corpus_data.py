"""Malformed data files of every format: one table a format, and valid files that were refused."""

import json
import os
import socket
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from reliability.case import Case

Write = Callable[[Path], object]
ROWS = 24
FLOATS = np.random.default_rng(0).normal(size=(ROWS, 5, 2)).astype(np.float32)
LABELS = np.arange(ROWS) % 2

TRAIN = {
    ".npz": "--config={configs}/arrays.py:train={d}/a.npz",
    ".ts": "--config={configs}/series.py:train={d}/a.ts,test={d}/a.ts",
    ".csv": "--config={configs}/text.py:train={d}/a.csv,tokenizer=spaces",
    ".jsonl": "--config={configs}/text.py:train={d}/a.jsonl,tokenizer=spaces",
}


def _file(suffix: str, content: str | bytes | Callable[[], bytes]) -> Write:
    def write(folder: Path) -> None:
        data = content() if callable(content) else content
        (folder / f"a{suffix}").write_bytes(data.encode() if isinstance(data, str) else data)

    return write


def _case(suffix: str, name: str, write: Write, says: str, status: int = 2) -> Case:
    def files(folder: Path) -> None:
        write(folder)

    return Case(f"{suffix[1:]}/{name}", ("train", TRAIN[suffix]), says, files, status)


# .ts: header, rows, and what the line must say

H = "@univariate false\n@classLabel true A B\n@data\n"
R = "1,2:3,4:A\n5,6:7,8:B\n"
UNI = "@univariate true\n@classLabel true A B\n@data\n"
LATIN = "@classLabel true caf\xe9 caf\xe8\n@data\n"
TS = [
    ("no bytes", "", "a.ts: the file is empty"),
    ("blank lines", "\n \n\t\n", "a.ts: the file is empty"),
    ("only a byte order mark", b"\xef\xbb\xbf", "a.ts: the file is empty"),
    ("UTF-16", (H + R).encode("utf-16"), "a.ts: the file is UTF-16; save it as UTF-8"),
    ("UTF-32", (H + R).encode("utf-32"), "a.ts: the file is UTF-32; save it as UTF-8"),
    ("UTF-16 without a mark", (H + R).encode("utf-16-le"), r"a.ts:1: a NUL byte"),
    ("NUL in a row", H + R + "1,\0:3,4:A\n", "a.ts:6: a NUL byte"),
    ("a zip file", b"PK\x03\x04\x00\x00", "a.ts:1: a NUL byte"),
    ("no data line", "@classLabel true A B\n", "a.ts: no @data line"),
    ("rows before data", "1,2:A\n", "a.ts:1: .* before '@data'"),
    ("no rows", H, "a.ts:3: no case after @data"),
    ("row on the data line", H.replace("@data", "@data 1,2:A") + R, "a.ts:3: '1,2:A' after @data"),
    (
        "class twice",
        "@classLabel true A B B\n@data\n1:A\n2:B\n",
        "a.ts:1: the class 'B' stands twice",
    ),
    (
        "class twice in two forms of Unicode",
        "@classLabel true \xe9 e\u0301\n@data\n1:\xe9\n2:e\u0301\n",
        "a.ts:1: .*Unicode form",
    ),
    ("no class names", "@classLabel true\n@data\n1:A\n", "a.ts:1: @classLabel true without class"),
    ("no class labels", "@data\n1,2\n3,4\n", "a.ts: no class labels in the header"),
    ("class labels false", "@classLabel false\n@data\n1,2\n3,4\n", "a.ts: no class labels"),
    (
        "class labels neither true nor false",
        "@classLabel A B\n@data\n1:A\n2:B\n",
        "a.ts:1: '@classLabel A B': write true or false",
    ),
    ("label not declared", H + R + "1,2:3,4:C\n", r"a.ts:6: .*'C'.*line 2 \(A, B\)"),
    ("label in another case", H + R + "1,2:3,4:a\n", "a.ts:6: .*did you mean 'A'"),
    ("label with a blank", H + R + "1,2:3,4:A A\n", "a.ts:6: the line ends in 'A A'"),
    ("label left out", H + R + "1,2:3,4\n", "a.ts:6: the line ends in '3,4'"),
    ("label empty", H + R + "1,2:3,4:\n", "a.ts:6: the line ends in ''"),
    ("label only", H + "A\n", "a.ts:4: the line ends in 'A'"),
    (
        "classes in other letters of Latin-1",
        (LATIN + "1:caf\xea\n").encode("latin-1"),
        "a.ts:3: .*caf",
    ),
    ("one class used", UNI + "1,2:A\n3,4:A\n", "data.source: .*one class"),
    ("value is a word", H + "1,2:3,x:A\n", "a.ts:4: 'x' in channel 2 is not a finite number"),
    ("value is missing", H + "1,2:3,?:A\n", "a.ts:4: missing value '\\?' in channel 2"),
    ("value is empty", H + "1,:3,4:A\n", "a.ts:4: missing value '' in channel 1"),
    ("value is NaN", H + "1,NaN:3,4:A\n", "a.ts:4: missing value 'NaN'"),
    ("value is inf", H + "1,inf:3,4:A\n", "a.ts:4: 'inf' in channel 1 is not a finite number"),
    ("value is -Infinity", H + "1,-Infinity:3,4:A\n", "a.ts:4: '-Infinity' in channel 1"),
    ("value over float32", H + "1,1e39:3,4:A\n", "a.ts:4: '1e39' in channel 1"),
    ("value over float64", H + "1,1e400:3,4:A\n", "a.ts:4: '1e400' in channel 1"),
    ("value with an underscore", H + "1,1_000:3,4:A\n", "a.ts:4: '1_000' in channel 1"),
    ("value in hexadecimal", H + "1,0x10:3,4:A\n", "a.ts:4: '0x10' in channel 1"),
    ("value in Arabic digits", H + "1,\u0661:3,4:A\n", "a.ts:4: .*in channel 1 is not"),
    (
        "value of a million digits",
        H + "1," + "9" * 10**6 + ":3,4:A\n",
        "a.ts:4: .*not a finite number",
    ),
    ("decimal comma with semicolons", UNI + "1,5;2,5:A\n", "a.ts:4: '5;2' in channel 1"),
    (
        "time stamps in rows",
        UNI + "(0,1),(1,2):A\n",
        r"a.ts:4: '\(0'.*time stamps are not supported",
    ),
    (
        "time stamps declared",
        "@timeStamps true\n" + UNI,
        "a.ts:1: @timeStamps true: time stamps are not",
    ),
    ("regression targets", "@targetLabel true\n" + H + R, "a.ts:1: @targetLabel true: regression"),
    (
        "missing values declared as none",
        "@missing false\n" + UNI + "1,?:A\n",
        "a.ts:5: missing.*line 1",
    ),
    ("channels differ in length", H + "1,2:3,4,5:A\n", "a.ts:4: channel 2 has 3 values"),
    ("channels differ between rows", H + R + "1,2:A\n", "a.ts:6: 1 channels, the first case has 2"),
    (
        "equal length, a ragged row",
        "@equalLength true\n" + UNI + "1,2:A\n1,2,3:B\n",
        "a.ts:6: 3 values.*line 1 says '@equalLength true'",
    ),
    (
        "series length, a shorter row",
        "@seriesLength 3\n" + UNI + "1,2,3:A\n1,2:B\n",
        "a.ts:6: 2 values.*line 1 says '@seriesLength 3'",
    ),
    (
        "series length of no row",
        "@equalLength true\n@seriesLength 9\n" + UNI + "1,2:A\n1,2:B\n",
        "a.ts:6: 2 values.*line 2 says '@seriesLength 9'",
    ),
    (
        "dimensions of no row",
        "@dimensions 3\n" + H + R,
        "a.ts:5: 2 channels.*line 1 says '@dimensions 3'",
    ),
    ("dimension, the other spelling", "@dimension 3\n" + H + R, "a.ts:5: 2 channels.*line 1 says"),
    ("univariate with two channels", UNI + R, "a.ts:4: 2 channels.*line 1 says '@univariate true'"),
    ("multivariate with one channel", H + "1,2:A\n3,4:B\n", "a.ts:4: 1 channels.*line 1 says"),
    (
        "univariate and dimensions",
        "@dimensions 2\n" + UNI + R,
        "a.ts:1: '@dimensions 2', but line 2 says",
    ),
    ("dimensions twice", "@dimensions 2\n@dimensions 3\n" + H + R, "a.ts:2: .*but line 1 says"),
    (
        "dimensions in two spellings",
        "@dimensions 2\n@dimension 3\n" + H + R,
        "a.ts:2: .*but line 1 says",
    ),
    ("classes twice", "@classLabel true B A\n" + H + R, "a.ts:3: .*but line 1 says"),
    ("univariate twice", "@univariate true\n" + H + R, "a.ts:2: .*but line 1 says"),
    ("univariate is a word", "@univariate perhaps\n" + R, "a.ts:1: .*write true or false"),
    ("univariate is nothing", "@univariate\n" + R, "a.ts:1: .*write true or false"),
    ("equal length is 1", "@equalLength 1\n" + H + R, "a.ts:1: .*write true or false"),
    ("dimensions are a word", "@dimensions two\n" + H + R, "a.ts:1: .*write a whole number over 0"),
    ("dimensions are 0", "@dimensions 0\n" + H + R, "a.ts:1: .*write a whole number over 0"),
    ("dimensions are -2", "@dimensions -2\n" + H + R, "a.ts:1: .*write a whole number over 0"),
    ("dimensions are nothing", "@dimensions\n" + H + R, "a.ts:1: .*write a whole number over 0"),
    (
        "dimensions of 5,000 digits",
        f"@dimensions {'9' * 5000}\n" + H + R,
        "a.ts:1: .*write a whole number",
    ),
    (
        "series length is 2.5",
        "@seriesLength 2.5\n" + H + R,
        "a.ts:1: .*write a whole number over 0",
    ),
    (
        "a line of 70 million characters",
        lambda: (H + "1," * (35 * 10**6) + "1:A\n").encode(),
        "a.ts:4: a line of .* over the limit",
    ),
]


def _pair(train: str, test: str) -> Write:
    def write(folder: Path) -> None:
        (folder / "a.ts").write_text(train)
        (folder / "b.ts").write_text(test)

    return write


HUGE = UNI + "".join(f"{1 + i % 2 * 1e-4:.4f},1.0001:{'AB'[i % 2]}\n" for i in range(16))
TS_PAIRS = [
    (
        "test row of 1e30",
        HUGE,
        UNI + "1e30,2:A\n3,4:B\n",
        "b.ts: test rows: channel 1 holds .*after scaling",
    ),
    (
        "test label unknown",
        H + R,
        "@classLabel true A B C\n@data\n1:2:C\n",
        "b.ts:3: unseen label 'C'.*a.ts",
    ),
    (
        "test label in another form of Unicode",
        "@classLabel true \xe9 B\n@data\n1:\xe9\n2:B\n",
        "@classLabel true e\u0301 B\n@data\n1:e\u0301\n2:B\n",
        "b.ts:3: .*Unicode form",
    ),
    ("test channels", H + R, UNI + "1,2:A\n", "b.ts:[14]: "),
    (
        "univariate differs",
        H + R,
        "@univariate true\n@classLabel true A B\n@data\n1,2:A\n",
        "b.ts:1: '@univariate true', but .*a.ts:1 says '@univariate false'",
    ),
    (
        "dimensions differ",
        "@dimensions 2\n" + H + R,
        "@dimensions 1\n@classLabel true A B\n@data\n1,2:A\n",
        "b.ts:1: '@dimensions 1', but .*a.ts:1 says '@dimensions 2'",
    ),
    (
        "series lengths differ",
        "@seriesLength 2\n" + H + R,
        "@seriesLength 1\n" + H + "1:2:A\n",
        "b.ts:1: '@seriesLength 1', but .*a.ts:1 says '@seriesLength 2'",
    ),
    ("test file is empty", H + R, "", "b.ts: the file is empty"),
    ("test file without labels", H + R, "@data\n1:2\n", "b.ts: no class labels in the header"),
]

# .csv

LONG = "long " * 30_000
CSV = [
    ("no bytes", "", "a.csv: the file is empty"),
    ("only a byte order mark", b"\xef\xbb\xbf", "a.csv: the file is empty"),
    ("blank lines", "\n\n  \n", "a.csv: the file is empty"),
    ("a header only", "text,label\n", "a.csv:1: a header but no row"),
    ("UTF-16", "text,label\na,b\n".encode("utf-16"), "a.csv: the file is UTF-16; save it as UTF-8"),
    ("UTF-16, big-endian", "\ufefftext,label\n".encode("utf-16-be"), "a.csv: the file is UTF-16"),
    ("Latin-1", "text,label\na,x\ncaf\xe9,y\n".encode("latin-1"), "a.csv:3: not UTF-8 at byte 18"),
    ("NUL in a text", "text,label\na,x\nb\0b,y\n", "a.csv:3: a NUL byte"),
    ("quote not closed", 'text,label\na,x\n"b,y\n', "a.csv:3: not CSV .*check the quotes"),
    ("text after a quote", 'text,label\n"a"b,x\n', "a.csv:2: not CSV .*check the quotes"),
    ("a field too few", "text,label\na,x\nb\n", "a.csv:3: 1 fields, the header has 2"),
    ("a field too many", "text,label\na,x\nb,c,y\n", "a.csv:3: 3 fields.*quote texts"),
    ("ragged after a text of two lines", 'text,label\n"a\nb",x\nc\n', "a.csv:4: 1 fields"),
    ("column twice", "text,text,label\na,b,x\n", "a.csv:1: a column name occurs twice"),
    ("columns without names", "text,label,,\na,x,,\n", "a.csv:1: a column name occurs twice"),
    ("other columns", "body,mood\na,x\n", r"a.csv:2: no column 'text' \(data.text_column\)"),
    ("no label column", "text,lable\na,x\n", "a.csv:2: no column 'label'.*did you mean 'lable'"),
    ("semicolons", "text;label\na;x\n", "a.csv:2: no column 'text'"),
    ("tabs", "text\tlabel\na\tx\n", "a.csv:2: no column 'text'"),
    ("text is empty", "text,label\na,x\n,y\n", "a.csv:3: empty text in column 'text'"),
    ("text is blank", "text,label\na,x\n  ,y\n", "a.csv:3: empty text in column 'text'"),
    ("label is empty", "text,label\na,x\nb,\n", "a.csv:3: '' in column 'label' is no label"),
    ("label is blank", "text,label\na,x\nb,  \n", "a.csv:3: .*in column 'label' is no label"),
    ("one class", "text,label\na,x\nb,x\nc,x\nd,x\ne,x\n", "data.source: .*one class"),
    (
        "labels that differ in a blank",
        "text,label\na,x\nb,y\nc, x\n",
        "a.csv:4: .*' x'.*'x' of .*a.csv:2",
    ),
    (
        "labels in two forms of Unicode",
        "text,label\na,\xe9\nb,y\nc,e\u0301\n",
        "a.csv:4: .*Unicode form",
    ),
    ("two rows", "text,label\na,x\nb,y\n", "data.test_fraction: .*holds out nothing"),
    (
        "a text of 70 million characters",
        lambda: b"text,label\n" + b"a" * 70 * 10**6 + b",x\n",
        "a.csv:2: .*cut the text",
    ),
]

# .jsonl


def _lines(*rows: object) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


GOOD = {"text": "a b", "label": "x"}
MORE = [{"text": f"t{i} b", "label": "xy"[i % 2]} for i in range(10)]
JSONL = [
    ("no bytes", "", "a.jsonl: the file is empty"),
    ("UTF-16", _lines(GOOD).encode("utf-16"), "a.jsonl: the file is UTF-16"),
    ("Latin-1", b'{"text": "caf\xe9", "label": "x"}\n', "a.jsonl:1: not UTF-8 at byte 13"),
    ("NUL", _lines(GOOD) + "\0\n", "a.jsonl:2: a NUL byte"),
    ("100,000 brackets", _lines(GOOD, "[" * 100_000), "a.jsonl:2: .*(too deep|malformed JSON)"),
    ("100,000 objects deep", _lines(GOOD, '{"a":' * 100_000), "a.jsonl:2: .*(too deep|malformed)"),
    (
        "closed, 100,000 deep",
        _lines('{"text": ' + "[" * 10**5 + "]" * 10**5 + "}"),
        "a.jsonl:1: .*(too deep|no text)",
    ),
    (
        "text 900 lists deep",
        _lines('{"text": ' + "[" * 900 + "]" * 900 + ', "label": 1}'),
        "a.jsonl:1: .*(too deep|no text)",
    ),
    (
        "integer of 10,000 digits",
        _lines(GOOD, '{"text": "a", "label": ' + "9" * 10_000 + "}"),
        "a.jsonl:2: a number of too many digits",
    ),
    ("NaN", _lines('{"text": "a", "label": NaN}'), "a.jsonl:1: NaN is not JSON"),
    (
        "Infinity",
        _lines('{"text": "a", "label": "x", "w": -Infinity}'),
        "a.jsonl:1: -Infinity is not JSON",
    ),
    (
        "label over float64",
        _lines('{"text": "a", "label": 1e400}'),
        "a.jsonl:1: inf in column 'label'",
    ),
    (
        "key twice",
        _lines(GOOD, '{"text": "a", "label": "x", "label": "y"}'),
        "a.jsonl:2: the key 'label' stands twice",
    ),
    (
        "key twice inside",
        _lines('{"text": "a", "label": "x", "m": {"k": 1, "k": 2}}'),
        "a.jsonl:1: the key 'k'",
    ),
    (
        "surrogate in the text",
        _lines('{"text": "\\ud800", "label": "y"}'),
        "a.jsonl:1: broken Unicode",
    ),
    (
        "surrogate in the label",
        _lines('{"text": "a", "label": "\\udfff"}'),
        "a.jsonl:1: broken Unicode",
    ),
    ("label is null", _lines(GOOD, {"text": "a", "label": None}), "a.jsonl:2: 'label' is null"),
    ("text is null", _lines(GOOD, {"text": None, "label": "x"}), "a.jsonl:2: 'text' is null"),
    (
        "label is true",
        _lines({"text": "a", "label": True}),
        "a.jsonl:1: True in column 'label' is no label",
    ),
    (
        "label is a list",
        _lines({"text": "a", "label": ["x"]}),
        r"a.jsonl:1: \['x'\] in column 'label'",
    ),
    ("label is an object", _lines({"text": "a", "label": {}}), "a.jsonl:1: {} in column 'label'"),
    ("label is 1.5", _lines({"text": "a", "label": 1.5}), "a.jsonl:1: 1.5 in column 'label'"),
    ("label is empty", _lines({"text": "a", "label": ""}), "a.jsonl:1: '' in column 'label'"),
    ("no label", _lines({"text": "a"}), r"a.jsonl:1: no column 'label' \(data.label_column\)"),
    ("no text", _lines({"label": "x"}), r"a.jsonl:1: no column 'text' \(data.text_column\)"),
    ("text is a number", _lines({"text": 3, "label": "x"}), "a.jsonl:1: 3 is no text"),
    ("text is a list", _lines({"text": ["a"], "label": "x"}), r"a.jsonl:1: \['a'\] is no text"),
    ("text is blank", _lines({"text": " \t", "label": "x"}), "a.jsonl:1: empty text"),
    (
        "labels 1 and '1'",
        _lines({"text": "a", "label": 1}, {"text": "b", "label": "1"}),
        "a.jsonl:2: the label '1' would be one with 1 of .*a.jsonl:1",
    ),
    (
        "labels that differ in a blank",
        _lines(*MORE, {"text": "b", "label": "x "}),
        "a.jsonl:11: .*'x '.*'x'",
    ),
    (
        "labels in two forms of Unicode",
        _lines(*MORE, {"text": "b", "label": "\xe9"}, {"text": "b", "label": "e\u0301"}),
        "a.jsonl:12: .*Unicode form",
    ),
    ("one line is a list", _lines(GOOD, ["a", "x"]), "a.jsonl:2: a JSON list, not an object"),
    ("one line is a number", _lines(GOOD, 3), "a.jsonl:2: a JSON int, not an object"),
    ("one line is null", _lines(GOOD, None), "a.jsonl:2: a JSON NoneType, not an object"),
    ("one array for all", json.dumps([GOOD, GOOD], indent=1), "a.jsonl:1: malformed JSON"),
    ("two objects in a line", _lines(json.dumps(GOOD) * 2), "a.jsonl:1: malformed JSON at column"),
    ("cut in a line", _lines(GOOD)[:-6], "a.jsonl:1: malformed JSON at column"),
    ("single quotes", "{'text': 'a', 'label': 'x'}\n", "a.jsonl:1: malformed JSON at column 2"),
    ("a trailing comma", '{"text": "a", "label": "x",}\n', "a.jsonl:1: malformed JSON"),
    ("a comment", "// rows\n", "a.jsonl:1: malformed JSON"),
    (
        "a line of 100 MB",
        lambda: b'{"text": "a", "x": [' + b"1," * (50 * 10**6) + b"1]}\n",
        "a.jsonl:1: a line of .* over the limit",
    ),
    ("one class", _lines(*[GOOD] * 10), "data.source: .*one class"),
]

# .npz


def _saved(save: Callable = np.savez, **arrays: object) -> bytes:
    out = BytesIO()
    save(out, **arrays)
    return out.getvalue()


def _npy(array: np.ndarray) -> bytes:
    out = BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def _zipped(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, data in members:
            file.writestr(name, data)
    return out.getvalue()


def _header(text: str, version: int = 1) -> bytes:
    length = struct.pack("<H" if version == 1 else "<I", len(text) + 1)
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode("latin-1") + b"\n"


def _announced(
    shape: str, descr: str = "'<f4'", data: bytes = b"", fortran: str = "False"
) -> bytes:
    """A file whose x has this header, and y that is sound."""
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"
    return _zipped([("x.npy", _header(text) + data), ("y.npy", _npy(LABELS))])


def _changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def _deflated() -> bytes:
    return _saved(np.savez_compressed, x=FLOATS, y=LABELS)


def _directory(data: bytes, offset: int, new: bytes) -> bytes:
    """Change the first entry of the central directory."""
    return _changed(data, data.index(b"PK\x01\x02") + offset, new)


def _flagged() -> bytes:
    """As if encrypted: the flag in the local header and in the directory."""
    return _directory(_changed(_saved(x=FLOATS, y=LABELS), 6, b"\x01"), 8, b"\x01")


def _bomb() -> bytes:
    zeros = np.zeros((24, 12_500_000), np.float32)  # 1.2 GB, from 1.2 MB
    out = BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        with file.open("x.npy", "w", force_zip64=True) as member:
            member.write(_npy(zeros[:, :0])[:8])
            text = "{'descr': '<f4', 'fortran_order': False, 'shape': (24, 12500000), }"
            member.write(_header(text)[8:])
            for row in zeros:
                member.write(row.tobytes())
        file.writestr("y.npy", _npy(LABELS))
    return out.getvalue()


def _with(key: str, values: object) -> Callable[[], bytes]:
    return partial(_saved, **{"x": FLOATS, "y": LABELS, key: values})


def _at(index: tuple[int, ...], value: float, dtype: type = np.float32) -> np.ndarray:
    x = FLOATS.astype(dtype)
    x[index] = value
    return x


def _y(*names: str) -> np.ndarray:
    return np.array([names[i % len(names)] for i in range(ROWS)])


FIELDS = np.zeros((ROWS, 3), [("a", "<f4"), ("b", "<i4")])
TOKENS = np.full((ROWS, 3), 2)
NPZ: list[tuple[str, bytes | str | Callable[[], bytes], str]] = [
    ("no bytes", b"", "a.npz: not an .npz file"),
    ("text", "hello", "a.npz: not an .npz file"),
    ("an .npy file", lambda: _npy(FLOATS), "a.npz: not an .npz file.*numpy.savez"),
    ("an empty zip", lambda: _zipped([]), "a.npz: no array 'x', 'y'"),
    ("cut in half", lambda: _deflated()[: len(_deflated()) // 2], "a.npz: damaged .npz"),
    ("the last byte lost", lambda: _deflated()[:-1], "a.npz: damaged .npz"),
    (
        "deflate stream damaged",
        lambda: _changed(_deflated(), 200, b"\xff" * 40),
        "a.npz: damaged .npz .*'x'",
    ),
    (
        "deflate stream of zeros",
        lambda: _changed(_deflated(), 120, b"\0" * 200),
        "a.npz: damaged .npz .*'x'",
    ),
    (
        "checksum of a member",
        lambda: _changed(_saved(x=FLOATS, y=LABELS), 300, b"\x11"),
        "a.npz: damaged .npz .*'x'.*CRC",
    ),
    (
        "checksum in the directory",
        lambda: _directory(_saved(x=FLOATS, y=LABELS), 16, b"abcd"),
        "a.npz: damaged .npz .*'x'",
    ),
    (
        "size in the directory",
        lambda: _directory(_deflated(), 24, b"\xff\xff\xff\x7f"),
        "a.npz: .*'x'",
    ),
    (
        "both sizes in the directory",
        lambda: _directory(_saved(x=FLOATS, y=LABELS), 20, b"\xf0\xff\xff\x7f" * 2),
        "a.npz: damaged .npz .*'x'",
    ),
    (
        "offset in the directory",
        lambda: _directory(_deflated(), 42, b"\xff\xff\xff\x7f"),
        "a.npz: damaged .npz",
    ),
    ("local header", lambda: _changed(_deflated(), 0, b"PKxx"), "a.npz: damaged .npz"),
    (
        "name in the local header",
        lambda: _changed(_deflated(), 30, b"z"),
        "a.npz: damaged .npz .*'x'",
    ),
    ("encrypted", _flagged, "a.npz: array 'x' is encrypted"),
    (
        "compressed by bzip2",
        lambda: _zipped([("x.npy", _npy(FLOATS)), ("y.npy", _npy(LABELS))], zipfile.ZIP_BZIP2),
        "a.npz: array 'x' is compressed by zip method 12",
    ),
    (
        "compressed by LZMA",
        lambda: _zipped([("x.npy", _npy(FLOATS)), ("y.npy", _npy(LABELS))], zipfile.ZIP_LZMA),
        "a.npz: array 'x' is compressed by zip method 14",
    ),
    (
        "compressed by an unknown method",
        lambda: _directory(_deflated(), 10, b"\x63"),
        "a.npz: array 'x' is compressed by zip method 99",
    ),
    (
        "1.2 GB out of 1.2 MB",
        _bomb,
        "a.npz: array 'x' inflates to 12\\d+ bytes.*over the limit.*numpy.savez",
    ),
    (
        "header of 364 TiB",
        lambda: _announced("(10000000, 10000000)"),
        "a.npz: damaged .npz .*'x'.*announces 400000000000000 bytes",
    ),
    (
        "header over 64 bits",
        lambda: _announced("(10000000000, 10000000000)"),
        "a.npz: damaged .npz .*announces",
    ),
    ("header of a negative shape", lambda: _announced("(-1, 3)"), "a.npz: damaged .npz .*shape"),
    ("header of a shape of words", lambda: _announced("('a', 3)"), "a.npz: damaged .npz .*'x'"),
    (
        "header that is code",
        lambda: _announced("__import__('os').getcwd()"),
        "a.npz: damaged .npz .*'x'",
    ),
    ("header of brackets", lambda: _announced("(" * 5000), "a.npz: damaged .npz .*'x'"),
    (
        "header of an unknown type",
        lambda: _announced("(2, 3)", "'<q9'"),
        "a.npz: damaged .npz .*'x'",
    ),
    (
        "header of 70,000 characters",
        lambda: _zipped([("x.npy", _header("{" + " " * 60_000, 1)), ("y.npy", _npy(LABELS))]),
        "a.npz: damaged .npz .*'x'",
    ),
    (
        "header that says less than there is",
        lambda: _announced("(24, 2)", data=bytes(400)),
        "a.npz: damaged .npz .*announces",
    ),
    (
        "header that says more than there is",
        lambda: _announced("(24, 5)", data=bytes(400)),
        "a.npz: damaged .npz .*announces",
    ),
    (
        "header version 9",
        lambda: _zipped([("x.npy", b"\x93NUMPY\x09\x00" + bytes(90)), ("y.npy", _npy(LABELS))]),
        "a.npz: .*'x'",
    ),
    (
        "member without magic",
        lambda: _zipped([("x.npy", b"hello"), ("y.npy", _npy(LABELS))]),
        "a.npz: damaged .npz .*'x'",
    ),
    (
        "member of no bytes",
        lambda: _zipped([("x.npy", b""), ("y.npy", _npy(LABELS))]),
        "a.npz: damaged .npz .*'x'",
    ),
    (
        "member twice",
        lambda: _zipped(
            [("x.npy", _npy(FLOATS)), ("x.npy", _npy(FLOATS + 1)), ("y.npy", _npy(LABELS))]
        ),
        "a.npz: array 'x' stands twice",
    ),
    (
        "member with and without its ending",
        lambda: _zipped([("x.npy", _npy(FLOATS)), ("x", _npy(FLOATS)), ("y.npy", _npy(LABELS))]),
        "a.npz: array 'x' stands twice",
    ),
    (
        "members in a folder",
        lambda: _zipped([("a/x.npy", _npy(FLOATS)), ("a/y.npy", _npy(LABELS))]),
        "a.npz: no array 'x', 'y'; it holds: a/x, a/y",
    ),
    (
        "members that leave the folder",
        lambda: _zipped([("../../x.npy", _npy(FLOATS)), ("/y.npy", _npy(LABELS))]),
        "a.npz: no array 'x', 'y'",
    ),
    (
        "member names of two lines",
        lambda: _zipped([("x\ny.npy", _npy(FLOATS))]),
        "a.npz: no array 'x', 'y'; it holds: 'x",
    ),
    (
        "2,000 other members",
        lambda: _zipped([(f"k{i}.npy", b"") for i in range(2000)]),
        r"a.npz: no array.*\(2000\)",
    ),
    ("no y", lambda: _saved(x=FLOATS), "a.npz: no array 'y'; it holds: x"),
    ("no x", lambda: _saved(y=LABELS), "a.npz: no array 'x'; it holds: y"),
    (
        "x of objects",
        _with("x", np.array([[1], [1, 2]] * 12, object)),
        "a.npz: array 'x' holds Python objects, which are not unpickled",
    ),
    (
        "y of objects",
        _with("y", np.array([1, "a"] * 12, object)),
        "a.npz: array 'y' holds Python objects",
    ),
    (
        "lengths of objects",
        _with("lengths", np.array([1, None] * 12, object)),
        "a.npz: array 'lengths' holds Python objects",
    ),
    ("x structured", _with("x", FIELDS), "a.npz: array 'x' holds structured values"),
    ("y structured", _with("y", FIELDS[:, 0]), "a.npz: array 'y' holds structured values"),
    ("x boolean", _with("x", FLOATS > 0), "a.npz: 'x' is bool"),
    ("x complex", _with("x", FLOATS + 1j), "a.npz: 'x' is complex64"),
    ("x of strings", _with("x", FLOATS.astype(str)), "a.npz: 'x' is <U"),
    ("x of bytes", _with("x", FLOATS.astype("S4")), "a.npz: 'x' is |S4"),
    ("x of dates", _with("x", np.zeros((ROWS, 3), "M8[s]")), "a.npz: 'x' is datetime64"),
    ("x of one dimension", _with("x", FLOATS[:, 0, 0]), "a.npz: 'x' is float32 with shape"),
    ("x of no dimension", _with("x", np.float32(1)), "a.npz: 'x' is float32 with shape"),
    (
        "x of five dimensions",
        _with("x", FLOATS[..., None, None]),
        "a.npz: 'x' is float32 with shape",
    ),
    ("x without rows", lambda: _saved(x=FLOATS[:0], y=LABELS[:0]), "a.npz: 'x' is empty"),
    ("x without steps", _with("x", FLOATS[:, :0]), "a.npz: 'x' is empty"),
    ("x without channels", _with("x", FLOATS[..., :0]), "a.npz: 'x' is empty"),
    ("x holds NaN", _with("x", _at((6, 2, 1), np.nan)), "a.npz: row 7 holds nan at position 3"),
    ("x holds inf", _with("x", _at((0, 0, 0), np.inf)), "a.npz: row 1 holds inf at position 1"),
    (
        "x over float32",
        _with("x", _at((23, 4, 0), 1e40, np.float64)),
        "a.npz: row 24 holds inf at position 5",
    ),
    ("token below 0", _with("x", TOKENS - 3), "a.npz: row 1 has token -1 at position 1"),
    ("token over the limit", _with("x", TOKENS * 10**9), "a.npz: row 1 has token 2000000000"),
    (
        "token of 64 bits",
        _with("x", TOKENS.astype(np.uint64) + np.uint64(2**63)),
        "a.npz: row 1 has token 9223372036854775810",
    ),
    (
        "token 0 inside a row",
        _with("x", np.array([[1, 0, 2]] * ROWS)),
        "a.npz: row 1 has token 0, which is padding, at position 2",
    ),
    ("y too short", _with("y", LABELS[:-1]), r"a.npz: 'y' has shape \(23,\), 'x' has 24 rows"),
    (
        "y of two dimensions and too short",
        _with("y", np.eye(ROWS, dtype=int)[1:]),
        r"a.npz: 'y' has shape \(23, 24\), 'x' has 24 rows",
    ),
    (
        "y of two dimensions that counts",
        _with("y", np.eye(ROWS, dtype=int) * 2),
        r"a.npz: row 1 of 'y' \[rows, labels\] is .*; give 0 and 1",
    ),
    (
        "y of labels that stand on one row each",
        _with("y", np.eye(ROWS, dtype=int)),
        "data.test_fraction: 0.2 of 24 rows holds out nothing: .*no class has two; give more rows",
    ),
    ("y of floats", _with("y", LABELS * 1.0), "a.npz: 'y' holds float64; give integers or strings"),
    ("y of NaN", _with("y", LABELS * np.nan), "a.npz: 'y' holds float64; give integers or strings"),
    ("y boolean", _with("y", LABELS > 0), "a.npz: 'y' holds bool; give integers or strings"),
    (
        "y of bytes",
        _with("y", LABELS.astype("S1")),
        "a.npz: 'y' holds |S1; give integers or strings",
    ),
    ("y with an empty name", _with("y", _y("a", "")), "a.npz: row 2 has '' as 'y'"),
    ("y with a blank name", _with("y", _y("a", "b", " ")), "a.npz: row 3 has ' ' as 'y'"),
    ("y with a surrogate", _with("y", _y("a", "\ud800")), "a.npz: row 2 has .* as 'y'"),
    (
        "y that is no Unicode",
        lambda: _zipped(
            [
                ("x.npy", _npy(FLOATS)),
                ("y.npy", _npy(np.full(ROWS, 0x7FFFFFFF, "<u4")).replace(b"<u4", b"<U1")),
            ]
        ),
        "a.npz: row 1 has broken Unicode in 'y'",
    ),
    (
        "y in two forms of Unicode",
        _with("y", _y("\xe9", "b", "e\u0301")),
        "a.npz: row 3: .*Unicode form",
    ),
    ("one class", _with("y", LABELS * 0), "data.source: .*one class"),
    ("lengths of 0", _with("lengths", LABELS), "a.npz: row 1 has 0 in 'lengths'; give 1 to 5"),
    (
        "lengths over x",
        _with("lengths", np.arange(ROWS) + 1),
        "a.npz: row 6 has 6 in 'lengths'; give 1 to 5",
    ),
    ("lengths below 0", _with("lengths", np.full(ROWS, -1)), "a.npz: row 1 has -1 in 'lengths'"),
    (
        "lengths of floats",
        _with("lengths", np.full(ROWS, 2.5)),
        "a.npz: 'lengths' holds float64; give integers",
    ),
    (
        "lengths too many",
        _with("lengths", np.ones(ROWS + 1, int)),
        r"a.npz: 'lengths' has shape \(25,\)",
    ),
    ("lengths of no dimension", _with("lengths", np.int64(3)), r"a.npz: 'lengths' has shape \(\)"),
]

# Paths that are no plain files, for every format


def _socket(path: Path) -> None:
    """Bind a socket by a short relative name: the whole one may be too long for the system."""
    before = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(before)


PATHS: list[tuple[str, Callable[[Path], object] | None, str]] = [
    ("missing", None, "data.train: no file at '.*'; check the path"),
    ("a directory", Path.mkdir, "data.train: .*a directory, not a file"),
    ("a named pipe", os.mkfifo, "data.train: .*a named pipe, not a file"),
    ("a socket", _socket, "data.train: .*a socket, not a file"),
    ("a device", lambda path: path.symlink_to("/dev/zero"), "data.train: .*a device, not a file"),
    (
        "a link to nothing",
        lambda path: path.symlink_to("gone"),
        "data.train: .*a link to gone, which does not exist",
    ),
    ("a link to itself", lambda path: path.symlink_to(path), "data.train: .*cannot be read"),
]


def _at_path(suffix: str, make: Callable[[Path], object] | None) -> Write:
    def write(folder: Path) -> None:
        if make is not None:
            make(folder / f"a{suffix}")

    return write


# Valid files that were refused, or merged


def _labelled(rows: list[tuple[str, str]]) -> str:
    return "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows)


TEN = [("a b", "x"), ("c d", "y")] * 10
VALID = [
    (".csv", "labels --1 and 1", _labelled([("a b", "--1"), ("c d", "1")] * 10)),
    (".csv", "a text of 150,000 characters", _labelled([*TEN, (LONG, "x")])),
    (".csv", "label of 5,000 digits", _labelled([("a b", "9" * 5000), ("c d", "1")] * 10)),
    (
        ".csv",
        "column without a name",
        "".join(f",{line}\n" for line in _labelled(TEN).splitlines()),
    ),
    (
        ".csv",
        "byte order mark and Windows lines",
        b"\xef\xbb\xbf" + _labelled(TEN).replace("\n", "\r\n").encode(),
    ),
    (".csv", "padding's own name in the text", _labelled([*TEN, ("<pad> <unk>", "x")])),
    (
        ".ts",
        "Latin-1 labels that differ in an accent",
        ("@classLabel true caf\xe9 caf\xe8\n@data\n" + "1,2:caf\xe9\n3,4:caf\xe8\n" * 8).encode(
            "latin-1"
        ),
    ),
    (
        ".ts",
        "Latin-1 in a comment",
        b"# caf\xe9\n" + ("@classLabel true \xe9 B\n@data\n" + "1,2:\xe9\n3,4:B\n" * 8).encode(),
    ),
    (
        ".ts",
        "series length of ragged rows",
        "@equalLength false\n@seriesLength 3\n" + UNI + "1,2:A\n3,4,5:B\n" * 8,
    ),
    (
        ".ts",
        "a tag twice, the same",
        "@univariate true\n@problemName a\n@problemName b\n" + UNI + "1,2:A\n3,4:B\n" * 8,
    ),
    (
        ".npz",
        "Fortran order, big endian",
        partial(_saved, x=np.asfortranarray(FLOATS.astype(">f8")), y=LABELS.astype(">i2")),
    ),
    (
        ".npz",
        "an array of objects that is not read",
        partial(_saved, x=FLOATS, y=LABELS, note=np.array([None])),
    ),
]

CASES = [
    *(_case(".ts", name, _file(".ts", text), says) for name, text, says in TS),
    *(
        Case(
            f"ts/pair: {name}",
            ("train", TRAIN[".ts"].replace("test={d}/a", "test={d}/b")),
            says,
            _pair(train, test),
        )
        for name, train, test, says in TS_PAIRS
    ),
    *(_case(".csv", name, _file(".csv", text), says) for name, text, says in CSV),
    *(_case(".jsonl", name, _file(".jsonl", text), says) for name, text, says in JSONL),
    *(_case(".npz", name, _file(".npz", data), says) for name, data, says in NPZ),
    *(
        _case(suffix, name, _at_path(suffix, make), says)
        for suffix in TRAIN
        for name, make, says in PATHS
    ),
    *(_case(suffix, name, _file(suffix, data), "", 0) for suffix, name, data in VALID),
    Case(
        "csv/one column for text and label",
        ("train", TRAIN[".csv"] + ",label_column=text"),
        "data.label_column: 'text' is data.text_column too",
        _file(".csv", _labelled(TEN)),
    ),
]
