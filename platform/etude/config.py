"""How a configuration is read: defaults, then YAML files, then the environment, then the command line.

Sections are pydantic models that live beside what they configure; `etude.experiments` composes them.

    settings = load(Experiment, ["--config", "my.yaml", "--student.width", "0.6"])

In YAML, `${NAME}` is replaced from the environment or a `.env` file, in the working folder, beside the YAML
file or in ETUDE_HOME: the places for passwords and tokens. `ETUDE_STUDENT__WIDTH=0.6` sets the same key as
`--student.width 0.6`.
"""

import argparse
import difflib
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from dotenv import load_dotenv
from pydantic import BaseModel, BeforeValidator, ConfigDict, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from etude.errors import UserError

MASK = "********"
PRIVATE_ENVIRONMENT = "ETUDE_PRIVATE_ENVIRONMENT"  # names a file of variables that only its owner may read
log = logging.getLogger(__name__)
_loading = ContextVar("loading", default=False)


def _secret_text(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value
    if not isinstance(value, str):
        raise ValueError("it must be text: put it into quotes")
    if not value or not value.isprintable():
        raise ValueError("it is empty" if not value else "it holds a line break or another control character")
    return value


Secret = Annotated[SecretStr, BeforeValidator(_secret_text)]  # a password, a token, a DSN


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values do not change once checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Settings(BaseSettings):
    """The top of a configuration: what a job's command line, environment and files fill in."""

    model_config = SettingsConfigDict(
        extra="forbid",
        env_prefix="ETUDE_",
        env_nested_delimiter="__",
        cli_exit_on_error=False,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        nested_model_default_partial_update=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # What code passes to a constructor, a trial's draws for instance, is final: only `load` reads around.
        # There, init_settings are the YAML files, and the command line goes before both.
        return (env_settings, init_settings) if _loading.get() else (init_settings,)


S = TypeVar("S", bound=Settings)


def default_home() -> Path:
    """Where all that is made lies: ETUDE_HOME, or a folder of its own among the user's data."""
    return Path(os.environ.get("ETUDE_HOME", "~/.local/share/etude")).expanduser().absolute()


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, except that 1e-4 is a number as in YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|\.[0-9_]+(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, with `${NAME}` replaced from the environment."""
    try:
        text = path.expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the configuration file {path}: {error}") from error
    try:
        data = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        # Its own text quotes the file, and with it whatever secret stands there.
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark else ""
        raise UserError(f"{path} is not valid YAML{place}: {problem}") from None
    if not isinstance(data, dict | None):
        raise UserError(f"{path} must hold keys and values, not a {type(data).__name__}")
    substituted: dict[str, Any] = _substitute(data or {}, path)
    return substituted


def _substitute(value: Any, path: Path) -> Any:
    """`${NAME}` from the environment, `$$` as a dollar sign; any other dollar sign is one already."""
    if isinstance(value, dict):
        return {key: _substitute(item, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_substitute(item, path) for item in value]
    if not isinstance(value, str):
        return value

    def replaced(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "$"
        if name not in os.environ:
            raise UserError(f"{path} uses ${{{name}}}: set {name} in the environment or in .env")
        return os.environ[name]

    return re.sub(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)\}", replaced, value)


def load(
    settings: type[S],
    argv: Sequence[str],
    defaults: Mapping[str, Path] | None = None,
) -> S:
    """Read a job's settings from defaults, the files that `--config` names, environment and command line.

    `defaults` maps a section to the file that is read first unless a `--config` file has that section. With
    `--section audio`, only the files' section `audio` is meant, and the options that begin with `--audio.`.
    Raises UserError that names the key, and for an unknown key the nearest known one. `--help` prints
    every key with its default and exits.
    """
    if private := os.environ.get(PRIVATE_ENVIRONMENT):
        load_dotenv(private, override=True, interpolate=False)
    chosen = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chosen.add_argument("--config", action="append", type=Path, default=[])
    chosen.add_argument("--section")
    paths, rest = chosen.parse_known_args(list(argv))
    rest = [_with_underscores(word) for word in rest]
    for folder in (Path.cwd(), *(path.expanduser().parent for path in paths.config), default_home()):
        load_dotenv(folder / ".env", override=False)
    for sentence in _strange_names(settings):
        log.warning(sentence)
    given: dict[str, Any] = {}
    for path in paths.config:
        found = read_yaml(path)
        given = merge(given, found.get(paths.section) or {} if paths.section else found)
    if paths.section:
        rest = options_of(paths.section, rest)
    data: dict[str, Any] = {}
    for section, path in (defaults or {}).items():
        if section not in given:
            data = merge(data, read_yaml(path))
    data = merge(data, given)
    token = _loading.set(True)
    try:
        return CliApp.run(settings, cli_args=rest, **data)
    except SettingsError as error:
        raise UserError(_explain_cli(settings, error)) from None
    except ValidationError as error:
        raise UserError(explain(settings, error)) from None
    finally:
        _loading.reset(token)


def _with_underscores(word: str) -> str:
    """`--skip-training` as `--skip_training`, and `--no-skip-training` as the switch is turned off."""
    found = re.fullmatch(r"(--(?:no-)?)([^=]*)(.*)", word, re.DOTALL)
    return found[1] + found[2].replace("-", "_") + found[3] if found else word


def options_of(section: str, argv: Sequence[str]) -> list[str]:
    """`--student.width 0.6` for `--audio.student.width 0.6` with the section `audio`; others are left out."""
    prefix = f"--{section}."
    groups = _grouped(argv)
    return [
        word.replace(prefix, "--", 1) for group in groups if group[0].startswith(prefix) for word in group
    ]


def options_outside(sections: Sequence[str], argv: Sequence[str]) -> list[str]:
    """The options that begin with none of the sections' names."""
    prefixes = tuple(f"--{section}." for section in sections)
    return [word for group in _grouped(argv) if not group[0].startswith(prefixes) for word in group]


def _grouped(argv: Sequence[str]) -> list[list[str]]:
    """Each option with the words that follow it."""
    groups: list[list[str]] = []
    for word in argv:
        if word.startswith("--") or not groups:
            groups.append([])
        groups[-1].append(word)
    return groups


def _strange_names(model: type[BaseModel]) -> Iterator[str]:
    """One sentence for each ETUDE_... variable that sets nothing here."""
    known = set(keys(model))
    for name in sorted(os.environ):
        key = name.removeprefix("ETUDE_").lower().replace("__", ".")
        if not name.startswith("ETUDE_") or name in ("ETUDE_HOME", PRIVATE_ENVIRONMENT):
            continue
        if not any(k == key or k.startswith(f"{key}.") or key.startswith(f"{k}.") for k in known):
            yield f"{name} is set and has no effect here: {unknown_key(model, key)}"


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, mapping by mapping."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def with_overrides(data: Mapping[str, Any], dotted: Mapping[str, Any]) -> dict[str, Any]:
    """`data` with `{"student.width": 0.6}` laid on it."""
    result = dict(data)
    for key, value in dotted.items():
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        result = merge(result, nested)
    return result


def keys(model: type[BaseModel], prefix: str = "", secret: bool = False) -> Iterator[str]:
    """Every dotted key that a model knows, those of all members of a union included; or its secrets only."""
    for name, field in model.model_fields.items():
        # A list's items have no keys of their own, but they may hold secrets.
        members = _nested(field.annotation) if secret else (field.annotation, *get_args(field.annotation))
        nested = [m for m in members if _is_model(m)]
        if not nested and (not secret or _holds_secret(field.annotation)):
            yield prefix + name
        for member in nested:
            yield from keys(member, f"{prefix}{name}.", secret)


def _nested(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in get_args(annotation):
        yield from _nested(inner)


def _holds_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(_holds_secret(part) for part in get_args(annotation))


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def unknown_key(model: type[BaseModel], key: str) -> str:
    """One sentence about a key that is none, with the nearest that is one."""
    known = sorted(set(keys(model)))
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5) or [
        k for k in known if k.endswith("." + key.split(".")[-1])
    ]
    hint = f"did you mean {near[0]}?" if near else "--help lists all keys"
    return f"there is no configuration key {key}; {hint}"


def explain(model: type[BaseModel], error: ValidationError) -> str:
    """The first thing wrong with a configuration, as one sentence that shows no secret."""
    details = error.errors(include_url=False)
    first = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
    key, members = _key_of(model, [str(part) for part in first["loc"]])
    secrets = set(keys(model, secret=True))
    if first["type"] == "extra_forbidden":
        if key in set(keys(model)) and members:
            section, member = members[-1]
            return f"{key} does not go with the chosen {section}.name ({member}); leave it out"
        return unknown_key(model, key)
    if first["type"] == "missing":
        if key in secrets:
            return f"{key} is not set: put it into .env as ETUDE_{key.upper().replace('.', '__')}=..."
        return f"{key} is not set; give --{key} VALUE"
    if first["type"] == "union_tag_not_found":
        return f"{key}.name is not set; give --{key}.name VALUE"
    if first["type"] == "union_tag_invalid":
        return f"{key}.name is none of {first['ctx']['expected_tags']}"
    message = first["msg"].removeprefix("Value error, ")
    said = f"{key or 'the configuration'}: {message[0].lower()}{message[1:]}"
    # What stands beside a secret may be one that was put into the wrong place.
    beside = f"{key.split('.')[0]}."
    if any(secret == key or secret.startswith(beside) for secret in secrets):
        return said
    if isinstance(first["input"], Mapping | BaseModel):
        return said
    return f"{said}, not {mask(first['input'])!r}"


def _key_of(model: type[BaseModel], location: Sequence[str]) -> tuple[str, list[tuple[str, str]]]:
    """The dotted key at a location, and on the way the sections that are unions with the member chosen.

    A union puts the name of its member into the location; it is not part of the key.
    """
    parts: list[str] = []
    members: list[tuple[str, str]] = []
    within: list[type[BaseModel]] = [model]
    for part in location:
        fields = [m.model_fields[part] for m in within if part in m.model_fields]
        if not fields and part in {tag for m in within for tag in _tags(m)}:
            members.append((".".join(parts), part))
            continue
        parts.append(part)
        within = [m for f in fields for m in (f.annotation, *get_args(f.annotation)) if _is_model(m)]
    return ".".join(parts), members


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    field = model.model_fields.get("name")
    return get_args(field.annotation) if field else ()


def _explain_cli(model: type[BaseModel], error: SettingsError) -> str:
    found = re.search(r"unrecognized arguments: (.*)", str(error))
    if not found:
        field = re.search(r'field "([\w.]+)"', str(error))  # the rest may quote what was given
        name = field[1] if field else "an option"
        return f"{name} cannot be read: set its keys one by one, as --help lists them"
    flag = found.group(1).split()[0]
    if flag.lower() in ("true", "false"):
        return f"{flag!r} is not expected here: a switch such as --plan is turned off by --no-plan"
    if not flag.startswith("--"):
        return (
            f"{flag!r} is not expected here: options look like --student.width 0.6, and words that belong "
            "together stand in quotes"
        )
    return unknown_key(model, flag.removeprefix("--").split("=")[0])


def mask(value: Any) -> Any:
    """`value` ready to be printed or stored: plain types, every secret replaced."""
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, BaseModel):
        return {name: mask(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(key): mask(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [mask(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"(?<=://)[^/@\s]+(?=@)", MASK, value)
    return str(value) if isinstance(value, Path) else value


def save(config: BaseModel, path: Path) -> None:
    """Write the resolved configuration as YAML, its secrets left out: they come from .env again."""
    text = yaml.safe_dump(mask(without_secrets(config)), sort_keys=False)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text.replace("$", "$$"))  # `read_yaml` substitutes names
    os.replace(temporary, path)


def without_secrets(config: BaseModel) -> dict[str, Any]:
    """The fields of a model, nested models as mappings, without those that hold a secret."""
    values = {name: getattr(config, name) for name in type(config).model_fields}
    return {
        name: _models_without_secrets(value)
        for name, value in values.items()
        if not isinstance(value, SecretStr)
    }


def _models_without_secrets(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return without_secrets(value)
    if isinstance(value, list | tuple):
        return [_models_without_secrets(item) for item in value]
    return value
