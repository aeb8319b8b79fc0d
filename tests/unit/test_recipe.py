"""Bad recipes: one message for each problem, with file, line, key path, what was found and what is allowed."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scripts.recipe.fetch import HUB, Fetch
from scripts.recipe.graph import Graph
from scripts.recipe.load import load_recipe
from scripts.recipe.problems import RecipeError
from tests.unit.recipe_cases import CASES, COMMIT, FILES, RECIPE, SHA


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("garden")
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def problems(root: Path, text: str) -> list[str]:
    path = root / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe([path], root)
    return [line.removeprefix(f"{root}/") for line in caught.value.problems]


def test_the_good_recipe_gives_its_jobs(root: Path) -> None:
    (root / "recipe.yaml").write_text(RECIPE)
    graph = Graph(load_recipe([root / "recipe.yaml"], root))
    assert graph.jobs[("merge", "bee")].inputs == (("create", "seed"), ("train", "rose"))
    assert graph.recipe.models["rose"].train is not None
    assert graph.recipe.models["rose"].train.optimizer.adam_eps == 1e-9


@pytest.mark.parametrize("case", CASES)
def test_each_problem_is_one_message(root: Path, case: str) -> None:
    old, new, expected = CASES[case]
    assert old in RECIPE
    found = problems(root, RECIPE.replace(old, new, 1))
    matching = [text for text in found if all(part in text for part in expected)]
    assert len(matching) == 1, found
    assert not any("\n" in text or "hf_CANARY" in text for text in found)


@pytest.mark.parametrize("text", ["", "- a\n", "garden\n", "\x00", "a: " + "[" * 1500])
def test_files_that_are_no_table(root: Path, text: str) -> None:
    (found,) = problems(root, text)
    assert found.startswith("recipe.yaml")


def test_endless_aliases_are_refused(root: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (found,) = problems(root, "\n".join(lines))
    assert "fewer aliases" in found


def test_several_problems_are_all_told(root: Path) -> None:
    text = RECIPE.replace("num_epochs", "num_epoch").replace("max_rows: 5", "max_rows: 0")
    assert len(problems(root, text)) == 2


def test_a_second_file_names_its_own_lines(root: Path) -> None:
    (root / "recipe.yaml").write_text(RECIPE)
    (root / "mine.yaml").write_text("mixtures:\n  herbs:\n    sources:\n      tea:\n        max_rows: -1\n")
    with pytest.raises(RecipeError, match=r"mine\.yaml:5: mixtures\.herbs\.sources\.tea\.max_rows: found -1"):
        load_recipe([root / "recipe.yaml", root / "mine.yaml"], root)


def test_a_private_source_needs_only_its_place(root: Path) -> None:
    (root / "recipe.yaml").write_text(RECIPE.replace("orca: {}", "diary: {missing: reweight}"))
    assert load_recipe([root / "recipe.yaml"], root).missing_sources == ["diary"]
    fetch = {"folder": "$DIARY", "files": {"a.csv": {"sha256": SHA}}}
    (root / "mine.yaml").write_text(yaml.safe_dump({"sources": {"diary": {"fetch": fetch}}}))
    loaded = load_recipe([root / "recipe.yaml", root / "mine.yaml"], root)
    assert not loaded.missing_sources
    assert loaded.sources["diary"].read.adapter == "forum"


def test_a_number_may_be_written_as_everybody_does(root: Path) -> None:
    recipe = RECIPE.replace("pack: {num_epochs: 2}", "optimizer: {learning_rate: 2e-5, adam_eps: 1E-9}")
    (root / "recipe.yaml").write_text(recipe)
    train = load_recipe([root / "recipe.yaml"], root).recipe.models["rose"].train
    assert train is not None
    assert (train.optimizer.learning_rate, train.optimizer.adam_eps) == (2e-5, 1e-9)


def test_an_empty_table_of_models(root: Path) -> None:
    (found,) = problems(root, "name: garden\nmodels: {}\n")
    assert found == "recipe.yaml:2: models: found no entries; at least 1 needed"


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_other_encodings_are_named(root: Path, encoding: str) -> None:
    path = root / "recipe.yaml"
    path.write_bytes("name: x\ntitle: café\n".encode(encoding))
    with pytest.raises(RecipeError, match=r"recipe\.yaml:\d: byte 0x\w\w is no UTF-8; save as UTF-8"):
        load_recipe([path], root)


def test_the_command_line_is_no_line_of_the_file(root: Path) -> None:
    (root / "recipe.yaml").write_text(RECIPE)
    with pytest.raises(RecipeError, match=r"^on the command line \(--config\): sead: unknown key"):
        load_recipe([root / "recipe.yaml"], root, {"sead": 1})


def test_a_whole_source_takes_the_place_of_the_file_of_its_name(root: Path) -> None:
    mine = f"""
  diary: {{title: Mine, license: MIT, redistributable: true, read: {{adapter: sharegpt}},
          fetch: {{folder: config, files: {{a.json: {{sha256: {SHA}}}}}}}}}
"""
    (root / "recipe.yaml").write_text(
        RECIPE.replace("orca: {}", "diary: {}").replace("sources:\n", f"sources:{mine}", 1)
    )
    diary = load_recipe([root / "recipe.yaml"], root).sources["diary"]
    assert (diary.title, diary.private, diary.read.adapter) == ("Mine", False, "sharegpt")


def test_an_adapter_of_ones_own_brings_no_settings_of_the_files(root: Path) -> None:
    (root / "config/sources/tales.yaml").write_text(
        FILES["config/sources/diary.yaml"].replace("forum", "stories, chunk_words: 9")
    )
    fetch = f"{{folder: config, files: {{a.csv: {{sha256: {SHA}}}}}}}"
    own = f"sources:\n  tales: {{fetch: {fetch}, read: {{adapter: forum}}}}\n"
    (root / "recipe.yaml").write_text(RECIPE.replace("orca: {}", "tales: {}").replace("sources:\n", own, 1))
    assert load_recipe([root / "recipe.yaml"], root).sources["tales"].read.adapter == "forum"
    (root / "config/sources/tales.yaml").unlink()


@pytest.mark.parametrize(
    ("hub", "good"),
    [
        (f"owner/name@{COMMIT}", True),
        (f"dataset:owner/name@{COMMIT}", True),
        (f"owner/name@{COMMIT[:7]}", False),
        (f"owner/name@{COMMIT.upper()}", False),
        (f"owner/name@{COMMIT}\n", False),
        (f"name@{COMMIT}", False),
        (f"space:owner/name@{COMMIT}", False),
        (f"owner/näme@{COMMIT}", False),
        ("owner/name", False),
    ],
)
def test_hub_places(hub: str, good: bool) -> None:
    text = {"hub": hub, "files": {"a": None}}
    if good:
        assert Fetch.model_validate(text).hub_parts()[1:] == ("owner/name", COMMIT)
    else:
        with pytest.raises(ValueError, match="40 lower-case hex digits"):
            Fetch.model_validate(text)


@pytest.mark.parametrize("names", [["artifact.json"], ["a", "a/b"], ["a/b", "a/b/c"], ["SHA256SUMS", "b"]])
def test_file_names_that_an_artifact_cannot_hold(names: list[str]) -> None:
    with pytest.raises(ValueError, match=r"can't be"):
        Fetch.model_validate({"hub": f"o/n@{COMMIT}", "files": dict.fromkeys(names)})


def test_location_and_access_are_not_part_of_a_downloads_identity(root: Path) -> None:
    (root / "recipe.yaml").write_text(RECIPE)
    job = Graph(load_recipe([root / "recipe.yaml"], root)).jobs[("download", "orca")]
    moved = RECIPE + "suites: {}\n"
    moved = moved.replace("sources:\n  tea", "sources:\n  orca: {fetch: {url: https://mirror.invalid}}\n  tea")
    (root / "recipe.yaml").write_text(moved)
    other = Graph(load_recipe([root / "recipe.yaml"], root)).jobs[("download", "orca")]
    assert other.spec != job.spec
    assert other.spec.identity() == job.spec.identity()


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**6),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["bee", "rose", "herbs", "tea", "../x", "\0", "train", f"o/n@{COMMIT}", "pippa", "read"]),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(
        st.one_of(st.text(max_size=4), st.integers(0, 3), st.none(), st.booleans()), st.integers(), max_size=2
    ),
)


def places_of(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at] * bool(at) + [place for key, child in items for place in places_of(child, (*at, key))]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_mutated_recipes_load_or_say_why(root: Path, data: st.DataObject) -> None:
    recipe = yaml.safe_load(RECIPE)
    for _ in range(data.draw(st.integers(1, 3))):
        everywhere = places_of(recipe)
        if not everywhere:
            break
        *parents, last = data.draw(st.sampled_from(everywhere))
        target = recipe
        for step in parents:
            target = target[step]
        match data.draw(st.sampled_from(["replace", "drop", "rename", "copy"])):
            case "replace":
                target[last] = data.draw(JUNK)
            case "drop":
                del target[last]
            case "copy":
                target[last] = copy.deepcopy(data.draw(st.sampled_from([recipe, *recipe.values()])))
            case "rename" if isinstance(target, dict):
                target[data.draw(st.one_of(st.text(max_size=6), st.integers(0, 2)))] = target.pop(last)
    path = root / "fuzz.yaml"
    path.write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    try:
        loaded = load_recipe([path], root)
    except RecipeError as error:
        assert error.problems
        assert all(text.strip() and str(root) in text for text in error.problems)
    else:
        for job in Graph(loaded).jobs.values():
            json.dumps(job.spec.model_dump(mode="json"), allow_nan=False)


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(cut=st.integers(0, len(RECIPE)), noise=st.text(max_size=6))
def test_broken_text_loads_or_says_why(root: Path, cut: int, noise: str) -> None:
    path = root / "broken.yaml"
    path.write_bytes((RECIPE[:cut] + noise + RECIPE[cut + 1 :]).encode("utf-8", "surrogatepass"))
    try:
        Graph(load_recipe([path], root))
    except RecipeError as error:
        assert all(text.strip() for text in error.problems)


def test_hub_pattern_has_one_meaning() -> None:
    assert HUB.fullmatch(f"dataset:a/b@{COMMIT}")
    assert not HUB.fullmatch(f"a/b/c@{COMMIT}")
