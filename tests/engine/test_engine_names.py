"""Names, and which container a reference means."""

import re

import pytest
from engine_samples import make_container

from logd.engine.names import ADJECTIVES, SURNAMES, Registry, check_name, random_name
from logd.errors import Conflict, InvalidParameter, NotFound


@pytest.mark.parametrize("name", ["web", "/web", "a-b_c.d", "0x", "W9"])
def test_good_names_lose_their_slash(name):
    assert check_name(name) == name.removeprefix("/")


@pytest.mark.parametrize("name", ["a", "", "/", "-web", "a b", "ü-web", "a/b", "web\n", "_x"])
def test_other_names_are_refused_in_dockers_words(name):
    with pytest.raises(InvalidParameter) as refusal:
        check_name(name)
    assert str(refusal.value) == f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"


def test_every_word_makes_a_valid_name_and_is_there_once():
    assert len(set(ADJECTIVES)) == len(ADJECTIVES)
    assert len(set(SURNAMES)) == len(SURNAMES)
    assert all(re.fullmatch(r"[a-z]+", word) for word in (*ADJECTIVES, *SURNAMES))


def test_a_generated_name_is_an_adjective_and_a_surname_and_later_tries_end_in_a_digit():
    assert re.fullmatch(r"[a-z]+_[a-z]+", random_name(0))
    assert re.fullmatch(r"[a-z]+_[a-z]+\d", random_name(1))


def test_with_all_names_taken_the_id_is_the_name(monkeypatch):
    registry = Registry()
    monkeypatch.setattr("logd.engine.names.random_name", lambda attempt: "same_name")
    assert registry.reserve_generated("a" * 64) == "same_name"
    assert registry.reserve_generated("b" * 64) == "b" * 12


def test_a_taken_name_is_refused_in_dockers_words():
    registry = Registry()
    registry.reserve("web", "a" * 64)
    with pytest.raises(Conflict) as refusal:
        registry.reserve("web", "b" * 64)
    assert str(refusal.value) == (
        f'Conflict. The container name "/web" is already in use by container "{"a" * 64}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
    registry.release("web", "b" * 64)
    with pytest.raises(Conflict):
        registry.reserve("web", "b" * 64)


async def test_a_reference_is_an_id_a_name_or_a_unique_beginning_of_an_id(tmp_path):
    registry = Registry()
    first = make_container(tmp_path, container_id="ab" * 32, name="first")
    second = make_container(tmp_path, container_id="ac" * 32, name="acacac")
    for one in (first, second):
        registry.reserve(one.name, one.id)
        registry.add(one)
    assert registry.get(first.id) is first
    assert registry.get("/first") is first
    assert registry.get("ab") is first
    assert registry.get("acacac") is second
    with pytest.raises(InvalidParameter, match="multiple IDs found with provided prefix: a"):
        registry.get("a")
    with pytest.raises(NotFound, match=r"^No such container: nobody$"):
        registry.get("nobody")
    with pytest.raises(InvalidParameter):
        registry.get("")


async def test_a_removed_container_frees_its_name(tmp_path):
    registry = Registry()
    one = make_container(tmp_path, name="web")
    registry.reserve("web", one.id)
    registry.add(one)
    registry.discard(one)
    registry.reserve("web", "f" * 64)
    with pytest.raises(NotFound):
        registry.get(one.id)


def test_new_ids_are_64_hexadecimal_digits():
    assert re.fullmatch(r"[0-9a-f]{64}", Registry().new_id())
