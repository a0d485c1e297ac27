"""The server as its clients see it: a process of its own, asked over a socket."""

import concurrent.futures
import io
import json
import os
import re
import shutil
import signal
import socket
import time

import numpy as np
import psutil
import pytest
from PIL import Image

from benchmarks.traffic import HOST, encoded, exchange, form, head, png_bomb, scene, status_of
from ssd_centernet.predict.listing import chosen, listed
from tests.process import ROOT, bash, cli, slowness
from tests.serve.serving import need_packages, serving

pytestmark = pytest.mark.usefixtures("_packages")
JPEG = encoded(scene(0, 100, 60), "JPEG", quality=95)


@pytest.fixture(scope="module")
def _packages():
    need_packages()


@pytest.fixture(scope="module")
def served(_packages, model_dir, warm):
    limits = ("--max_megabytes=1", "--max_pixels=200000", "--timeout=3", "--batch_size=4")
    with serving(f"--model_dir={model_dir}", *limits, python=warm) as server:
        yield server


@pytest.fixture(scope="module")
def expected(model_dir):
    """What the detector of the run finds on the picture, as lines of `predict` have it."""
    import tensorflow as tf

    from ssd_centernet.ops.image import decode_image
    from ssd_centernet.runs.opened import open_run

    run = open_run(model_dir)
    found = run.detector.detect(decode_image(tf.constant(JPEG))[tf.newaxis])
    arrays = {name: value.numpy()[0] for name, value in found.items()}
    count = int(arrays.pop("count"))
    arrays = {name: values[:count] for name, values in arrays.items()}
    return lambda score: listed(chosen(arrays, score), (60, 100), run.label_map), run.label_map


def _same(told, wanted):
    assert (told["height"], told["width"]) == (60, 100)
    assert len(told["detections"]) == len(wanted["detections"]) > 0
    for one, other in zip(told["detections"], wanted["detections"], strict=True):
        assert (one["class"], one["category_id"]) == (other["class"], other["category_id"])
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert one["bbox"] == pytest.approx(other["bbox"], abs=0.05)


def test_a_picture_gives_what_the_detector_finds(served, expected, model_dir):
    status, told = served.detect(JPEG, "?min_score=0")
    assert status == 200 and told["model"] == f"{model_dir.name}/ckpt-5"
    assert list(told) == ["model", "height", "width", "detections"]
    _same(told, expected[0](0.0))


def test_a_form_the_score_and_the_classes_choose(served, expected):
    wanted, labels = expected
    body, kind = form(JPEG)
    scores = [one["score"] for one in wanted(0.0)["detections"]]
    middle = (scores[0] + scores[-1]) / 2
    status, told = served.detect(body, f"?min_score={middle}", content_type=kind)
    assert status == 200
    _same(told, wanted(middle))
    name = labels.names[0]
    told = served.detect(JPEG, f"?min_score=0&classes={name}")[1]["detections"]
    mine = [one for one in wanted(0.0)["detections"] if one["class"] == name]
    assert told and {one["class"] for one in told} == {name} and len(told) == len(mine)
    default = served.detect(JPEG)[1]["detections"]
    assert default == [one for one in default if one["score"] >= 0.3]


def test_a_drawing_has_the_size_of_the_picture_and_boxes_on_it(served):
    original = scene(0, 100, 60)
    status, content, headers = served.ask(encoded(original, "PNG"), path="/draw?min_score=0")
    assert status == 200 and headers["content-type"] == "image/png"
    drawn = np.asarray(Image.open(io.BytesIO(content)))
    assert drawn.shape == original.shape and (drawn != original).any()
    nothing = served.ask(encoded(original, "PNG"), path="/draw?min_score=1")[1]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(nothing))), original)


@pytest.mark.parametrize(
    ("body", "path", "status", "told"),
    [
        (b"", "/detect", 400, "is empty"),
        (b"hello", "/detect", 415, "expected a JPEG, PNG or WebP"),
        (JPEG[:500], "/detect", 400, "truncated or corrupt"),
        (png_bomb(9000, 9000), "/draw", 413, "9000 x 9000 pixels"),
        (bytes(1_100_000), "/detect", 413, "more than 1,048,576 bytes"),
        (JPEG, "/detect?min_score=nan", 400, "min_score must be a number from 0 to 1"),
        (JPEG, "/detect?min_score=1e9", 400, "min_score must be a number from 0 to 1"),
        (JPEG, "/detect?min_score=0.1&min_score=0.2", 400, "more than once"),
        (JPEG, "/detect?classes=sta", 400, "No class is called 'sta'"),
        (JPEG, "/detect?threshold=0.1", 400, "There is no parameter 'threshold'"),
        (JPEG, "/detect/", 404, "Not Found"),
        (JPEG, "/model", 405, "Method Not Allowed"),
    ],
)
def test_what_cannot_be_answered_is_told(served, body, path, status, told):
    found, content, headers = served.ask(body, path=path)
    assert found == status and told in json.loads(content)["error"]
    assert headers["x-content-type-options"] == "nosniff" and "server" not in headers


def test_standard_error_does_not_grow_with_what_clients_send(served):
    before = len(served.running.text())
    for body in (b"no form at all", form(b"", files=50)[0], JPEG):
        status = served.detect(body, content_type="multipart/form-data; boundary=a")[0]
        assert status == 400
    for body in (JPEG[:500], JPEG[:-200], b"RIFF\0\0\0\0WEBP"):
        served.detect(body)
    assert len(served.running.text()) == before, served.running.text()[before:]


def test_other_names_and_other_sites_are_refused_on_every_path(served):
    for path, method in (("/", "GET"), ("/metrics", "GET"), ("/detect", "POST")):
        body = JPEG if method == "POST" else None
        assert served.ask(body, method=method, path=path, host="evil.example")[0] == 403
        status, _, headers = served.ask(
            body, method=method, path=path, origin="http://evil.example"
        )
        assert status == 403 and "access-control-allow-origin" not in headers
    assert served.ask(JPEG, origin=served.url.rstrip("/"))[0] == 200


def test_state_and_facts_are_told(served):
    assert served.get("/healthz") == (200, {"status": "ok"})
    assert served.get("/readyz") == (200, {"status": "ready"})
    facts = served.get("/model")[1]
    assert facts["input"] == [64, 64] and facts["batch_size"] == 4
    assert facts["limits"] == {"bytes": 2**20, "pixels": 200_000, "waiting": 32, "rate": None,
                               "seconds": 3.0}  # fmt: skip
    assert [set(one) for one in facts["classes"]] == [{"id", "name"}] * len(facts["classes"])
    served.detect(JPEG)
    before = served.metric("requests_total")
    assert before and served.metric("batch_pictures_count") and served.metric("waiting") == 0
    served.ask(method="GET", path="/../../etc/passwd")
    text = served.ask(method="GET", path="/metrics")[1].decode()
    assert 'path="other",status="404"' in text and "passwd" not in text
    assert "process_resident_memory_bytes" in text


def test_concurrent_pictures_share_batches(served):
    before = served.metric("batch_pictures_count"), served.metric("batch_pictures_sum")
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: served.detect(JPEG, "?min_score=0"), range(64)))
    batches = served.metric("batch_pictures_count") - before[0]
    assert served.metric("batch_pictures_sum") - before[1] == 64
    assert batches < 60, "no two pictures shared a batch"
    assert all(status == 200 for status, _ in found)
    first = found[0][1]["detections"]
    for _, told in found:  # Batches of other sizes round otherwise.
        scores = [one["score"] for one in told["detections"]]
        assert scores == pytest.approx([one["score"] for one in first], abs=1e-3)


def test_slow_clients_are_ended_and_hold_up_nobody(served):
    """A head or a body that comes byte by byte, and an answer that nobody reads."""
    files = psutil.Process(_pid(served)).num_fds()
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        body = [pool.submit(exchange, served.port, head(5000), b"a" * 10) for _ in range(4)]
        idle = [pool.submit(exchange, served.port, b"GET / HTTP/1.1\r\nHost: lo") for _ in range(4)]
        assert served.detect(JPEG)[0] == 200
        assert [status_of(one.result()) for one in body] == [408] * 4
        assert time.monotonic() - began < 8 * slowness()
        assert [one.result() for one in idle] == [b""] * 4
    assert time.monotonic() - began < 10 * slowness()
    served.running.wait_until(lambda: psutil.Process(_pid(served)).num_fds() <= files, limit=20)


def test_who_goes_away_leaves_nothing_behind(served):
    for part in (head(len(JPEG)), head(len(JPEG)) + JPEG[:50], head(len(JPEG)) + JPEG, b"\0" * 99):
        for _ in range(10):
            exchange(served.port, part, read=False)
    served.running.wait_until(lambda: served.metric("waiting") == 0, limit=20)
    assert served.detect(JPEG)[0] == 200
    assert "Traceback" not in served.running.text()


def _pid(served) -> int:
    """Return the process that listens: the warm Python asks another one to be the server."""
    for one in psutil.net_connections("tcp4"):
        if one.status == psutil.CONN_LISTEN and one.laddr.port == served.port and one.pid:
            return one.pid
    raise AssertionError("nobody listens")


def test_limits_are_kept_and_a_signal_leaves_accepted_requests_their_answers(model_dir, warm):
    limits = ("--max_waiting=3", "--max_rate=4", "--allowed_hosts=Detect.example.org:443")
    with serving(f"--model_dir={model_dir}", *limits, python=warm) as server:
        pid = _pid(server)
        clients = [socket.create_connection((HOST, server.port), timeout=30) for _ in range(3)]
        for client in clients:
            client.sendall(head(len(JPEG)) + JPEG[:-1])
        server.running.wait_until(lambda: server.metric("waiting") == 3, limit=20)
        status, _, headers = server.ask(JPEG)
        assert status == 503 and headers["retry-after"] == "1", "a fourth one was taken"
        found = [server.ask(JPEG, host="detect.example.org") for _ in range(20)]
        often = [headers for status, _, headers in found if status == 429]
        assert often and {status for status, _, _ in found} <= {429, 503}
        assert int(often[0]["retry-after"]) >= 1
        assert server.get("/healthz")[0] == 200  # States are told at any rate.
        began = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        time.sleep(0.5)
        with pytest.raises(OSError):
            server.ask(method="GET", path="/readyz")
        for client in clients:
            client.sendall(JPEG[-1:])
        answers = [client.recv(1 << 16) for client in clients]
        ended = server.running.finish(limit=60, status=0)
        assert [status_of(one) for one in answers] == [200] * 3
        assert time.monotonic() - began < 5 * slowness(), str(ended)
        assert "SIGTERM: answers what it has accepted" in ended.stderr
        assert "Traceback" not in ended.text
        for client in clients:
            client.close()


def test_the_end_has_a_limit(model_dir, warm):
    with serving(f"--model_dir={model_dir}", "--stop_timeout=1", python=warm) as server:
        with socket.create_connection((HOST, server.port), timeout=30) as client:
            client.sendall(head(1000))
            server.running.wait_until(lambda: server.metric("waiting") == 1, limit=20)
            os.kill(_pid(server), signal.SIGINT)
            ended = server.running.finish(limit=30, status=1)
    assert "1 request had no answer 1 s after the signal" in ended.stderr, str(ended)
    assert ended.text.count("Traceback") == 0, str(ended)


def test_an_exported_file_is_served_as_it_is(_packages, tmp_path, warm):
    from ssd_centernet import config
    from ssd_centernet.building import build_detector
    from ssd_centernet.export.export import export
    from ssd_centernet.export.exported import ExportedDetector
    from ssd_centernet.serve.engine import FileEngine
    from tests.export.lively import enliven
    from tests.tiny import LABELS, RUN_RECIPE

    picture = scene(3, 90, 70)
    (tmp_path / "tiny.gin").write_text(RUN_RECIPE)
    # Few detections, none of which rounding pushes over an edge.
    config.parse([tmp_path / "tiny.gin"], ["SSDDecoder.score_threshold = 0.9"])
    detector = enliven(build_detector(label_map=LABELS))
    formats = ["saved_model", "tflite"]
    export(detector, tmp_path / "out", formats=formats, label_map=LABELS, images=[picture])
    for name, frame in (("saved_model", None), ("model.tflite", tuple(detector.image_size))):
        exported = ExportedDetector(tmp_path / "out" / name)
        engine = FileEngine(exported)
        engine.warm()
        assert engine.frame == frame
        (found,) = engine.detect([engine.prepare(picture)])
        for key, values in exported.detect(picture).items():
            assert np.array_equal(found[key], values)
    with serving(f"--model={tmp_path / 'out' / 'model.tflite'}", python=warm) as server:
        status, told = server.detect(encoded(picture, "PNG"), "?min_score=0")
        wanted = listed(found, (70, 90), LABELS)
        assert status == 200 and told == {"model": "out/model.tflite", **wanted}
        assert told["detections"] and server.get("/model")[1]["batch_size"] == 1


@pytest.mark.parametrize(
    ("flags", "status", "told"),
    [
        ((), 2, "--model_dir must be given"),
        (("--host=0.0.0.0",), 2, "lets other machines use this server"),
        (("--model=a.tflite", "--batch_size=2"), 2, "cannot be used with --model"),
        (("--model=no.tflite",), 1, "there is no no.tflite"),
        (("--max_pixels=0",), 2, "max_pixels"),
        (("--max_rate=nan",), 2, "--max_rate=nan: expected a number"),
        (("--host=0.0.0.0", "--allowed_hosts=,"), 2, "has an empty name"),
        (("picture.jpg",), 2, "Unexpected arguments"),
    ],
)
def test_wrong_command_lines_are_told(flags, status, told, warm, tmp_path, model_dir):
    more = [] if not flags or "--model=" in flags[0] else [f"--model_dir={model_dir}"]
    ended = cli("serve", *more, *flags, status=status, python=warm, cwd=tmp_path)
    assert told in ended.stderr and "Traceback" not in ended.stderr, str(ended)


def test_the_lines_of_the_page_work(served, tmp_path):
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    lines = re.findall(r"^curl .+$", page, re.M)
    assert len(lines) == 4
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "street.jpg").write_bytes(JPEG)
    if not shutil.which("curl"):
        pytest.skip("curl is not installed: apt-get install curl")
    for line in lines:
        line = line.replace("localhost:8080", f"{HOST}:{served.port}")
        line = line.replace("disc,star", ",".join(_classes(served)[:2]))
        bash(line.replace("curl", "curl --silent --show-error --fail"), cwd=tmp_path)
    assert Image.open(tmp_path / "drawn.png").size == (100, 60)


def _classes(served) -> list[str]:
    return [one["name"] for one in served.get("/model")[1]["classes"]]
