"""Configs: composed by Hydra from ``configs/``, completed by type, changed by overrides.

    train.yaml, data/tiny.yaml, ...  --Hydra--> plain values --overrides--> --types of options.py--> TrainConfig

The dataclasses of ``job/options.py`` are the reference: what they have may stand in every config, and nothing else.
Hydra chooses and merges the files, through its Compose API, so that a command makes no directory of its own and every
rank composes the same values.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf._utils import get_omega_conf_dumper
from omegaconf.errors import OmegaConfBaseException

from recd_dist.errors import ConfigError, nearest
from recd_dist.job.option_types import Kind, UnknownOption, explain_unknown, fit, section
from recd_dist.job.options import EtlConfig, EvaluateConfig, EvaluatedData, ExportConfig, PredictConfig, TrainConfig
from recd_dist.job.overrides import Override, apply_overrides, find_sweep, no_sweeps, parse_override
from recd_dist.job.serve_options import ServeConfig
from recd_dist.redaction.credentials import find_credential
from recd_dist.screen.command_line import command_line, escape_dollars, quote, split_list, unquote

_OF_A_RUN = {"evaluate": EvaluateConfig, "predict": PredictConfig, "export": ExportConfig}
_TYPES: dict[str, type] = {"train": TrainConfig, "etl": EtlConfig, "serve": ServeConfig, **_OF_A_RUN}
CUSTOM = "custom"
"""The model that is a module of the user's own."""
_SEARCH_PATH = "hydra.searchpath"
_NEXT_LINE = "\x85"
_PLAIN = re.compile(r"[\w./-]+|\[.*\]", re.ASCII)
_SQUEEZED = re.compile(r"\w:\S")  # ``{type:TW}``, which Hydra takes and YAML does not


def config_dir() -> Path:
    """The directory of the configs that come with the program: in the checkout, or in the installed package."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package.parent.parent / "configs", package / "configs"):
        if (candidate / "train.yaml").is_file():
            return candidate
    raise ConfigError("the shipped configs are missing; reinstall recd_dist")


def load(name: str, overrides: Sequence[str] = (), user_dir: str | None = None, command: str = "") -> Any:
    """Composes and checks a config.

    Args:
        name: the command, as ``train``.
        overrides: what differs from the files, e.g. ``["data=ebnerd", "batch_size=2048"]``.
        user_dir: the user's own configs, such as ``data/mine.yaml``; this directory is searched first.
        command: the command that was typed, for messages; by default the one of that name.

    Returns:
        The config of that command, such as TrainConfig.

    Raises:
        ConfigError: an option or a config does not exist or does not fit; one line, with the nearest one that exists.
    """
    if user_dir is not None and not Path(user_dir).is_dir():
        raise ConfigError(f"--config-dir {user_dir}: no such directory")
    given = [parse_override(override) for override in overrides]
    folders = [*([user_dir] if user_dir is not None else []), *_search_path(given)]
    groups = _groups(folders) if name != "serve" else []  # whose ``model`` is a directory, and no config of a folder
    chosen = [o for o in given if _is_choice(o, groups)]
    settings = [o for o in given if o not in chosen and o.name != _SEARCH_PATH]
    _refuse_sweeps(command := command or name, overrides, chosen, None)
    _refuse_folders(name, command, chosen)
    composed = _compose(name, chosen, folders, groups)
    if name in _OF_A_RUN:  # a data config says much that is for other commands, or settled by the run
        kept = section(EvaluatedData)
        composed["data"] = {n: v for n, v in dict(composed["data"]).items() if n in kept and n != "path"}
    known = _options_of(name, composed)
    try:
        values = fit(composed, known, "")
        _refuse_sweeps(command, overrides, settings, known)
        apply_overrides(values, settings, known, _read_flow)
    except UnknownOption as error:
        raise ConfigError(_explain_unknown(error, known, command, groups)) from error
    if isinstance(values.get("data"), dict):
        _fill_missing(values["data"])
    typed = _typed(name, values)
    _refuse_credentials("", asdict(typed))
    return typed


def _refuse_credentials(option: str, value: Any) -> None:
    """Refuses a credential in a config, since each value is kept in run directories, manifests and curves."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _refuse_credentials(f"{option}.{name}".removeprefix("."), inner)
    elif what := find_credential(str(value)):
        raise ConfigError(
            f"{option}={value}: holds {what}, and each value of a config is kept in files that others read: "
            "config.yaml, checkpoints, manifests, TensorBoard. Leave it out: libraries find credentials in environment "
            "variables and profile files (docs/security.md)"
        )


def _options_of(name: str, composed: Mapping[str, Any]) -> Kind:
    """The options of a command; those of the model are what its own file and the shipped one of its name have."""
    known = dict(section(_TYPES[name]))
    model = composed.get("model")
    if isinstance(model, Mapping):
        arguments = shipped_model(model.get("name"))
        names = dict.fromkeys(model, Any) | {a: _type_of(v) for a, v in arguments.items()}
        known["model"] = Kind(names=names | ({"options": Any} if model.get("name") == CUSTOM else {}))
    return Kind(names=known)


def shipped_model(name: Any) -> dict[str, Any]:
    """The options of a model with their values in its shipped config; empty where it has none.

    An option that a run of an earlier release lacks has there the value that leaves the model as it was.
    """
    shipped = config_dir() / "model" / f"{name}.yaml"
    return dict(yaml.safe_load(shipped.read_text())) if shipped.is_file() else {}


def _type_of(value: Any) -> Any:
    """The type of an option whose value in a shipped config is known, and nothing else.

    Null stands for names that may be left out, ``{}`` for names by name.
    """
    if value is None:
        return list[str] | None
    if value == {}:
        return dict[str, list[str]]
    return list[type(value[0])] if isinstance(value, list) and value else type(value)  # type: ignore[misc]


def _refuse_folders(name: str, command: str, chosen: Sequence[Override]) -> None:
    """Refuses a choice among shipped configs for a command that has no such section."""
    for given in chosen:
        if given.name not in section(_TYPES[name]) and (config_dir() / given.name).is_dir():
            raise ConfigError(f"unknown option '{given.name}'; every option: recd {command} --options")


def _refuse_sweeps(command: str, overrides: Sequence[str], given: Sequence[Override], known: Kind | None) -> None:
    """Says how to make several runs, where an override asks for them."""
    for override in given:
        if wanted := find_sweep(override, known):
            others = [o for o in overrides if o != override.typed and not o.startswith("run_dir=")]
            variable = re.sub(r"\W", "_", override.path[-1])
            words = [*map(command_line, others), f"{override.name}=${variable}"]
            line = f"recd {command} {' '.join(words)}"
            raise ConfigError(f"{override.typed}: {no_sweeps(command, overrides, variable, wanted, line)}")


def _typed(name: str, values: Mapping[str, Any], source: str = "") -> Any:
    """The config of a command from plain values, with what they leave out by default; ``source`` leads a message."""
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(_TYPES[name]), OmegaConf.create(dict(values))))
    except OmegaConfBaseException as error:
        raise ConfigError(source + _explain(error)) from error


def _fill_missing(data: dict[str, Any]) -> None:
    """Empties options that are missing (``path: ???``): only the ETL needs them, and it asks for them by name."""
    for key, value in data.items():
        if value == "???":
            data[key] = [] if key == "labels" else None
        elif isinstance(value, dict):
            _fill_missing(value)


def to_yaml(config: Any) -> str:
    """A loaded config as YAML with every value resolved, as it is kept in a run directory."""
    values = _escape(asdict(config))
    text = OmegaConf.to_yaml(OmegaConf.create(values))
    if _NEXT_LINE not in text:
        return text
    # PyYAML reads this character back as a space, unless it is written as "\N", with every letter beyond ASCII escaped.
    return yaml.dump(values, Dumper=get_omega_conf_dumper(), allow_unicode=False, sort_keys=False)


def _escape(value: Any) -> Any:
    """The value, with text in it that OmegaConf would take for another option's value made plain text."""
    if isinstance(value, Mapping):
        return {name: _escape(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_escape(inner) for inner in value]
    return escape_dollars(value) if isinstance(value, str) else value


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
        loaded = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        values = loaded if isinstance(loaded, dict) else {}
        return _typed(name, fit(values, _options_of(name, values), ""), f"{path}: ")
    except yaml.YAMLError as error:
        raise ConfigError(_not_yaml(error)) from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {_explain(error)}") from error
    except UnknownOption as error:
        raise ConfigError(f"{path}: {error}; another release may have written it") from error


def _read_flow(text: str) -> Any:
    """Reads a list or a map as YAML writes it on one line, or as Hydra does."""
    try:
        value = OmegaConf.to_container(OmegaConf.create(f"value: {text}"), resolve=False)["value"]
        if not _is_squeezed(value):
            return value
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, KeyError) as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    else:
        problem = "a colon in a map needs a space behind it"
    try:
        override = OverridesParser.create().parse_override(f"value={text}")
    except HydraException:
        raise ValueError(problem) from None
    if override.is_sweep_override():
        raise ValueError("several values, of which recd sweep makes a run each")
    return override.value()


def _is_squeezed(value: Any) -> bool:
    """Whether YAML took ``type:TW`` for one word, which Hydra takes for a name and its value."""
    if isinstance(value, list):
        return any(map(_is_squeezed, value))
    pairs = value.items() if isinstance(value, dict) else ()
    return any((inner is None and _SQUEEZED.search(str(name))) or _is_squeezed(inner) for name, inner in pairs)


def _search_path(given: Sequence[Override]) -> list[str]:
    """The directories that ``hydra.searchpath`` names, as TorchX jobs and ``--config-dir`` do."""
    folders = []
    for override in given:
        if override.name == _SEARCH_PATH:
            listed = override.text.removeprefix("[").removesuffix("]")
            for typed in split_list(listed):
                plain = unquote(typed)
                folders.append((typed if plain is None else plain).removeprefix("file://"))
    for folder in folders:
        if not Path(folder).is_dir():
            raise ConfigError(f"{_SEARCH_PATH}: {folder}: no such directory")
    return folders


def _groups(folders: Sequence[str]) -> list[str]:
    """The folders of configs, from which ``data=tiny`` takes a file: the shipped ones and those of the user."""
    return sorted({p.name for root in (config_dir(), *map(Path, folders)) for p in root.iterdir() if p.is_dir()})


def _is_choice(given: Override, groups: Sequence[str]) -> bool:
    """Whether an override chooses a config of a folder, or speaks to Hydra itself."""
    name = given.path[0]
    in_folder = len(given.path) == 1 and re.split("[/@]", name)[0] in groups
    return in_folder or (name == "hydra" and given.name != _SEARCH_PATH)


def _compose(name: str, chosen: Sequence[Override], folders: Sequence[str], groups: Sequence[str]) -> dict[str, Any]:
    """What Hydra composes from the chosen files, as plain values that are not resolved."""
    options = {group: _configs(group, folders) for group in groups}
    _check_optional(chosen, options)
    searched = [quote(f"file://{Path(folder).resolve()}") for folder in folders]
    overrides = [f"{_SEARCH_PATH}=[{','.join(searched)}]"] if searched else []
    overrides += [_to_hydra(given) for given in chosen]
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(config_dir()), version_base="1.3"):
        try:
            composed = OmegaConf.to_container(compose(config_name=name, overrides=overrides), resolve=False)
        except MissingConfigException as error:
            raise ConfigError(_missing(error, options)) from error
        except yaml.YAMLError as error:
            raise ConfigError(_not_yaml(error)) from error
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(_explain(error)) from error
    return {str(key): value for key, value in composed.items()} if isinstance(composed, dict) else {}


def _to_hydra(given: Override) -> str:
    """A choice in Hydra's own grammar, which wants a + before a folder that no config names."""
    text = given.text if _PLAIN.fullmatch(given.text) or not given.text else quote(given.text)
    own = given.path[0] != "hydra" and not (config_dir() / re.split("[/@]", given.name)[0]).is_dir()
    return f"{'~' if given.sign == '~' else '+' * own}{given.name}={text}"


def _configs(group: str, folders: Sequence[str]) -> set[str]:
    """Names of the configs of a folder, those of the user included."""
    found = (root / group for root in (config_dir(), *map(Path, folders)))
    return {path.stem for folder in found if folder.is_dir() for path in folder.glob("*.yaml")}


def _check_optional(chosen: Sequence[Override], options: Mapping[str, set[str]]) -> None:
    """Refuses an experiment or a data config that does not exist: Hydra would ignore one that is optional."""
    for given in chosen:
        known = options.get(given.name, set()) if given.name in ("experiment", "data") else None
        if given.name == "data" and given.sign != "~" and given.text.lower() == "null":
            raise ConfigError(f"{given.typed}: every command reads data; there are: {', '.join(sorted(known or ()))}")
        if known is not None and given.text not in ("", "null", *known) and not given.text.startswith("["):
            raise ConfigError(f"{given.name}={given.text}: no such config{nearest(given.text, known)}")


def _missing(error: MissingConfigException, options: Mapping[str, set[str]]) -> str:
    """Says which config does not exist, as in ``data=ebnrd``, and which ones do."""
    wanted = str(error.missing_cfg_file or "")
    group, _, option = wanted.rpartition("/")
    if not options.get(group):
        return f"no config group '{group or option}'{nearest(group or option, options)}"
    return f"{group}={option}: no such config{nearest(option, options[group])}"


def _explain_unknown(error: UnknownOption, known: Kind, command: str, groups: Sequence[str]) -> str:
    """Says which option does not exist, and which option or folder of configs was meant."""
    hint = nearest(error.name, groups) if "." not in error.name else ""
    said = explain_unknown(error.name, known, command)
    return said if "did you mean" in said or "did you mean" not in hint else f"unknown option '{error.name}'{hint}"


def _not_yaml(error: yaml.YAMLError) -> str:
    """Says in one line where a file stops being YAML."""
    mark = getattr(error, "problem_mark", None)
    where = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}" if mark else "a config"
    return f"{where}: not YAML ({getattr(error, 'problem', None) or str(error).splitlines()[0]})"


def _explain(error: Exception) -> str:
    """Says in one line what Hydra and OmegaConf say in many."""
    cause: BaseException = error
    while cause.__cause__ is not None and not getattr(cause, "full_key", None):
        cause = cause.__cause__
    key = str(getattr(cause, "full_key", None) or "")
    text = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
    if found := re.search("Interpolation key '(.*?)' not found", text):
        return f"option '{key}': ${{{found[1]}}} names no option; the text itself is written \\${{{found[1]}}}"
    if "Recursive interpolation" in text:
        return f"option '{key}': its value holds itself"
    if "mandatory value" in text.lower() or "missing mandatory" in text.lower():
        return f"option '{key}' must be given: {key}=..."
    return f"option '{key}': {text}" if key else text
