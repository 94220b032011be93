"""Decisions are kept, counted and taken back; random rows stay random."""

import pytest

from ebomlc.errors import InputError
from ebomlc.labels.decisions import read_decisions
from ebomlc.review.desk import MOST_CARDS, visible
from ebomlc.review.rows import Filter
from ebomlc.reviewed import DECISIONS, read_labels
from tests.review.conftest import copied, desk_of


def first(desk, n: int, mode: str = "suspect") -> list[dict]:
    return desk.cards(mode, Filter())["cards"][:n]


def accept(desk, card: dict, mode: str = "suspect") -> dict:
    action, label = ("accept", "suggested") if card["given"] != card["suggested"] else ("keep", "given")
    return desk.decide(card["row"], action, card[label], mode, since=0)


def test_a_decision_is_in_the_file_when_the_call_returns(desk, run):
    card = first(desk, 1)[0]
    answer = accept(desk, card)
    stored = read_decisions(run / DECISIONS, *read_labels(run))
    assert [decision.event.number for decision in stored.values()] == [answer["event"]["number"]]
    assert stored[desk.rows.ids[card["row"]]].label == desk.rows.class_names[card["suggested"]]
    assert answer["card"]["decision"]["action"] == "accept"
    assert answer["counts"]["suspects_left"] == answer["counts"]["suspects"] - 1


def test_a_decided_row_comes_no_more_and_comes_back_when_it_is_undone(desk):
    cards = first(desk, 3)
    number = accept(desk, cards[0])["event"]["number"]
    assert first(desk, 1)[0]["row"] == cards[1]["row"]
    answer = desk.undo(number, since=number)
    assert (answer["card"]["row"], answer["card"]["decision"]) == (cards[0]["row"], None)
    assert first(desk, 1)[0]["row"] == cards[0]["row"]
    assert [event["action"] for event in desk.history()] == ["undo", "accept"]


def test_cards_go_on_after_a_row_in_pages_that_join(desk):
    seen, after = [], None
    while cards := desk.cards("suspect", Filter(), after=after, limit=37)["cards"]:
        seen += [card["row"] for card in cards]
        after = seen[-1]
    assert seen == desk.rows.suspects.tolist()
    assert len(desk.cards("suspect", Filter(), limit=10**6)["cards"]) == MOST_CARDS


def test_a_filter_reaches_the_cards(desk):
    found = desk.cards("suspect", Filter(given=3, low=0.5))
    assert found["cards"]
    assert all(card["given"] == 3 and card["confidence"] >= 0.5 for card in found["cards"])
    given = desk.rows.given[desk.rows.suspects]
    confidence = desk.rows.confidence[desk.rows.suspects]
    assert found["matching"] == int(((given == 3) & (confidence >= 0.5)).sum())


def test_unsure_rows_come_least_confident_first_and_can_be_chosen_from(desk):
    confidence = [card["confidence"] for card in desk.cards("unsure", Filter())["cards"]]
    assert confidence == sorted(confidence)
    assert confidence[0] == desk.rows.confidence[~desk.rows.is_trusted].min()
    chosen = desk.cards("unsure", Filter(low=0.5))
    assert min(card["confidence"] for card in chosen["cards"]) >= 0.5
    assert chosen["matching"] == (desk.rows.confidence[~desk.rows.is_trusted] >= 0.5).sum()


def test_random_rows_come_in_the_stored_order_whatever_was_decided_of_them_as_suspects(desk):
    order = desk.rows.shuffled.tolist()
    suspects = set(desk.rows.suspects.tolist())
    place = next(place for place, row in enumerate(order) if row in suspects)
    accept(desk, desk.card(order[place]))
    assert [card["row"] for card in first(desk, place + 1, "random")] == order[: place + 1]
    for card in first(desk, place + 1, "random"):
        counts = accept(desk, card, "random")["counts"]
    assert counts["random"] == counts["drawn"] == place + 1
    assert first(desk, 1, "random")[0]["row"] == order[place + 1]


def test_a_row_out_of_its_turn_is_not_random(desk):
    second = first(desk, 2, "random")[1]
    with pytest.raises(InputError, match="decided in their order"):
        accept(desk, second, "random")
    assert desk.counts()["decided"] == 0


def test_a_skip_takes_its_turn_in_the_random_order(desk):
    cards = first(desk, 2, "random")
    desk.decide(cards[0]["row"], "skip", None, "random", since=0)
    counts = accept(desk, cards[1], "random")["counts"]
    assert (counts["drawn"], counts["random"], counts["skipped"]) == (2, 1, 1)


def test_a_random_row_stays_one_when_it_is_looked_at_again(desk):
    card = first(desk, 1, "random")[0]
    accept(desk, card, "random")
    counts = desk.decide(card["row"], "other", (card["suggested"] + 1) % 10, "suspect", since=0)["counts"]
    assert (counts["random"], counts["decided"]) == (1, 1)


def test_random_rows_cannot_be_chosen_from(desk):
    with pytest.raises(InputError, match="random rows cannot be chosen from"):
        desk.cards("random", Filter(given=1))


def test_two_desks_on_one_run_see_each_others_decisions(desk, run):
    with desk_of(run, "ben") as other:
        cards = first(desk, 3)
        newest = accept(desk, cards[0])["event"]["number"]
        assert first(other, 1)[0]["row"] == cards[1]["row"]
        accept(other, cards[1])
        answer = desk.decide(cards[2]["row"], "skip", None, "suspect", since=newest)
        assert answer["elsewhere"] == [cards[1]["row"]]
        assert answer["counts"] == other.counts()
        assert [event["reviewer"] for event in desk.history()] == ["anna", "ben", "anna"]


def test_a_desk_opened_again_knows_what_was_decided(run):
    with desk_of(run) as desk:
        before = accept(desk, first(desk, 1)[0])["counts"]
    with desk_of(run) as desk:
        assert desk.counts() == before


def test_trusted_and_unknown_rows_and_classes_are_refused(desk):
    trusted = int(desk.rows.is_trusted.argmax())
    for row in (trusted, -1, 10**9):
        with pytest.raises(InputError, match="none to review in this run"):
            desk.decide(row, "skip", None, "suspect", since=0)
        with pytest.raises(InputError, match="none to review in this run"):
            desk.sample(row, 320)
    for label in (-1, 10):
        with pytest.raises(InputError, match="none of this run"):
            desk.decide(first(desk, 1)[0]["row"], "other", label, "suspect", since=0)
    assert desk.history() == []


def test_nothing_hides_in_a_text():
    assert visible("a\x1b[31m\u202eb\x7f\x00\tc\nd") == "a\u241b[31m[U+202E]b[U+007F]\u2400\tc\nd"
    assert visible("na\u200dïve \U0001f600 العربية") == "na\u200dïve \U0001f600 العربية"
    assert visible("\ud800") == "\ufffd"


def test_ids_that_attack_are_shown_harmless(hostile, tmp_path):
    with desk_of(copied(hostile, tmp_path)) as desk:
        ids = [card["id"] for card in first(desk, 60)]
        assert ids
        assert all("\x1b" not in shown and "\u202e" not in shown for shown in ids)
