"""What each address answers, to good and to bad requests."""

import json
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

import ebomlc.review
from ebomlc.review.app import make_app
from ebomlc.review.guard import Keys
from tests.review.conftest import ATTACKS, copied, desk_of

KEYS = Keys("place", "t" * 43, "c" * 43)
STATIC = Path(ebomlc.review.__file__).parent / "static"


def client_of(desk, title: str = "digits") -> TestClient:
    headers = {"authorization": f"Bearer {KEYS.token}"}
    return TestClient(make_app(desk, KEYS, title), base_url="http://127.0.0.1:8377/place", headers=headers)


@pytest.fixture
def client(desk) -> TestClient:
    return client_of(desk)


def post(client: TestClient, path: str, **sent):
    return client.post(path, json=sent)


def test_the_page_takes_everything_from_this_server_and_runs_no_script_of_its_own(client):
    class Reader(HTMLParser):
        inline, taken = 0, []

        def handle_starttag(self, tag, attributes):
            named = dict(attributes)
            self.taken += [value for name, value in attributes if name in ("src", "href")]
            self.inline += tag == "style" or (tag == "script" and "src" not in named)
            self.inline += any(name.startswith("on") or name == "style" for name in named)

    page = client.get("/").text
    reader = Reader()
    reader.feed(page)
    assert reader.inline == 0
    assert len(reader.taken) == 3
    for taken in reader.taken:
        assert not taken.startswith(("/", "http", "data"))
        assert client.get(f"/{taken}").status_code == 200, taken


def test_no_file_of_the_page_writes_markup_or_asks_elsewhere():
    files = sorted(STATIC.iterdir())
    assert len(files) >= 4
    for file in files:
        text = file.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http:", "https:"):
            assert forbidden not in text, f"{forbidden} in {file.name}"


def test_the_title_is_escaped(desk):
    page = client_of(desk, "<script>alert(1)</script>\x1b").get("/").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\u241b" in page


def test_a_decision_goes_in_and_is_taken_back(client):
    card = client.get("/cards?order=suspect&limit=1").json()["cards"][0]
    sent = {"row": card["row"], "action": "accept", "label": card["suggested"], "mode": "suspect", "since": 0}
    kept = post(client, "/decisions", **sent)
    assert kept.status_code == 201
    number = kept.json()["event"]["number"]
    assert client.get(f"/cards/{card['row']}").json()["decision"]["number"] == number
    assert [event["action"] for event in client.get("/history").json()] == ["accept"]
    assert post(client, "/undo", number=None, since=number).json()["card"]["decision"] is None
    assert post(client, "/undo", number=None, since=number).status_code == 409


def test_a_picture_is_a_png_of_the_side_that_was_asked_for(client, desk):
    row = int(desk.rows.suspects[0])
    sample = client.get(f"/samples/{row}?side=320").json()
    answer = client.get(f"/pictures/{row}?side=320")
    assert answer.headers["content-type"] == "image/png"
    with Image.open(BytesIO(answer.content)) as picture:
        assert (sample["kind"], tuple(sample["size"])) == ("image", picture.size)


def test_texts_and_names_come_as_they_are_but_harmless(hostile, tmp_path):
    with desk_of(copied(hostile, tmp_path)) as desk:
        client = client_of(desk)
        assert sorted(client.get("/about").json()["classes"]) == sorted(ATTACKS)
        card = client.get("/cards?order=random").json()["cards"][0]
        sample = client.get(f"/samples/{card['row']}?side=320")
        assert sample.json()["kind"] == "text"
        assert any(attack in sample.json()["text"] for attack in ATTACKS)
        assert "\u241b[31mred" in sample.json()["text"]
        assert "\u241b[31mred" in card["id"]
        assert sample.headers["content-type"] == "application/json"
        assert client.get(f"/pictures/{card['row']}?side=320").status_code == 404


BAD_PATHS = {
    "/cards": 400,
    "/cards?order=best": 400,
    "/cards?order=suspect&given=x": 400,
    "/cards?order=suspect&given=-1": 400,
    "/cards?order=suspect&after=99999999999999999999": 400,
    "/cards?order=suspect&limit=-3": 400,
    "/cards?order=suspect&low=x": 400,
    "/cards?order=suspect&low=nan": 409,
    "/cards?order=suspect&low=0.9&high=0.1": 409,
    "/cards?order=suspect&show=everything": 409,
    "/cards?order=random&given=1": 409,
    "/cards/99999999": 409,
    "/cards/99999999999999999999999999": 409,
    "/cards/-1": 404,
    "/cards/x": 404,
    "/pictures/0": 400,
    "/pictures/0?side=100000": 400,
    "/pictures/..%2f..%2fsplit.npz?side=320": 404,
    "/static/../desk.py": 404,
    "/static/..%2fdesk.py": 404,
    "/static/%2e%2e/desk.py": 404,
    "/static//etc/passwd": 404,
    "/static/": 404,
    "/summary.json": 404,
    "/decisions": 405,
}


@pytest.mark.parametrize("path", BAD_PATHS)
def test_an_address_that_makes_no_sense_is_refused(client, path):
    answer = client.get(path)
    assert answer.status_code == BAD_PATHS[path], answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    assert "Traceback" not in answer.text


GOOD = {"row": 0, "action": "skip", "label": None, "mode": "suspect", "since": 0}
BAD_BODIES = {
    "no JSON": b"{",
    "deep": b"[" * 16_000,
    "bytes": b"\xff\xfe",
    "a list": b"[]",
    "a field too few": json.dumps({"row": 0}).encode(),
    "a field too many": json.dumps({**GOOD, "id": "x"}).encode(),
    "row as text": json.dumps({**GOOD, "row": "0"}).encode(),
    "row as truth": json.dumps({**GOOD, "row": True}).encode(),
    "row too large": json.dumps({**GOOD, "row": 10**30}).encode(),
    "since too small": json.dumps({**GOOD, "since": -(10**30)}).encode(),
    "action": json.dumps({**GOOD, "action": "undo"}).encode(),
    "mode": json.dumps({**GOOD, "mode": "best"}).encode(),
}


@pytest.mark.parametrize("case", BAD_BODIES)
def test_what_makes_no_sense_is_not_kept(client, case):
    answer = client.post("/decisions", content=BAD_BODIES[case], headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert client.get("/history").json() == []


def test_a_label_that_was_not_seen_is_not_kept(client):
    card = client.get("/cards?order=suspect&limit=1").json()["cards"][0]
    sent = {"row": card["row"], "mode": "suspect", "since": 0}
    assert post(client, "/decisions", action="accept", label=card["given"], **sent).status_code == 409
    assert post(client, "/decisions", action="keep", label=card["suggested"], **sent).status_code == 409
    assert post(client, "/decisions", action="other", label=None, **sent).status_code == 409
    assert post(client, "/decisions", action="skip", label=card["given"], **sent).status_code == 409
    assert client.get("/history").json() == []


def test_an_image_that_is_gone_is_said_and_seen_again_when_it_is_back(photos):
    run, folder = photos
    with desk_of(run) as desk:
        client = client_of(desk)
        row = client.get("/cards?order=random&limit=1").json()["cards"][0]["row"]
        image = folder / desk.rows.ids[row]
        image.rename(image.with_suffix(".away"))
        gone = client.get(f"/samples/{row}?side=320").json()
        assert (gone["kind"], image.name in gone["reason"]) == ("missing", True), gone
        assert client.get(f"/pictures/{row}?side=320").status_code == 404
        assert post(client, "/decisions", **{**GOOD, "row": row}).status_code == 201
        image.with_suffix(".away").rename(image)
        assert client.get(f"/pictures/{row}?side=320").status_code == 200


def test_an_image_that_leads_out_of_its_folder_is_not_shown(photos, tmp_path):
    run, folder = photos
    with desk_of(run) as desk:
        client = client_of(desk)
        row = client.get("/cards?order=random&limit=1").json()["cards"][0]["row"]
        image = folder / desk.rows.ids[row]
        image.replace(tmp_path / "elsewhere.png")
        image.symlink_to(tmp_path / "elsewhere.png")
        assert client.get(f"/samples/{row}?side=320").json()["kind"] == "missing"
        assert client.get(f"/pictures/{row}?side=320").status_code == 404
