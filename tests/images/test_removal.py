"""`rmi`, prune and the list's filters, in Docker's words."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from image_archives import Messages, Picture, docker_save_old, file, layout_members, pack, stream, tar

from logd.errors import Conflict, InvalidParameter, NotFound
from logd.images.image import ContainerUse
from logd.images.store import ImageStore

BASE = tar(file("base", b"1234567890"))
TOP = tar(file("top", b"12345"))
CONTAINER = "c" * 64


def nobody(_: str) -> list[ContainerUse]:
    return []


def used_by(image_id: str, *, running: bool) -> Any:
    return lambda asked: [ContainerUse(CONTAINER, running)] if asked == image_id else []


async def load(store: ImageStore, *pictures: Picture) -> None:
    await store.load(stream(docker_save_old(*pictures)), Messages())


def remove(store: ImageStore, ref: str, in_use: Any = nobody, *, force: bool = False, prune: bool = True) -> Any:
    return store.remove(ref, force=force, prune=prune, in_use=in_use)


def trees(tmp_path: Path) -> int:
    return len(os.listdir(tmp_path / "images/l"))


async def test_the_last_name_takes_the_image_and_its_layers_with_it(store: ImageStore, tmp_path: Path) -> None:
    one, other = Picture([BASE, TOP], tags=["a:1"]), Picture([BASE], tags=["b:1"])
    await load(store, one, other)
    gone = store.resolve("a:1").chain[1]
    assert remove(store, "a:1") == [{"Untagged": "a:1"}, {"Deleted": one.id}, {"Deleted": gone}]
    assert trees(tmp_path) == 1
    assert remove(store, "b:1") == [{"Untagged": "b:1"}, {"Deleted": other.id}, {"Deleted": other.diff_ids[0]}]
    assert trees(tmp_path) == 0
    with pytest.raises(NotFound, match="No such image: b:1"):
        store.resolve("b:1")
    deadline = time.monotonic() + 10
    while os.listdir(tmp_path / "images/trash"):
        assert time.monotonic() < deadline, "the layers' trees are removed in a thread"


async def test_configs_manifests_and_tars_go_with_the_last_image_that_has_them(
    store: ImageStore, tmp_path: Path
) -> None:
    one, other = Picture([BASE, TOP], tags=["a:1"]), Picture([BASE], tags=["b:1"])
    await store.load(stream(pack(layout_members(one, other))), Messages())
    blobs = tmp_path / "images/blobs/sha256"
    assert len(os.listdir(blobs)) == 6
    remove(store, "a:1")
    assert len(os.listdir(blobs)) == 3
    remove(store, other.id, used_by(other.id, running=False), force=True)
    assert len(os.listdir(blobs)) == 3  # a container has the image
    store.collect(nobody)
    assert os.listdir(blobs) == []


async def test_a_name_among_several_is_only_untagged(store: ImageStore) -> None:
    one = Picture([BASE], tags=["a:1", "b:1"])
    await load(store, one)
    assert remove(store, "a:1") == [{"Untagged": "a:1"}]
    assert store.resolve(one.id).tags == ["b:1"]


async def test_an_id_takes_the_only_name_with_it(store: ImageStore) -> None:
    one = Picture([BASE], tags=["a:1"])
    await load(store, one)
    items = remove(store, one.id[7:19])
    assert items == [{"Untagged": "a:1"}, {"Deleted": one.id}, {"Deleted": one.diff_ids[0]}]


async def test_the_digest_goes_with_the_last_tag_of_its_repository(store: ImageStore) -> None:
    one = Picture([BASE], tags=["a:1"])
    await store.load(stream(pack(layout_members(one))), Messages())
    (digest,) = store.resolve("a:1").digests
    store.tag("a:1", "b", "2")
    assert remove(store, "a:1") == [{"Untagged": "a:1"}, {"Untagged": digest}]
    assert remove(store, "b:2")[:2] == [{"Untagged": "b:2"}, {"Deleted": one.id}]


async def test_an_id_with_names_in_two_repositories_needs_force(store: ImageStore) -> None:
    one = Picture([BASE], tags=["a:1", "b:1"])
    await load(store, one)
    with pytest.raises(Conflict) as caught:
        remove(store, one.id)
    assert str(caught.value) == (
        f"conflict: unable to delete {one.id[7:19]} (must be forced) - image is referenced in multiple repositories"
    )
    items = remove(store, one.id, force=True)
    assert items[:3] == [{"Untagged": "a:1"}, {"Untagged": "b:1"}, {"Deleted": one.id}]


async def test_the_name_of_a_containers_image_needs_force(store: ImageStore, tmp_path: Path) -> None:
    one = Picture([BASE], tags=["a:1"])
    await load(store, one)
    in_use = used_by(one.id, running=False)
    with pytest.raises(Conflict) as caught:
        remove(store, "a:1", in_use)
    assert str(caught.value) == (
        'conflict: unable to remove repository reference "a:1" (must force) -'
        f" container {CONTAINER[:12]} is using its referenced image {one.id[7:19]}"
    )
    with pytest.raises(Conflict) as caught:
        remove(store, one.id, in_use)
    assert str(caught.value) == (
        f"conflict: unable to delete {one.id[7:19]} (must be forced)"
        f" - image is being used by stopped container {CONTAINER[:12]}"
    )
    assert trees(tmp_path) == 1


async def test_the_image_of_a_running_container_stays_whatever_is_forced(store: ImageStore, tmp_path: Path) -> None:
    one = Picture([BASE], tags=["a:1"])
    await load(store, one)
    in_use = used_by(one.id, running=True)
    with pytest.raises(Conflict) as caught:
        remove(store, one.id, in_use, force=True)
    assert str(caught.value) == (
        f"conflict: unable to delete {one.id[7:19]} (cannot be forced)"
        f" - image is being used by running container {CONTAINER[:12]}"
    )
    assert remove(store, "a:1", in_use, force=True) == [{"Untagged": "a:1"}]
    assert store.resolve(one.id).tags == []
    assert trees(tmp_path) == 1


async def test_a_stopped_container_keeps_the_layers_of_an_image_removed_by_force(
    store: ImageStore, tmp_path: Path
) -> None:
    one = Picture([BASE, TOP], tags=["a:1"])
    await load(store, one)
    in_use = used_by(one.id, running=False)
    assert remove(store, "a:1", in_use, force=True) == [{"Untagged": "a:1"}, {"Deleted": one.id}]
    assert store.list() == []
    again = ImageStore(tmp_path / "images")
    image = again.resolve(one.id)  # what a start of the container asks for
    assert (again.layers(image)[0] / "top").read_bytes() == b"12345"
    again.collect(in_use)
    assert trees(tmp_path) == 2
    again.collect(nobody)
    assert trees(tmp_path) == 0
    assert again.by_id(one.id) is None


async def test_an_image_that_comes_back_while_a_container_has_it_is_one_again(store: ImageStore) -> None:
    one = Picture([BASE], tags=["a:1"])
    await load(store, one)
    remove(store, "a:1", used_by(one.id, running=False), force=True)
    await load(store, one)
    store.collect(nobody)
    assert (store.layers(store.resolve("a:1"))[0] / "base").exists()


async def test_a_parent_stays_for_its_children_and_goes_with_the_last(store: ImageStore) -> None:
    step = {"created": "2024-01-01T00:00:00Z", "created_by": "one"}
    parent = Picture([BASE], history=[step])
    child = Picture([BASE, TOP], tags=["c:1"], history=[step, {"created_by": "two"}], parent=parent.id)
    await load(store, parent, child)
    assert store.resolve("c:1").parent == parent.id
    with pytest.raises(Conflict) as caught:
        remove(store, parent.id, force=True)
    assert str(caught.value) == (
        f"conflict: unable to delete {parent.id[7:19]} (cannot be forced) - image has dependent child images"
    )
    assert [item["Id"] for item in store.summaries({})] == [child.id]
    assert len(store.summaries({}, everything=True)) == 2
    deleted = [item["Deleted"] for item in remove(store, "c:1") if "Deleted" in item]
    assert parent.id in deleted
    assert store.list() == []


async def test_prune_takes_nameless_images_or_all_that_no_container_has(store: ImageStore, tmp_path: Path) -> None:
    dangling, named, used = Picture([TOP]), Picture([BASE, TOP], tags=["a:1"]), Picture([BASE], tags=["u:1"])
    await load(store, dangling, named, used)
    in_use = used_by(used.id, running=False)
    report = store.prune(in_use=in_use)
    assert report == {
        "ImagesDeleted": [{"Deleted": dangling.id}, {"Deleted": dangling.diff_ids[0]}],
        "SpaceReclaimed": 5,
    }
    assert store.prune(in_use=in_use) == {"ImagesDeleted": None, "SpaceReclaimed": 0}
    report = store.prune(in_use=in_use, filters={"dangling": ["false"]})
    assert [item for item in report["ImagesDeleted"] if "Untagged" in item] == [{"Untagged": "a:1"}]
    assert report["SpaceReclaimed"] == 5
    assert [image.tags for image in store.list()] == [["u:1"]]
    assert trees(tmp_path) == 1


async def test_prune_keeps_to_label_and_until(store: ImageStore) -> None:
    def nameless(run: dict[str, Any], created: str) -> Picture:
        return Picture([BASE], run=run, created=created)

    await load(store, nameless({"Labels": {"keep": "1"}}, "2020-01-01T00:00:00Z"), nameless({}, "2024-01-01T00:00:00Z"))
    report = store.prune(in_use=nobody, filters={"label!": ["keep"], "until": ["2023-01-01T00:00:00Z"]})
    assert report["ImagesDeleted"] is None
    assert len(store.list()) == 2
    store.prune(in_use=nobody, filters={"label": ["keep=1"]})
    assert [image.labels for image in store.list()] == [None]


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"colour": ["x"]}, "invalid filter 'colour'"),
        ({"dangling": ["maybe"]}, r"invalid filter 'dangling=\[maybe\]'"),
        ({"until": ["1h", "2h"]}, "more than one until filter specified"),
        ({"until": ["x"]}, "invalid value for 'until' filter"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(store: ImageStore, filters: Any, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        store.prune(in_use=nobody, filters=filters)
    with pytest.raises(InvalidParameter, match=message):
        store.summaries(filters)


async def test_the_list_is_filtered(store: ImageStore) -> None:
    old = Picture([BASE], tags=["app:1", "app:2"], created="2020-01-01T00:00:00Z", run={"Labels": {"a": "b"}})
    middle = Picture([TOP], created="2021-01-01T00:00:00Z")
    new = Picture([BASE, TOP], tags=["team/web:1"], created="2022-01-01T00:00:00Z")
    await load(store, old, middle, new)

    def names(**filters: Any) -> list[list[str]]:
        return [item["RepoTags"] for item in store.summaries({key: [value] for key, value in filters.items()})]

    assert names() == [["team/web:1"], [], ["app:1", "app:2"]]
    assert names(dangling="true") == [[]]
    assert names(dangling="false") == [["team/web:1"], ["app:1", "app:2"]]
    assert names(reference="app:2") == [["app:2"]]
    assert names(reference="*/web") == [["team/web:1"]]
    assert names(before="team/web:1") == [[], ["app:1", "app:2"]]
    assert names(since="app:1") == [["team/web:1"], []]
    assert names(label="a") == names(label="a=b") == [["app:1", "app:2"]]
    assert names(label="a=c") == []
    assert names(until="2020-06-01T00:00:00Z") == [["app:1", "app:2"]]
    with pytest.raises(NotFound, match="No such image: nope:latest"):
        names(before="nope")


async def test_a_summary_has_dockers_fields(store: ImageStore) -> None:
    one, two = Picture([BASE, TOP], tags=["a:1"], created="2020-01-01T00:00:00Z"), Picture([BASE], tags=["b:1"])
    await load(store, one, two)
    assert store.summary("a:1") == {
        "Containers": -1,
        "Created": 1577836800,
        "Id": one.id,
        "Labels": None,
        "ParentId": "",
        "RepoDigests": [],
        "RepoTags": ["a:1"],
        "SharedSize": -1,
        "Size": 15,
    }
    counted = store.summaries({}, shared_size=True, in_use=used_by(one.id, running=True))
    assert {item["Id"]: (item["SharedSize"], item["Containers"]) for item in counted} == {
        one.id: (10, 1),
        two.id: (10, 0),
    }


async def test_a_tag_moves_and_is_durable(store: ImageStore, tmp_path: Path) -> None:
    one, two = Picture([BASE], tags=["a:1"]), Picture([TOP], tags=["b:1"])
    await load(store, one, two)
    assert store.tag("a:1", "registry:5000/x/y", "3").tags == ["a:1", "registry:5000/x/y:3"]
    store.tag("b:1", "a", "1")
    again = ImageStore(tmp_path / "images")
    assert again.resolve("a:1").id == two.id
    assert again.resolve(one.id).tags == ["registry:5000/x/y:3"]
    for ref, repo, tag, kind in (("nope", "x", "", NotFound), ("a:1", "X", "", InvalidParameter)):
        with pytest.raises(kind):
            store.tag(ref, repo, tag)
