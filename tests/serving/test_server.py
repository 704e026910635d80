"""A server before a model that is none: what it answers, refuses, batches, and how it ends."""

import contextlib
import http.client
import json
import logging
import re
import socket
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import uvicorn

from resnorm_jax.serving import answers
from resnorm_jax.serving.app import Service
from resnorm_jax.serving.batcher import Batcher
from resnorm_jax.serving.buckets import batch_sizes, few
from resnorm_jax.serving.limits import Limits, Refused
from resnorm_jax.serving.questions import Reader
from resnorm_jax.serving.server import _config, listen

CLASSES = ["bad", "<b>good</b>", "so so"]
META = {
    "name": "walks & <talks>", "kind": "tokens", "classes": CLASSES, "shape": [], "scaling": None,
    "vocabulary": ["<pad>", "<unk>", "a", "b", "c"], "max_length": 8, "stride": 1,
    "encoding": {"tokenizer": "spaces", "max_length": 64},
}  # fmt: skip
SERIES = META | {"kind": "features", "shape": [2], "vocabulary": [], "encoding": {}}
LIMITS = Limits(batch=4, rows=8, body=5000, characters=300, queue=8, timeout=20.0)


class Model:
    """Adds what is in a row; may be held, or fail; remembers what came together."""

    def __init__(self):
        self.free, self.batches, self.error = threading.Event(), [], None
        self.free.set()

    def __call__(self, rows):
        self.batches.append(len(rows))
        self.free.wait(20)
        if self.error:
            raise self.error
        z = np.array([[0.0, np.asarray(row, np.float64).sum() / 10, -1] for row in rows])
        return z - np.log(np.exp(z).sum(1, keepdims=True))


@contextlib.contextmanager
def serving(meta=META, limits=LIMITS):
    model = Model()
    service = Service(
        meta, limits, 8, model,
        lambda examples: [x[:n] for x, n in zip(examples.x, examples.lengths, strict=True)],
        lambda log_probs: log_probs - 0.0, "not calibrated",
    )  # fmt: skip
    bound = listen("127.0.0.1", 0)
    server = uvicorn.Server(_config(service, limits))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        model.port, model.server, model.thread = bound.getsockname()[1], server, thread
        model.service = service
        yield model
    finally:
        model.free.set()
        server.should_exit = True
        thread.join(20)
        bound.close()


@pytest.fixture(scope="module")
def texts():
    with serving() as model:
        yield model


@pytest.fixture(scope="module")
def series():
    with serving(SERIES) as model:
        yield model


def ask(model, method="GET", path="/health", body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", model.port, timeout=20)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()


def predict(model, body, kind="application/json"):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, headers, text = ask(model, "POST", "/predict", body, {"Content-Type": kind})
    return status, headers, json.loads(text)


def form(model, file=None, **fields):
    edge, parts = "----edge", []
    for name, value in fields.items():
        parts.append(
            f'--{edge}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        )
    name, content = file or ("", "")
    parts.append(
        f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        f"Content-Type: text/csv\r\n\r\n{content}\r\n--{edge}--\r\n"
    )
    kind = {"Content-Type": f"multipart/form-data; boundary={edge}"}
    return ask(model, "POST", "/", "".join(parts).encode(), kind)


def test_texts_and_numbers_are_predicted(texts, series):
    status, _, found = predict(texts, {"rows": ["a b c", "c c c c c"], "top": 2})
    assert status == 200
    for row, total in zip(found["predictions"], (9, 20), strict=True):
        z = np.exp([0, total / 10, -1])
        assert [one["class"] for one in row["top"]] == [CLASSES[1], CLASSES[0]]
        assert row["probability"] == pytest.approx(z[1] / z.sum(), abs=1e-6)
    status, _, found = predict(series, {"rows": [[[1, 2], [3, 4.5]]]})
    assert status == 200
    assert len(found["predictions"][0]["top"]) == 3


def test_health_tells_what_is_served(texts):
    status, _, text = ask(texts)
    found = json.loads(text)
    assert (status, found["status"], found["classes"]) == (200, "ok", CLASSES)


BAD = {
    "no JSON": (b"{", 400, "body"),
    "NaN": (b'{"rows": [[NaN]]}', 400, "body"),
    "not UTF-8": (b'{"rows": ["\xff"]}', 400, "body"),
    "nested": (b"[" * 4000, 400, "body"),
    "no object": ([1], 422, "body"),
    "no rows": ({}, 422, "rows"),
    "rows is a text": ({"rows": "a"}, 422, "rows"),
    "no row": ({"rows": []}, 422, "rows"),
    "unknown field": ({"rows": ["a"], "tpo": 1}, 422, "tpo"),
    "top of 0": ({"rows": ["a"], "top": 0}, 422, "top"),
    "top over classes": ({"rows": ["a"], "top": 4}, 422, "top"),
    "top is true": ({"rows": ["a"], "top": True}, 422, "top"),
    "calibrated is 1": ({"rows": ["a"], "calibrated": 1}, 422, "calibrated"),
    "empty text": ({"rows": ["a", " "]}, 422, "rows"),
    "half a pair": (b'{"rows": ["\\ud800"]}', 422, "rows"),
    "an object": ({"rows": [{"x": 1}]}, 422, "rows"),
    "null": ({"rows": [None]}, 422, "rows"),
    "a token that is none": ({"rows": [[99]]}, 422, "rows"),
    "ragged": ({"rows": [[1, [2]]]}, 422, "rows"),
    "a huge number": (b'{"rows": [[1' + b"0" * 400 + b"]]}", 422, "rows"),
    "more positions than served": ({"rows": ["a " * 9]}, 422, "rows"),
    "a long text": ({"rows": ["a" * 301]}, 413, "rows"),
    "many rows": ({"rows": ["a"] * 9}, 413, "rows"),
    "a large body": ({"rows": ["a" * 6000]}, 413, "body"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_answered_by_one_line_that_names_the_field(texts, name):
    body, wanted, field = BAD[name]
    before = len(texts.batches)
    status, headers, found = predict(texts, body)
    assert (status, found["field"]) == (wanted, field), found
    assert found["error"].startswith(f"{field}: ")
    assert "\n" not in found["error"]
    assert len(found["error"]) < 300
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert len(texts.batches) == before


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (["a"], "row 1: a text; this model reads features"),
        ([[[1, 2, 3]]], "row 1: shape (1, 3)"),
        ([[[1, 2]], [[1e300, 2]]], "row 2: missing or infinite"),
    ],
)
def test_bad_numbers(series, rows, says):
    status, _, found = predict(series, {"rows": rows})
    assert status == 422
    assert says in found["error"]


def test_other_types_paths_and_methods_are_refused(texts):
    assert predict(texts, {"rows": ["a"]}, "text/plain")[0] == 415
    assert ask(texts, "POST", "/", b"text=a", {"Content-Type": "text/plain"})[0] == 415
    assert ask(texts, "POST", "/", b"x", {"Content-Type": "multipart/form-data"})[0] == 400
    for path in ("/../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/static/x", "//etc/passwd"):
        status, _, text = ask(texts, path=path)
        assert status == 404
        assert "root" not in text
    assert ask(texts, "DELETE", "/predict")[0] == 405
    assert ask(texts, "GET", "/predict")[0] == 405


def test_the_page_escapes_what_it_shows_and_runs_nothing(texts):
    status, headers, text = ask(texts, path="/")
    assert status == 200
    assert "walks &amp; &lt;talks&gt;" in text
    evil = '</textarea><script>alert("x")</script>'
    status, headers, text = form(texts, text=evil, top=3)
    assert status == 200
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "&lt;b&gt;good&lt;/b&gt;" in text
    assert text.count("<progress") == 3
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    import base64
    import hashlib

    for style in re.findall(r"<style>(.*?)</style>", text, re.DOTALL):
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_a_file_of_rows_and_numbers_in_the_form(texts, series):
    status, _, text = form(texts, ("../../etc/rows.csv", "text\na b\nc\n"))
    assert status == 200
    assert "Row 2" in text
    status, _, text = form(series, numbers="[[1, 2], [3, 4]]", top=1)
    assert (status, text.count("<progress")) == (200, 1)
    for file, fields, says in (
        (("x.npz", "PK"), {}, "file: send a .csv or .jsonl file"),
        (("<x>.csv", "txt\na\n"), {}, "file: file.csv:"),
        (None, {"text": " "}, "text: give text, or a file"),
        (None, {"text": "a", "top": "x"}, "top: "),
    ):
        status, _, text = form(texts, file, **fields)
        assert status == 422
        assert 'role="alert"' in text
        assert says in text
        assert "resnorm-serve-" not in text


def many(model, count, answers):
    threads = [
        threading.Thread(target=lambda: answers.append(predict(model, {"rows": ["a b"]})))
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    return threads


def until(holds):
    end = time.monotonic() + 20
    while not holds() and time.monotonic() < end:
        time.sleep(0.005)
    assert holds()


def test_requests_that_wait_are_computed_together(texts):
    texts.free.clear()
    texts.batches.clear()
    answers = []
    threads = many(texts, 1, answers)
    until(lambda: texts.batches == [1])
    threads += many(texts, 6, answers)
    until(lambda: texts.service.batcher.waiting == 6)
    texts.free.set()
    for thread in threads:
        thread.join(20)
    assert [status for status, *_ in answers] == [200] * 7
    assert texts.batches == [1, 4, 2]


def test_a_full_queue_is_told_and_those_in_it_are_answered(texts):
    texts.free.clear()
    texts.batches.clear()
    answers = []
    threads = many(texts, 1, answers)
    until(lambda: texts.batches == [1])
    threads += many(texts, 8, answers)
    until(lambda: texts.service.batcher.waiting == 8)
    status, headers, found = predict(texts, {"rows": ["a"]})
    texts.free.set()
    for thread in threads:
        thread.join(20)
    assert (status, headers["Retry-After"]) == (503, "1")
    assert "8 rows wait" in found["error"]
    assert [status for status, *_ in answers] == [200] * 9


def test_what_takes_too_long_is_given_up_on_both_sides():
    with serving(limits=replace(LIMITS, timeout=0.2)) as model:
        model.free.clear()
        for _ in range(2):  # one is computed, one waits
            status, headers, found = predict(model, {"rows": ["a"]})
            assert (status, headers["Retry-After"]) == (504, "1")
            assert "no answer within 0.2 seconds" in found["error"]
        model.free.set()
        until(lambda: predict(model, {"rows": ["a"]})[0] == 200)
        assert model.service.batcher.waiting == 0
        with socket.create_connection(("127.0.0.1", model.port), timeout=20) as slow:
            head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            slow.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            assert slow.recv(4096).startswith(b"HTTP/1.1 408")


def test_a_fault_of_the_server_says_nothing_of_itself(texts, caplog):
    texts.error = ValueError("secret words")
    try:
        with caplog.at_level(logging.ERROR):
            status, _, found = predict(texts, {"rows": ["a private text"]})
    finally:
        texts.error = None
    assert (status, found) == (500, {"error": "something went wrong in the server", "field": ""})
    ours = "".join(r.getMessage() for r in caplog.records if r.name.startswith("resnorm_jax"))
    assert "ValueError" in ours
    assert "secret" not in caplog.text
    assert "private" not in caplog.text
    assert predict(texts, {"rows": ["a"]})[0] == 200


def test_those_who_wait_are_answered_at_the_end():
    with serving() as model:
        model.free.clear()
        answers = []
        threads = many(model, 3, answers)
        until(lambda: sum(model.batches) + model.service.batcher.waiting == 3)
        model.server.should_exit = True  # what a signal does
        time.sleep(0.3)
        model.free.set()
        for thread in (*threads, model.thread):
            thread.join(20)
        assert not model.thread.is_alive()
    assert [status for status, *_ in answers] == [200] * 3


def test_few_lengths_and_sizes_keep_the_last():
    assert few((3, 5, 9, 20, 40), 2) == (3, 40)
    assert few((3, 5), 4) == (3, 5)
    assert batch_sizes(1) == (1,)
    assert batch_sizes(16) == (1, 4, 16)
    assert isinstance(Batcher(None, 1, 1).waiting, int)


PAIRS = META | {"encoding": {**META["encoding"], "pair_column": "other"}}


def test_pairs_of_texts():
    # The tokenizers of these tests have no token between two texts: what is asked is checked here.
    reader = Reader(PAIRS, LIMITS, 8)
    assert (reader.texts, reader.pairs) == (True, True)
    assert not Reader(META, LIMITS, 8).pairs
    assert '<textarea name="pair"' in answers.form(PAIRS)
    assert '<textarea name="pair"' not in answers.form(META)
    assert "&lt;i&gt;" in answers.form(PAIRS, pair="<i>")
    for row, message in (
        ("a", "trained on pairs of texts: give"),
        (["a", "b", "c"], "trained on pairs of texts: give"),
        (["a", " "], "no visible character"),
        (["a", "b" * 400], "400 characters; send at most 300"),
    ):
        with pytest.raises(Refused, match=message) as found:
            reader.rows([row])
        assert found.value.status in (413, 422)
    with pytest.raises(Refused, match="trained on single texts: give one a row"):
        Reader(META, LIMITS, 8).rows([["a", "b"]])


def test_the_form_of_pairs(texts):
    status, _, page = form(texts, text="a b", pair="c")
    assert (status, "pair: this model reads one text" in page) == (422, True)
    with serving(PAIRS) as model:
        status, _, page = form(model, text="a b", pair="")
        assert (status, "pair: give both texts" in page) == (422, True)
        assert "a b</textarea>" in page


def test_any_number_of_labels():
    with serving(META | {"task": "multi_label"}) as model:
        many = lambda log_probs: [tuple(CLASSES[1:]) if p[1] > -1 else () for p in log_probs]  # noqa: E731
        model.service.labels, model.service.thresholds = many, np.array([0.5, 0.25, 0.125])
        status, _, told = predict(model, {"rows": ["c c c c", "a"], "top": 2})
        assert status == 200
        assert [row["labels"] for row in told["predictions"]] == [CLASSES[1:], CLASSES[1:]]
        assert set(told["predictions"][0]) == {"labels", "top"}
        assert {each["class"]: each["threshold"] for each in told["predictions"][0]["top"]} == {
            "<b>good</b>": 0.25, "bad": 0.5,
        }  # fmt: skip
        model.service.labels = lambda log_probs: [() for _ in log_probs]
        _, _, page = form(model, text="a")
        assert "Labels: <strong>none</strong>" in page
        assert "Labels to show" in page
        assert "\u2265 12.5 %" in page


def test_the_bars_of_labels_that_are_said_stand_out():
    top = [
        {"class": "a", "probability": 0.9, "threshold": 0.5},
        {"class": "b", "probability": 0.4, "threshold": 0.45},
    ]
    many = answers.bars("t", {"labels": ["a"], "top": top})
    assert (many.count('<div class="bar many said">'), many.count('<div class="bar many">')) == (
        1,
        1,
    )
    one = answers.bars("t", {"class": "a", "probability": 0.9, "top": top[:1]})
    assert one.count('<div class="bar">') == 1


def test_a_page_of_texts_offers_no_series():
    assert 'accept=".csv, .jsonl"' in answers.form(META)
    assert 'accept=".csv, .jsonl, .ts"' in answers.form(SERIES)
