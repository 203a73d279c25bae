"""Completion in the shell: a script that knows all commands, options and names, so that nothing is loaded for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from rwalk.cli.options import examples
from rwalk.cli.tuning import SEARCHES
from rwalk.errors import closest
from rwalk.experiments.backends import BACKENDS
from rwalk.experiments.methods import METHODS
from rwalk.experiments.reproduce import tables
from rwalk.experiments.runner import OPTIMIZERS
from rwalk.experiments.tune import BETTER
from rwalk.models.registry import HEADS, MODELS
from rwalk.replay.samplers import SAMPLERS
from rwalk.streams import benchmarks

__all__ = ["completing"]

completing = typer.Typer()

SHELLS = ("bash", "zsh", "fish")

BASH = """\
_rwalk() {
  local current="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" words=""
  case "${COMP_CWORD}:${COMP_WORDS[1]}:$before" in
    1:*) words="@COMMANDS@" ;;
@VALUES@
    *:reproduce:reproduce) words="@TABLES@" ;;
    *:completion:completion) words="@SHELLS@" ;;
    *) case "${COMP_WORDS[1]}" in
@OPTIONS@
    esac ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _rwalk rwalk
"""


@completing.command(
    epilog=examples(
        "rwalk completion bash > ~/.local/share/bash-completion/completions/rwalk",
        "rwalk completion zsh >> ~/.zshrc",
        "rwalk completion fish > ~/.config/fish/completions/rwalk.fish",
    )
)
def completion(
    context: typer.Context, shell: Annotated[str, typer.Argument(help=f"One of {', '.join(SHELLS)}.")]
) -> None:
    """Write the completion script of a shell to standard output."""
    if shell not in SHELLS:
        raise ValueError(f"{shell!r}{closest(shell, SHELLS)}: choose one of {', '.join(SHELLS)}")
    commands = _commands(context.find_root().command)
    typer.echo(_fish(commands) if shell == "fish" else _bash(commands, zsh=shell == "zsh"), nl=False)


def _commands(root: Any) -> dict[str, list[str]]:
    """The options of each command."""
    found = {}
    for name, command in sorted(root.commands.items()):
        options = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
        found[name] = [*sorted(options), "--help"]
    return found


def _values() -> dict[str, Sequence[str]]:
    """What may follow an option."""
    return {
        "--benchmark": list(benchmarks()),
        "--method": list(METHODS),
        "--methods": list(METHODS),
        "--model": list(MODELS),
        "--heads": list(HEADS),
        "--sampler": list(SAMPLERS),
        "--optimizer": list(OPTIMIZERS),
        "--metric": list(BETTER),
        "--backend": list(BACKENDS),
        "--search": list(SEARCHES),
    }


def _bash(commands: dict[str, list[str]], *, zsh: bool) -> str:
    values = "\n".join(f'    *:{option}) words="{_words(known)}" ;;' for option, known in _values().items())
    options = "\n".join(f'      {name}) words="{_words(known)}" ;;' for name, known in commands.items())
    script = BASH.replace("@VALUES@", values).replace("@OPTIONS@", options)
    script = script.replace("@COMMANDS@", _words([*commands, "--help", "--version"]))
    script = script.replace("@TABLES@", _words(tables())).replace("@SHELLS@", _words(SHELLS))
    return f"autoload -Uz compinit bashcompinit && compinit && bashcompinit\n{script}" if zsh else script


def _fish(commands: dict[str, list[str]]) -> str:
    values = _values()
    lines = [f"complete -c rwalk -n __fish_use_subcommand -f -a '{_words(commands)}'"]
    for name, options in commands.items():
        seen = f"-n '__fish_seen_subcommand_from {name}'"
        for option in options:
            known = f" -x -a '{_words(values[option])}'" if option in values else ""
            lines.append(f"complete -c rwalk {seen} -l {option[2:]}{known}")
    lines.append(f"complete -c rwalk -n '__fish_seen_subcommand_from reproduce' -f -a '{_words(tables())}'")
    lines.append(f"complete -c rwalk -n '__fish_seen_subcommand_from completion' -f -a '{_words(SHELLS)}'")
    return "\n".join(lines) + "\n"


def _words(words: Iterable[str]) -> str:
    return " ".join(words)
