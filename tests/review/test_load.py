"""Many clients decide at once on one running server, and the file holds every decision that was answered."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest

from ebomlc.labels.decisions import Decisions
from ebomlc.reviewed import DECISIONS, read_labels
from tests.review.conftest import Served, copied, served

CLIENTS = int(os.environ.get("EBOMLC_LOAD_CLIENTS", "20"))
SECONDS = float(os.environ.get("EBOMLC_LOAD_SECONDS", "60"))
PATIENCE = 120.0
BUSY = (429, 503)


class Client:
    """One of many: decides on rows drawn at random, and notes what was answered."""

    def __init__(self, page: Served, number: int, rows: list[dict]) -> None:
        self._page, self._rows = page, rows
        self._rng = np.random.default_rng(number)
        self._line = HTTPConnection("127.0.0.1", page.port, timeout=PATIENCE)
        self.events: list[dict] = []
        self.statuses: Counter[int] = Counter()

    def run(self, end: float) -> None:
        while time.monotonic() < end:
            card = self._rows[self._rng.integers(len(self._rows))]
            if self.events and self._rng.random() < 0.1:
                self._send("undo", {"number": self.events[-1]["number"], "since": 0})
            else:
                label = int(self._rng.integers(10))
                action = "keep" if label == card["given"] else "accept" if label == card["suggested"] else "other"
                sent = {"row": card["row"], "action": action, "label": label, "mode": "suspect", "since": 0}
                self._send("decisions", sent)
        self._line.close()

    def _send(self, path: str, sent: dict) -> None:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._page.token}"}
        self._line.request("POST", self._page.entry + path, json.dumps(sent), headers)
        answer = self._line.getresponse()
        body = answer.read()
        self.statuses[answer.status] += 1
        if answer.status == 201:
            self.events.append(json.loads(body)["event"])
        elif answer.status in BUSY:
            time.sleep(0.05)


def load(run: Path, clients: int, seconds: float) -> tuple[list[dict], Counter[int]]:
    """What was answered as kept, and how often each status was answered."""
    with served(run) as page:
        headers = {"Authorization": f"Bearer {page.token}"}
        rows = json.loads(page.ask("GET", "cards?order=suspect&limit=60", **headers)[2])["cards"]
        crowd = [Client(page, number, rows) for number in range(clients)]
        end = time.monotonic() + seconds
        with ThreadPoolExecutor(clients) as pool:
            for done in [pool.submit(client.run, end) for client in crowd]:
                done.result()
        page.kill()
    statuses = sum((client.statuses for client in crowd), Counter())
    return [event for client in crowd for event in client.events], statuses


def check(run: Path, answered: list[dict], statuses: Counter[int]) -> None:
    """Every event that was answered is in the file as it was answered, and nothing else is."""
    labels, names = read_labels(run)
    with Decisions(run / DECISIONS, labels, names) as decisions:
        kept = {event.number: event for event in decisions.history()}
        standing = decisions.latest()
    assert len(answered) == statuses[201] == len(kept)
    for event in answered:
        stored = kept[event["number"]]
        seen = (stored.id, stored.action, stored.label, stored.undoes)
        label = None if event["label"] is None else names[event["label"]]
        assert seen == (labels.id[event["row"]], event["action"], label, event["undoes"])
    undone = {event["undoes"] for event in answered}
    last = {kept[e["number"]].id: e["number"] for e in sorted(answered, key=lambda e: e["number"]) if stands(e, undone)}
    assert {row: decision.event.number for row, decision in standing.items()} == last
    assert set(statuses) <= {201, 409, *BUSY}  # 409: a decision that this client had taken back already


def stands(event: dict, undone: set[int | None]) -> bool:
    return event["action"] != "undo" and event["number"] not in undone


@pytest.mark.torture
def test_many_clients_lose_no_decision(digits, tmp_path):
    run = copied(digits, tmp_path)
    answered, statuses = load(run, CLIENTS, SECONDS)
    print(f"{CLIENTS} clients, {SECONDS:g} s: {dict(statuses)}")
    assert len(answered) > 10 * CLIENTS
    check(run, answered, statuses)


def test_a_few_clients_lose_no_decision(digits, tmp_path):
    run = copied(digits, tmp_path)
    answered, statuses = load(run, 4, 1.0)
    assert len(answered) >= 4
    check(run, answered, statuses)
