"""The page in a real browser: thirty rows by mouse and by keyboard, a kill in between, and nothing lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest

from tests.review.conftest import ATTACKS, copied, served

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ROWS_BY = {"key": 12, "mouse": 10, "grid": 8}
PATIENCE = 120_000  # milliseconds, for a machine that is busy with other tests


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    if CHROMIUM is None:
        pytest.skip("no chromium is installed: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        # everything may be root in a container, where chromium has no sandbox
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Page:
    """A page that has been opened, and what the browser complained about."""

    tab: object
    complaints: list[str] = field(default_factory=list)

    def __getattr__(self, name: str):
        return getattr(self.tab, name)

    def row_id(self) -> str:
        """Of the row that is shown, once it can be seen."""
        self.tab.wait_for_selector("#one:not([hidden]) .sample > *")
        return self.tab.text_content("#row-id")

    def settled(self, n: int) -> None:
        """Wait until so many rows are kept."""
        self.says("#counts", f"· {n} decided")

    def says(self, where: str, what: str) -> None:
        """Wait until a text is there."""
        # functions, for the page's policy lets no text be run as a script, not even by a test
        self.tab.wait_for_function(
            "([where, what]) => document.querySelector(where).textContent.includes(what)", arg=[where, what]
        )

    def leave(self) -> None:
        """Close a dialog and wait until the page has the keys again."""
        self.tab.keyboard.press("Escape")
        self.tab.wait_for_selector("dialog[open]", state="detached")

    def moves_on(self, row: str) -> None:
        """Wait until another row is shown."""
        self.tab.wait_for_function("row => document.querySelector('#row-id').textContent !== row", arg=row)


def opened(chromium, address: str, **options) -> Page:
    tab = chromium.new_context(viewport={"width": 1280, "height": 800}, **options).new_page()
    tab.set_default_timeout(PATIENCE)
    page = Page(tab)
    tab.on("console", lambda message: message.type == "error" and page.complaints.append(message.text))
    tab.on("pageerror", lambda error: page.complaints.append(str(error)))
    tab.goto(address)
    tab.wait_for_selector("main > section:not([hidden])")
    return page


def shown_labels(page: Page) -> tuple[str, str]:
    return page.text_content("#given"), page.text_content("#suggested")


def decide_one(page: Page, choice: int, by: str) -> str:
    """Decide on the row that is shown, by turns in each way; the label that was chosen."""
    given, suggested = shown_labels(page)
    other = next(str(k) for k in range(10) if str(k) not in (given, suggested))
    ways = {
        "key": [lambda: page.keyboard.press("a"), lambda: page.keyboard.press("k"), lambda: page.keyboard.press(other)],
        "mouse": [lambda: page.click("#accept"), lambda: page.click("#keep"), lambda: search_class(page, other)],
    }
    row = page.row_id()
    ways[by][choice]()
    page.moves_on(row)
    return (suggested, given, other)[choice]


def search_class(page: Page, name: str) -> None:
    page.click("#other")
    page.fill("#search", name)
    page.keyboard.press("Enter")


def test_thirty_rows_a_kill_and_nothing_lost(chromium, run):
    decided: dict[str, str] = {}
    with served(run) as server:
        page = opened(chromium, server.address)
        assert "token" not in page.url
        for by in ("key", "mouse"):
            for turn in range(ROWS_BY[by]):
                row = page.row_id()
                decided[row] = decide_one(page, turn % 3, by)
        page.settled(22)
        decided |= decide_on_grid(page)
        page.settled(30)
        check_undo(page, decided)
        check_history(page, 30)
        assert page.complaints == []
        server.kill()
    with served(run, port=server.port) as again:
        page = opened(chromium, again.address)
        page.settled(30)
        assert page.row_id() not in decided
        assert page.complaints == []
    assert exported(run) == decided


def decide_on_grid(page: Page) -> dict[str, str]:
    """Accept the first half of eight tiles by keys and keep the others by mouse."""
    page.keyboard.press("g")
    page.wait_for_selector(".tile:nth-child(8) .sample > *")
    chosen = {}
    for place in range(1, ROWS_BY["grid"] + 1):
        tile = f".tile:nth-child({place})"
        by_key = place <= ROWS_BY["grid"] // 2
        side = ".to" if by_key else ".from"
        chosen[page.text_content(f"{tile} .id").split(" · ")[1]] = page.text_content(f"{tile} {side}")
        if by_key:
            page.focus(tile)
            page.keyboard.press("a")
        else:
            page.click(f"{tile} button:text('Keep')")
        page.wait_for_selector(f"{tile}.is-decided")
    page.keyboard.press("g")
    return chosen


def check_undo(page: Page, decided: dict[str, str]) -> None:
    """One more decision, taken back by key, and another one by mouse."""
    for undo in (lambda: page.keyboard.press("Control+z"), lambda: page.click("#undo")):
        row = page.row_id()
        assert row not in decided
        page.keyboard.press("a")
        page.settled(31)
        undo()
        page.settled(30)
        assert page.row_id() == row


def check_history(page: Page, n: int) -> None:
    page.keyboard.press("h")
    page.wait_for_selector("#events button")
    lines = page.locator("#events li").all_text_contents()
    assert len(lines) == n + 4
    assert sum("taken back" in line for line in lines) == 2
    page.leave()


def exported(run: Path) -> dict[str, str]:
    """What `ebomlc export` makes of the decisions."""
    out = run / "labels.csv"
    command = [sys.executable, "-m", "ebomlc", "export", str(run), "--to", "csv", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    frame = pd.read_csv(out, dtype=str, keep_default_na=False)
    decided = frame[frame.label_source == "decision"]
    return dict(zip(decided.id, decided.final_label, strict=True))


def test_random_rows_are_walked_in_their_order(chromium, run):
    with served(run) as server:
        page = opened(chromium, server.address)
        page.keyboard.press("r")
        page.says("#where", "random row")
        first = page.row_id()
        page.keyboard.press("ArrowRight")
        assert page.row_id() == first
        assert page.is_disabled("#open-filter")
        assert page.is_disabled("#view-grid")
        for key in "ksk":
            row = page.row_id()
            page.keyboard.press(key)
            page.moves_on(row)
        page.says("#counts", "3 random rows")
        assert page.complaints == []
    assert len(exported(run)) == 2


def test_a_label_that_is_suggested_too_can_still_be_called_wrong(chromium, photos):
    run, _ = photos
    with served(run) as server:
        page = opened(chromium, server.address)
        page.keyboard.press("r")
        page.says("#where", "random row")
        row, (given, suggested) = page.row_id(), shown_labels(page)
        while given != suggested:
            page.keyboard.press("s")
            page.moves_on(row)
            row, (given, suggested) = page.row_id(), shown_labels(page)
        assert page.is_visible("#other")
        assert not page.is_visible("#accept")
        (other,) = {"class0", "class1"} - {given}
        page.click(f"#chips button:has-text('{other}')")
        page.settled(1)
    assert exported(run) == {row: other}


def test_a_server_that_is_away_loses_nothing(chromium, run):
    with served(run) as server:
        page = opened(chromium, server.address)
        page.row_id()
        server.kill()
        page.keyboard.press("a")
        page.wait_for_selector("#alarm:not([hidden]):has-text('does not answer')")
        assert "Not kept: 1 decision." in page.text_content("#alarm")
        with served(run, port=server.port):
            page.wait_for_selector("#alarm:has-text('started anew')")
            assert "Not kept: 1 decision." in page.text_content("#alarm")
    assert exported(run) == {}


def test_two_pages_do_not_lose_each_others_decisions(chromium, run):
    with served(run) as server:
        pages = [opened(chromium, server.address) for _ in range(2)]
        decided = {}
        for turn in range(10):
            page = pages[turn % 2]
            row, (_, suggested) = page.row_id(), shown_labels(page)
            page.keyboard.press("a")
            page.moves_on(row)
            decided[row] = suggested
        for page in pages:
            page.reload()
            page.settled(len(decided))
    assert exported(run) == decided


def test_filters_and_a_reload(chromium, run):
    with served(run) as server:
        page = opened(chromium, server.address)
        page.row_id()
        page.keyboard.press("f")
        page.select_option("#filter-given", label="3")
        page.fill("#filter-low", "60")
        page.click("#filter-apply")
        page.says("#given", "3")
        page.reload()
        page.row_id()
        assert page.text_content("#given") == "3"
        assert "Filtered" in page.text_content("#filtered")
        page.click("#clear-filter")
        page.wait_for_selector("#filtered", state="hidden")


def test_attacks_stay_text(chromium, hostile, tmp_path):
    with served(copied(hostile, tmp_path)) as server:
        page = opened(chromium, server.address)
        for _ in range(3):
            page.row_id()
            assert {*shown_labels(page)} <= set(ATTACKS)
            page.keyboard.press("a")
        page.row_id()
        page.keyboard.press("o")
        page.wait_for_selector("#found button")
        page.leave()
        page.keyboard.press("h")
        page.wait_for_selector("#events button")
        page.leave()
        page.keyboard.press("g")
        page.wait_for_selector(".tile .sample > *")
        assert page.title() != "hit"
        assert page.locator("main img, main script").count() == 0
        assert page.complaints == []


def test_a_hostile_page_in_the_same_browser_gets_nothing(chromium, run, tmp_path):
    """A page of another origin, with the review open beside it and its cookie at hand, tries to read and to decide."""
    with served(run) as server, _other_site(tmp_path) as port:
        page = opened(chromium, server.address)
        row = page.row_id()
        attacker = page.context.new_page()
        attacker.goto(f"http://localhost:{port}/")
        outcomes = attacker.evaluate(ATTACK, f"http://127.0.0.1:{server.port}{server.entry}")
        assert outcomes == {"read": "failed", "post": "failed", "form": "failed", "image": "failed", "frame": "blank"}
        page.reload()
        assert page.row_id() == row
        page.settled(0)
        page.keyboard.press("h")
        page.says("#events", "Nothing was decided yet")


ATTACK = """async (entry) => {
  const attempt = async (act) => { try { return await act(); } catch { return "failed"; } };
  const send = (mode, type) => fetch(entry + "decisions", {
    method: "POST", mode, credentials: "include", headers: {"content-type": type},
    body: JSON.stringify({row: 0, action: "skip", label: null, mode: "suspect", since: 0})});
  return {
    read: await attempt(async () => (await fetch(entry + "about", {credentials: "include"})).status),
    post: await attempt(async () => (await send("cors", "application/json")).status),
    form: await attempt(async () => (await send("no-cors", "text/plain")).type),
    image: await attempt(() => new Promise((loaded, failed) => {
      const image = new Image(); image.onload = () => loaded("loaded"); image.onerror = failed;
      image.src = entry + "pictures/0?side=320"; })),
    frame: await attempt(() => new Promise((done) => {
      const frame = document.createElement("iframe"); frame.src = entry; document.body.append(frame);
      frame.onload = () => { try { done(frame.contentDocument ? "read" : "blank"); } catch { done("blank"); } }; })),
  };
}"""


def _other_site(folder: Path):
    """A server of another origin, as another account on the machine could run it."""
    import functools
    from contextlib import contextmanager
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    (folder / "site").mkdir()
    (folder / "site" / "index.html").write_text("<!doctype html><title>nice offers</title><body>")

    @contextmanager
    def run():
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder / "site"))
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    return run()


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_sticks_out_at_either_width(chromium, run, width):
    with served(run) as server:
        page = opened(chromium, server.address, has_touch=width < 500)
        page.set_viewport_size({"width": width, "height": 800})
        page.row_id()
        for key in ("", "g"):
            if key:
                page.keyboard.press(key)
                page.wait_for_selector(".tile .sample > *")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.keyboard.press("g")
        box = page.locator("#accept").bounding_box()
        assert box["y"] + box["height"] <= 800
        assert box["height"] >= 44
