"""Config: what ``configs/`` says, composed by Hydra, checked against these types and then against the data.

The dataclasses are the reference: type, default and meaning of every field. YAML holds values. Hydra is used through
its Compose API, so that a command makes no directory of its own and every rank composes the same values.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recd_dist.errors import ConfigError, nearest
from recd_dist.job.options import Data, EtlConfig


@dataclass
class Optimizer:
    """One optimizer."""

    name: str = "adagrad"
    lr: float = 0.01
    eps: float = 1e-8
    weight_decay: float = 0.0


@dataclass
class Optim:
    """Tables are updated inside their backward pass, the dense part by a torch optimizer."""

    tables: Optimizer = field(default_factory=lambda: Optimizer("rowwise_adagrad"))
    dense: Optimizer = field(default_factory=Optimizer)


@dataclass
class Codec:
    """How vectors and gradients of the tables travel: fp32, fp16, bf16, forward also int8."""

    forward: str = "fp32"
    backward: str = "fp32"


@dataclass
class Plan:
    """How tables are spread over ranks, and what is deduplicated; docs/planning.md."""

    sharding: str = "auto"
    tables: dict[str, Any] = field(default_factory=dict)  # a type, or {type: TW, ranks: [0]}
    send: dict[str, str] = field(default_factory=dict)  # rows or ids, per table; the cheaper one where absent
    codec: Codec = field(default_factory=Codec)
    expand: list[str] | None = None  # groups trained expanded; None: those with hardly a row to save
    world_size: int | None = None
    topology: str | None = None  # machines the plan is for; None: this one
    costs: str | None = None  # file that `recd plan --probe` wrote; None: the topology's figures
    file: str | None = None  # a plan that `recd plan --save` wrote


@dataclass
class Reader:
    """How a rank reads."""

    num_workers: int = 0
    shuffle: bool = True
    window: int = 8  # row groups
    prefetch: int = 4  # batches per worker
    on_bad_id: str = "error"  # or drop: ids outside their table
    on_nan: str = "error"  # or zero: dense values and weights that are not finite


@dataclass
class Checkpoint:
    """When to save."""

    every: int = 500  # steps
    keep: int = 2


@dataclass
class EvaluateAtEnd:
    """What is evaluated when training ends."""

    split: str | None = "test"  # null: nothing
    batch_size: int | None = None


@dataclass
class TrainConfig:
    """``recd train``."""

    data: Data = field(default_factory=Data)
    model: dict[str, Any] = field(default_factory=dict)  # name, dim and the model's own arguments
    optim: Optim = field(default_factory=Optim)
    plan: Plan = field(default_factory=Plan)
    experiment: Any = None
    run_dir: str = "runs/run"
    resume: bool = True
    dedup: bool = True
    batch_size: int = 1024  # samples per rank and step, at most
    epochs: int = 1
    max_steps: int | None = None
    seed: int = 0
    device: str = "auto"
    log_every: int = 20  # steps
    record_samples: bool = False
    reader: Reader = field(default_factory=Reader)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    evaluate: EvaluateAtEnd = field(default_factory=EvaluateAtEnd)


@dataclass
class EvaluateConfig:
    """``recd evaluate``."""

    run_dir: str = "???"
    split: str = "test"
    table: str | None = None
    batch_size: int | None = None
    device: str = "auto"
    num_workers: int = 0


_OF_THE_USERS = re.compile(r"(data\.(features|groups|tables)|plan\.(tables|send))(\.\w|=)")
"""Maps whose names are of the user's own: an override may add to them without the + that Hydra asks for."""
_HOME = re.compile(r"([^=]+=)~(?=/|$)")
"""``data.path=~/logs``: a shell leaves such a ~ alone, and Hydra knows none."""
_MASTER = re.compile(r"(spark\.master=)(?!['\"])(.+)")
"""``spark.master=local[2]``: to Hydra's grammar a bracket begins a list."""
_SEARCHED = re.compile(r"file://([^,\]]+)")
_FEATURE_OPTIONS = ("table", "kind", "weights", "window", "transforms")
_TABLE_OPTIONS = ("num_embeddings", "dim", "hashed")
_TYPES: dict[str, type] = {"train": TrainConfig, "etl": EtlConfig, "evaluate": EvaluateConfig}


def config_dir() -> Path:
    """The directory of the shipped configs: of the checkout, or of the installed package."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package.parent.parent / "configs", package / "configs"):
        if (candidate / "train.yaml").is_file():
            return candidate
    raise ConfigError("the shipped configs are missing; reinstall recd_dist")


def load(name: str, overrides: Sequence[str] = (), user_dir: str | None = None) -> Any:
    """Composes and checks a config.

    Args:
        name: ``train``, ``etl`` or ``evaluate``.
        overrides: Hydra overrides, e.g. ``["data=ebnerd", "batch_size=2048"]``.
        user_dir: a directory with configs of the user's own, searched first (``data/mine.yaml``).

    Returns:
        TrainConfig, EtlConfig or EvaluateConfig.

    Raises:
        ConfigError: one line that names the option and the nearest one that exists.
    """
    composed = _compose(name, list(overrides), user_dir)
    if "data" in composed:
        _fill_missing(composed.data)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(_TYPES[name]), composed)
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(_explain(error, OmegaConf.structured(_TYPES[name]), name)) from error
    if hasattr(config, "data"):
        _check_options(config.data)
    return config


def _check_options(data: Data) -> None:
    """What one feature or table may say: these maps have names of the user's own, so that Hydra checks none of them."""
    for part, known in (("features", _FEATURE_OPTIONS), ("tables", _TABLE_OPTIONS)):
        for name, given in getattr(data, part).items():
            if given is not None and not isinstance(given, Mapping):
                raise ConfigError(f"data.{part}.{name}={given}: must be a map of {', '.join(known)}")
            for option in given or {}:
                if option not in known:
                    raise ConfigError(f"unknown option 'data.{part}.{name}.{option}'{nearest(str(option), known)}")


def _fill_missing(data: DictConfig) -> None:
    """``path: ???`` matters to the ETL alone, which asks for it by name; other commands do without."""
    for key in list(data):
        if OmegaConf.is_missing(data, key):
            data[key] = [] if key == "labels" else None
        elif isinstance(OmegaConf.to_container(data, throw_on_missing=False, resolve=False).get(key), dict):
            _fill_missing(data[key])


def to_yaml(config: Any) -> str:
    """A loaded config as YAML, every value resolved: what a run directory keeps."""
    return OmegaConf.to_yaml(OmegaConf.structured(config), resolve=True)


def from_yaml(name: str, path: Path) -> Any:
    """The config that ``to_yaml`` wrote.

    Raises:
        ConfigError: no such file, or not such a config.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: not there; is this the directory of a run?")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(_TYPES[name]), OmegaConf.load(path))
        return OmegaConf.to_object(merged)
    except yaml.YAMLError as error:
        raise ConfigError(_not_yaml(error)) from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from error


def _compose(name: str, overrides: list[str], user_dir: str | None) -> DictConfig:
    if user_dir is not None:
        if not Path(user_dir).is_dir():
            raise ConfigError(f"--config-dir {user_dir}: no such directory")
        overrides = [f"hydra.searchpath=[file://{Path(user_dir).resolve()}]", *overrides]
    for override in overrides:
        if override.startswith("-"):
            raise ConfigError(f"'{override}' is no override; options of the config are written name=value")
    overrides = [_HOME.sub(lambda found: f"{found[1]}{Path.home()}", o, count=1) for o in overrides]
    overrides = [_MASTER.sub(r'\1"\2"', o) for o in overrides]
    overrides = [f"++{o}" if _OF_THE_USERS.match(o) else o for o in overrides]
    for path in (p for o in overrides if o.startswith("hydra.searchpath=") for p in _SEARCHED.findall(o)):
        if not Path(path).is_dir():
            raise ConfigError(f"hydra.searchpath: {path}: no such directory")
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(config_dir()), version_base="1.3"):
        try:
            _check_experiment(overrides, user_dir)
            return compose(config_name=name, overrides=overrides)
        except OverrideParseException as error:
            raise ConfigError(f"'{error.override}' is no override; write name=value") from error
        except MissingConfigException as error:
            raise ConfigError(_missing(error, user_dir, overrides)) from error
        except yaml.YAMLError as error:
            raise ConfigError(_not_yaml(error)) from error
        except (ConfigCompositionException, HydraException, OmegaConfBaseException) as error:
            chosen = [o for o in overrides if o.partition("=")[0] in {*_groups(), "hydra.searchpath"}]
            raise ConfigError(_explain(error, _known(name, chosen), name)) from error


def _not_yaml(error: yaml.YAMLError) -> str:
    """Where a file stops being YAML, in one line."""
    mark = getattr(error, "problem_mark", None)
    where = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}" if mark else "a config"
    return f"{where}: not YAML ({getattr(error, 'problem', None) or str(error).splitlines()[0]})"


def _known(name: str, chosen: list[str]) -> DictConfig:
    """The options there are, for suggestions; none when even these do not compose."""
    try:
        return compose(config_name=name, overrides=chosen)
    except (HydraException, OmegaConfBaseException):
        return DictConfig({})


def _check_experiment(overrides: list[str], user_dir: str | None) -> None:
    """The experiment is optional, so that Hydra passes over one that does not exist."""
    named = [value for o in overrides for key, _, value in [o.partition("=")] if key.lstrip("+") == "experiment"]
    for name in named:
        options = _options("experiment", user_dir, overrides)
        if name not in ("", "null", *options) and not name.startswith("["):
            raise ConfigError(f"experiment={name}: no such config{nearest(name, options)}")


def _options(group: str, user_dir: str | None, overrides: Sequence[str] = ()) -> set[str]:
    """The configs of a group: shipped, and of the user's own directories."""
    own = [user_dir] if user_dir else []
    own += [path for o in overrides if o.startswith("hydra.searchpath=") for path in _SEARCHED.findall(o)]
    folders = [config_dir() / group, *(Path(path) / group for path in own)]
    return {p.stem for folder in folders if folder.is_dir() for p in folder.glob("*.yaml")}


def _missing(error: MissingConfigException, user_dir: str | None, overrides: Sequence[str]) -> str:
    """``data=ebnrd``: which file was looked for, and what there is."""
    wanted = str(error.missing_cfg_file or "")
    group, _, option = wanted.rpartition("/")
    if not group:
        group, option = "", wanted
    options = _options(group, user_dir, overrides)
    if not options:
        return f"no config group '{group or option}'{nearest(group or option, _groups())}"
    return f"{group}={option}: no such config{nearest(option, options)}"


def _groups() -> list[str]:
    return [p.name for p in config_dir().iterdir() if p.is_dir()]


def _explain(error: Exception, known: DictConfig, name: str) -> str:
    """One line for what Hydra and OmegaConf say in many."""
    cause: BaseException = error
    while cause.__cause__ is not None and not getattr(cause, "full_key", None):
        cause = cause.__cause__
    key = str(getattr(cause, "full_key", None) or "")
    text = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
    if "not in struct" in text or "not in '" in text or "Could not override" in text:
        return f"unknown option '{key}'{_nearest_key(key, known) or f'; every option: recd {name} --options'}"
    first = str(error).splitlines()[0]
    if first.startswith("Could not append to config. An item is already at"):
        return f"option '{first.split(chr(39))[1]}' is there already; write it without +"
    if first.startswith("Could not find"):
        wanted = first.split("'")[1] if "'" in first else first
        return f"unknown option or config '{wanted}'{nearest(wanted, _groups())}"
    if "mandatory value" in text.lower() or "missing mandatory" in text.lower():
        return f"option '{key}' must be given: {key}=..."
    return f"option '{key}': {text}" if key else text


def _nearest_key(key: str, known: DictConfig) -> str:
    """The option that a misspelt one most likely means; empty when none is near."""
    names = [n for n in flatten(OmegaConf.to_container(known, resolve=False)) if n != key]
    parents = {n[:at] for n in names for at, letter in enumerate(n) if letter == "."}
    tails = [n for n in (*names, *parents) if n.rpartition(".")[2] == key.rpartition(".")[2]]
    if tails:
        return f"; did you mean '{tails[0]}'?"
    close = nearest(key, [*names, *parents])
    return close if "did you mean" in close else ""


def flatten(value: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all leaves of nested dicts."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flatten(inner, f"{prefix}{key}.") if isinstance(inner, Mapping) and inner else [f"{prefix}{key}"]


def value_at(config: object, name: str) -> Any:
    """The value under a dotted name in nested dicts; None where there is none.

    Args:
        config: nested dicts.
        name: such as ``optim.dense.lr``.
    """
    for key in name.split("."):
        config = config.get(key) if isinstance(config, Mapping) else None
    return config
