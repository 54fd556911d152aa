"""Configs: composed by Hydra from ``configs/`` and overrides, checked by type.

The dataclasses of ``job/options.py`` are the reference; YAML holds values. Hydra is used through its Compose API, so
that a command makes no directory of its own and every rank composes the same values.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recd_dist.errors import ConfigError, nearest
from recd_dist.job.dotted_names import dotted_names
from recd_dist.job.options import Data, EtlConfig, EvaluateConfig, TrainConfig

_OF_THE_USERS = re.compile(r"(data\.(features|groups|tables)|plan\.(tables|send))(\.\w|=)")
"""Maps whose keys the user chooses: an override may add to them without the + that Hydra asks for."""
_HOME = re.compile(r"([^=]+=)~(?=/|$)")
"""``data.path=~/logs``: a shell does not expand such a ~, nor does Hydra."""
_MASTER = re.compile(r"(spark\.master=)(?!['\"])(.+)")
"""``spark.master=local[2]``: in Hydra's grammar a bracket begins a list, so the value is quoted."""
_SEARCHED = re.compile(r"file://([^,\]]+)")
_FEATURE_OPTIONS = ("table", "kind", "weights", "window", "transforms")
_TABLE_OPTIONS = ("num_embeddings", "dim", "hashed")
_TYPES: dict[str, type] = {"train": TrainConfig, "etl": EtlConfig, "evaluate": EvaluateConfig}


def config_dir() -> Path:
    """The directory of the configs that come with the program: in the checkout, or in the installed package."""
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
        user_dir: the user's own configs, such as ``data/mine.yaml``; this directory is searched first.

    Returns:
        TrainConfig, EtlConfig or EvaluateConfig.

    Raises:
        ConfigError: an option or a config does not exist or does not fit; one line, with the nearest one that exists.
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
    """Checks what is said of single features and tables: the user names these maps, so Hydra cannot check them."""
    for part, known in (("features", _FEATURE_OPTIONS), ("tables", _TABLE_OPTIONS)):
        for name, given in getattr(data, part).items():
            if given is not None and not isinstance(given, Mapping):
                raise ConfigError(f"data.{part}.{name}={given}: must be a map of {', '.join(known)}")
            for option in given or {}:
                if option not in known:
                    raise ConfigError(f"unknown option 'data.{part}.{name}.{option}'{nearest(str(option), known)}")


def _fill_missing(data: DictConfig) -> None:
    """Empties options that are missing (``path: ???``): only the ETL needs them, and it asks for them by name."""
    for key in list(data):
        if OmegaConf.is_missing(data, key):
            data[key] = [] if key == "labels" else None
        elif isinstance(OmegaConf.to_container(data, throw_on_missing=False, resolve=False).get(key), dict):
            _fill_missing(data[key])


def to_yaml(config: Any) -> str:
    """A loaded config as YAML with every value resolved, as it is kept in a run directory."""
    return OmegaConf.to_yaml(OmegaConf.structured(config), resolve=True)


def from_yaml(name: str, path: Path) -> Any:
    """Reads a config that ``to_yaml`` wrote.

    Args:
        name: ``train``, ``etl`` or ``evaluate``.
        path: the file.

    Raises:
        ConfigError: there is no such file, or it is no such config.
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
    """Says in one line where a file stops being YAML."""
    mark = getattr(error, "problem_mark", None)
    where = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}" if mark else "a config"
    return f"{where}: not YAML ({getattr(error, 'problem', None) or str(error).splitlines()[0]})"


def _known(name: str, chosen: list[str]) -> DictConfig:
    """The options that exist, for suggestions; empty where even the chosen configs do not compose."""
    try:
        return compose(config_name=name, overrides=chosen)
    except (HydraException, OmegaConfBaseException):
        return DictConfig({})


def _check_experiment(overrides: list[str], user_dir: str | None) -> None:
    """Refuses an experiment that does not exist: Hydra would ignore it, since it is optional."""
    named = [value for o in overrides for key, _, value in [o.partition("=")] if key.lstrip("+") == "experiment"]
    for name in named:
        options = _options("experiment", user_dir, overrides)
        if name not in ("", "null", *options) and not name.startswith("["):
            raise ConfigError(f"experiment={name}: no such config{nearest(name, options)}")


def _options(group: str, user_dir: str | None, overrides: Sequence[str] = ()) -> set[str]:
    """Names of the configs of a group, those of the user included."""
    own = [user_dir] if user_dir else []
    own += [path for o in overrides if o.startswith("hydra.searchpath=") for path in _SEARCHED.findall(o)]
    folders = [config_dir() / group, *(Path(path) / group for path in own)]
    return {p.stem for folder in folders if folder.is_dir() for p in folder.glob("*.yaml")}


def _missing(error: MissingConfigException, user_dir: str | None, overrides: Sequence[str]) -> str:
    """Says which config does not exist, as in ``data=ebnrd``, and which ones do."""
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
    """Says in one line what Hydra and OmegaConf say in many."""
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
    names = [n for n in dotted_names(OmegaConf.to_container(known, resolve=False)) if n != key]
    parents = {n[:at] for n in names for at, letter in enumerate(n) if letter == "."}
    tails = [n for n in (*names, *parents) if n.rpartition(".")[2] == key.rpartition(".")[2]]
    if tails:
        return f"; did you mean '{tails[0]}'?"
    close = nearest(key, [*names, *parents])
    return close if "did you mean" in close else ""
