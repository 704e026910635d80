"""The table of arrangements, and what may import what."""

import ast
import dataclasses
import re
import sys
from functools import cache
from pathlib import Path

import pytest
import scheme_oracles

import resnorm_jax
from resnorm_jax import arrangements, norms
from resnorm_jax.arrangements import Arrangement, Init, NormSlot, Place
from resnorm_jax.modules.pooling import POOLING
from resnorm_jax.modules.positions import POSITIONS
from resnorm_jax.planning.remat import REMAT
from resnorm_jax.registry import Registry
from resnorm_jax.schemes import STREAMS

PACKAGE = Path(resnorm_jax.__file__).parent
CATALOG = "schemes/"
# What papers claim of schemes by name, and which scheme a pretrained family has: as data.
CLAIMS = ("lab/theory/", "lab/signals/theory.py", "lab/article/networks.py", "interop/families/")
NAMES = (
    "none", "residual_only", "norm_only", "post_ln", "pre_ln", "sandwich_ln", "res_post_norm",
    "deepnorm", "rezero",
)  # fmt: skip


@cache
def trees():
    """Syntax trees of the package's files by path within it."""
    found = {
        str(path.relative_to(PACKAGE)): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
    }
    assert len(found) > 30
    assert any(path.startswith(CATALOG) for path in found)
    return found


# --- Rows ---


def test_the_table_is_complete():
    assert set(NAMES) <= set(arrangements.names())
    assert set(arrangements.names()) == set(scheme_oracles.SCHEMES)
    assert arrangements.DEFAULT == "pre_ln"
    assert arrangements.get("peri_ln").name == "sandwich_ln"


@pytest.mark.parametrize("row", arrangements.rows(), ids=lambda row: row.name)
def test_a_row_says_what_it_is_and_where_it_comes_from(row):
    assert re.fullmatch(r"[a-z][a-z0-9_]*", row.name)
    assert "f(" in row.equation
    assert "\n" not in row.equation
    # A paper; or, where none was published, the official code.
    cited = re.search(r"arXiv \d{4}\.\d{5}|[\w-]+/[\w-]+ [\w/]+\.py", row.source)
    assert cited or row.source.startswith("control")
    assert STREAMS.get(row.stream.name) is row.stream
    assert set(row.init.gains) <= set(arrangements.ROLES)
    # Data, hence usable as a field of a hashable Flax module.
    assert hash(row) == hash(dataclasses.replace(row))
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.stream = "replace"


def test_deepnorms_constants_are_the_papers():
    """Wang et al. 2022, figure 2, encoder-only: (2N)^(1/4) and (8N)^(-1/4), by hand."""
    row = arrangements.get("deepnorm")
    for layers, alpha, beta in ((6, 1.8612, 0.3799), (18, 2.4495, 0.2887), (100, 3.7606, 0.1880)):
        for layer in (1, layers):
            place = Place(layers, layer, 2 * layer, 2 * layers)
            assert row.skip_scale(place) == pytest.approx(alpha, abs=1e-4)
            for gain in row.init.gains.values():
                assert gain(place) == pytest.approx(beta, abs=1e-4)
    assert set(row.init.gains) == {"value", "out", "fc1", "fc2"}


def test_constants_are_one_elsewhere():
    place = Place(12, 3, 5, 24)
    for row in map(arrangements.get, NAMES):
        assert row.branch_scale(place) == row.read_scale(place) == 1.0
        if row.name != "deepnorm":
            assert row.skip_scale(place) == 1.0
            assert not row.init.gains


def test_unknown_names_and_roles_are_refused():
    with pytest.raises(
        ValueError, match=r"arrangement: unknown name 'postln'; did you mean 'post_ln'"
    ):
        arrangements.get("postln")
    with pytest.raises(ValueError, match=r"choose one of: .*deepnorm, .*none, .*peri_ln"):
        arrangements.get("zzzzzz")
    with pytest.raises(ValueError, match=r"unknown roles \['fc3'\]"):
        Init(gains={"fc3": lambda place: 1.0})


def test_a_registry_keeps_names_and_aliases_apart():
    def row(name, aliases=()):
        return Arrangement(name=name, equation="f(x)", source="test", aliases=aliases)

    registry = Registry("kind", [row("a", ("b",))])
    for taken in (row("a"), row("b"), row("c", ("a",)), row("c", ("b",))):
        with pytest.raises(ValueError, match="is registered already"):
            registry.register(taken)
    new = dataclasses.replace(row("a"), norm_before=NormSlot())
    assert registry.register(new, replace=True) is registry.get("a") is registry.get(new)
    assert registry.names() == ("a",)


# --- No scheme is known by name outside the catalog ---


def strings(tree):
    """String constants of a file that are not docstrings."""
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node


def test_only_the_catalog_names_an_arrangement():
    names = {n for row in arrangements.rows() for n in (row.name, *row.aliases)}
    # Words of other menus: "none" also stands for no rematerialization and no positions.
    others = {*REMAT, *POSITIONS.names(), *POOLING.names(), *STREAMS.names(), *norms.names()}
    assert names & others == {"none"}
    # A whole constant: an example in a command's help text may show a name.
    named = {}
    for path, tree in trees().items():
        for node in strings(tree):
            if node.value in names - others:
                named.setdefault(path, set()).add(node.value)
    # The catalog is seen, so that a walk which sees nothing cannot pass.
    catalogs = [path for path in named if path.startswith(CATALOG)]
    assert set().union(*map(named.pop, catalogs)) == names - others
    assert not {path for path in named if not path.startswith(CLAIMS)}


def test_nothing_compares_an_arrangement_with_a_name():
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare):
                sides = ast.unparse(node)
                assert not re.search(r"arrangement(\.name)? [!=]= '", sides), (path, sides)


# --- What may import what ---

LAYERS = [  # a module may import from its own row and those above it
    {"version", "errors", "registry", "schema", "sizes", "arguments", "testing"},
    {"data"},
    {"ops"},
    {"norms"},
    {"schemes"},
    {"arrangements", "streams", "planning"},
    {"modules"},
    {
        "build",
        "config",
        "config_fields",
        "config_file",
        "configs",
        "reporting",
        "article",
        "interop",
    },
    {"training"},
    {"lab", "runs", "estimators", "export", "serving", "scaling", "launching"},
    {"bench"},
    {"cli", "__main__"},
]
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}


def imports(tree):
    """Absolute names of all modules that a file imports, at any depth of the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield node.module
            if node.module == "resnorm_jax":
                yield from (f"resnorm_jax.{alias.name}" for alias in node.names)


def parts(tree):
    """Parts of the package that a file imports."""
    inner = {name.split(".")[1] for name in imports(tree) if name.startswith("resnorm_jax.")}
    return {"version" if part == "__version__" else part for part in inner}


def test_imports_run_from_the_top_layer_down():
    seen = set()
    for path, tree in trees().items():
        part = path.split("/")[0].removesuffix(".py")
        if part == "__init__":
            continue
        assert part in RANK, f"{path}: give this part a place in LAYERS"
        for other in parts(tree):
            assert other in RANK, f"{path} imports resnorm_jax.{other}: give it a place in LAYERS"
            assert RANK[other] <= RANK[part], f"{path} imports resnorm_jax.{other}"
            seen.add((part, other))
    assert {("ops", "registry"), ("modules", "planning"), ("training", "reporting")} <= seen
    # Modules execute plans: they know no table of schemes but by the name that a user gave.
    assert {("planning", "schemes"), ("planning", "norms"), ("schemes", "ops")} <= seen


def test_schemes_are_pure_functions_and_data():
    """No Flax in a scheme: its functions take arrays, its parameters are declared as data."""
    found = 0
    for path, tree in trees().items():
        if not path.startswith("schemes/"):
            continue
        for name in imports(tree):
            found += 1
            top, *rest = name.split(".")
            if top == "resnorm_jax":
                assert rest[0] in ("schemes", "ops", "registry", "errors"), (path, name)
            else:
                assert top == "jax" or top in sys.stdlib_module_names, (path, name)
    assert found > 50


def test_modules_do_not_reach_into_the_trainer_and_ops_not_into_flax_modules():
    for path, tree in trees().items():
        names = set(imports(tree))
        if path.startswith(("ops/", "modules/", "norms/", "schemes/", "planning/")):
            assert not {n for n in names if n.split(".")[0] in ("optax", "orbax", "grain")}, path


def test_pmap_is_called_in_one_file():
    calls = set()
    for path, tree in trees().items():
        for node in ast.walk(tree):
            by_attribute = isinstance(node, ast.Attribute) and node.attr == "pmap"
            by_import = isinstance(node, ast.ImportFrom) and "pmap" in [a.name for a in node.names]
            if by_attribute or by_import:
                calls.add(path)
    # The assertions for users try a user's function under pmap, among other transformations.
    assert calls == {"training/devices.py", "testing/transforms.py"}
