"""The `unembed` command: one sub-command is one plain function of the same name; this file only turns flags into calls.

Every flag is also a key of the YAML file given by `--config`. Errors that the user can mend are one line on standard
error with exit code 2; a traceback appears only with `--debug`.
"""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from jsonargparse import ActionConfigFile, ArgumentParser, set_parsing_settings

import unembed
from unembed.cli.console import typed
from unembed.errors import UnembedError

COMMANDS = {
    "invert": "turn vectors (or a text's vector) back into text",
    "embed": "turn texts into vectors",
    "hypothesize": "write the first hypotheses that a corrector is trained on",
    "train": "train an inverter (beside --help, --family vec2text, nanov2t, causal or davae shows that family's keys)",
    "evaluate": "measure an inverter on texts it has not seen, beside two controls",
    "audit": "say what the vectors of a store give away, as a report",
    "defend": "compare defences that cost retrieval equally much, against every attacker",
    "canary": "plant invented secrets among vectors, and count how many an inverter reads",
    "slots": "find what a record says where its wording is known: candidates for the gaps of a template",
    "membership": "ask whether texts are in a store",
    "calibrate": "measure what an inverter's results are worth, so that each says how far to believe it",
    "interpolate": "write the texts on the way between two vectors",
    "models": "list the models that are known, describe, fetch, convert or export one",
    "push": "publish a model on the Hugging Face hub",
    "demo": "show it on a few sentences",
}


WORDS = {
    "models": {
        "action": "list, info, path, pull, convert or export",
        "name": "a shipped or public model, a folder, a hub id, or a pair",
        "destination": "for pull and convert: the folder to be made",
    },
    "canary": {"action": "make, embed, find or score", "file": "of the canaries, JSON Lines"},
    "push": {"folder": "of the model, or of the run that trained it", "name": "OWNER/NAME on the hub"},
}
"""Commands that read better with words than with flags: their words, in order."""


_NUMBER = re.compile(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?")

ALIASES = {"audit": {"--vectors": "--store", "--fail_on": "--fail_on+"}}
"""Other spellings of a command's flags; `+` lets one be given several times."""


class Parser(ArgumentParser):
    """Says what is wrong in one line instead of printing the whole usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if ex is not None and os.environ.get("JSONARGPARSE_DEBUG"):
            raise ex
        fail(f"{' '.join(message.split())} (see {self.prog} --help)")


def fail(message: str, code: int = 2) -> NoReturn:
    sys.stderr.write(f"unembed: error: {message}\n")
    raise SystemExit(code)


def build_parser(arguments: Sequence[str] = ()) -> ArgumentParser:
    """The parser of all commands; which recipes `train` reads depends on the command line."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)  # what stands below a recipe's field is its help
    parser = Parser(prog="unembed", description="Turn text embeddings back into text.", version=unembed.__version__)
    commands = parser.add_subcommands(dest="command", metavar="COMMAND")
    for name, summary in COMMANDS.items():
        function = getattr(importlib.import_module(f"unembed.cli.{name}"), name)
        command = Parser(description=f"unembed {name}: {summary}.")
        command.add_argument("--config", action=ActionConfigFile, help="YAML file whose keys are these flags")
        command.add_argument("--debug", action="store_true", help="show tracebacks")
        if name == "train":
            from unembed.cli.train import TRANSLATIONS, config_class

            command.add_class_arguments(config_class(arguments))
            for flag, meaning in TRANSLATIONS.items():
                command.add_argument(flag, help=meaning)
        else:
            words = WORDS.get(name, {})
            for word, explanation in words.items():
                default = inspect.signature(function).parameters[word].default
                optional = {} if default is inspect.Parameter.empty else {"nargs": "?", "default": default}
                command.add_argument(word, help=explanation, **optional)
            command.add_function_arguments(function, skip=set(words))
        for action in command._actions:
            if getattr(action, "_typehint", None) is bool:  # --quiet alone says it, as well as --quiet true
                action.nargs, action.const = "?", True
        commands.add_subcommand(name, command, help=summary)
    return parser


def spell(arguments: Sequence[str]) -> list[str]:
    """Accept --like-this for --like_this, and -o, -m, -q for --output, --model, --quiet."""
    short = {"-o": "--output", "-m": "--model", "-q": "--quiet"}
    aliases = ALIASES.get(arguments[0], {}) if arguments else {}
    out = []
    for argument in arguments:
        if re.match(r"--[A-Za-z][\w.-]*(=|$)", argument):
            name, mark, value = argument.partition("=")
            name = name[:2] + name[2:].replace("-", "_")
            argument = aliases.get(name, name) + mark + value
        out.append(short.get(argument, argument))
    return out


def bracketed(arguments: Sequence[str]) -> list[str]:
    """Accept 1,2,3 and a lone name for a flag that takes a list, beside [1, 2, 3]."""
    if not arguments or arguments[0] not in COMMANDS:
        return list(arguments)
    parameters = inspect.signature(
        getattr(importlib.import_module(f"unembed.cli.{arguments[0]}"), arguments[0])
    ).parameters
    flags = {f"--{name}" for name, parameter in parameters.items() if "list[" in str(parameter.annotation)}
    out = list(arguments)
    for i, argument in enumerate(out):
        flag, mark, value = argument.partition("=")
        at = i if mark else i + 1
        value = value if mark else "".join(out[at : at + 1])
        if flag not in flags or not value or value[0] in "[-" or os.path.exists(value):
            continue
        items = ", ".join(item if _NUMBER.fullmatch(item) else json.dumps(item) for item in value.split(","))
        out[at] = f"{flag}=[{items}]" if mark else f"[{items}]"
    return out


def run(arguments: Sequence[str]) -> int:
    arguments = bracketed(spell(arguments))
    if arguments[:1] == ["train"] and "--print_config" not in arguments:  # which asks only what was understood
        from unembed.cli.train import config_class, translated

        if recipe := translated(arguments):
            sys.stdout.write(recipe)
            return 0
    parser = build_parser(arguments)
    parsed = parser.parse_args(arguments)
    name = parsed.command
    if name is None:
        fail(f"no command given: choose one of {', '.join(COMMANDS)} (see unembed --help)")
    options = parsed[name]
    function = getattr(importlib.import_module(f"unembed.cli.{name}"), name)
    if name == "train":
        kind = config_class(arguments)
        build = getattr(parser, "instantiate", None) or parser.instantiate_classes  # its name before 4.49
        built = build(parsed)[name]
        return function(kind(**{key: built[key] for key in kind.__dataclass_fields__})) or 0
    keywords: dict[str, Any] = {key: value for key, value in vars(options).items() if key not in ("config", "debug")}
    if "text" in keywords and (texts := typed(arguments, "--text")):
        keywords["text"] = texts[-1]
    return function(**keywords) or 0


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point. Exit codes: 0 done, 1 a check failed, 2 the user's mistake, 130 stopped by Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)  # of other packages, warnings alone
    logging.getLogger("unembed").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = run(arguments)
        sys.stdout.flush()
    except UnembedError as error:
        if "--debug" in arguments:
            raise
        fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("unembed: stopped; what was finished is kept, and the same command goes on from there\n")
        code = 130
    except BrokenPipeError:  # the reader of our output went away (unembed … | head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except MemoryError:
        fail("out of memory: lower --targets_at_once or --sequence_beam_width", 1)
    raise SystemExit(code)


def _terminate(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
