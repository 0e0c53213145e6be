"""``skqeq completion``: a script that lets a shell complete commands and options."""

import argparse
import shlex

from .parser import build_parser

BASH = """\
_skqeq() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} words=
    if [[ $COMP_CWORD == 1 ]]; then
        words={commands}
    elif [[ $word == -* ]]; then
        case ${{COMP_WORDS[1]}} in
{options}
        esac
    else
        case "${{COMP_WORDS[1]}} $previous" in
{values}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o bashdefault -o default -F _skqeq skqeq"""
# zsh understands scripts for bash.
ZSH = """\
(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit; }}
autoload -Uz bashcompinit && bashcompinit
{script}"""


def run(args):
    """Print the script."""
    commands = subcommands(build_parser())
    print({"bash": bash_script, "zsh": zsh_script, "fish": fish_script}[args.shell](commands))


def subcommands(parser):
    """A dict of the parsers of all commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices
    raise ValueError("the parser has no commands")


def bash_script(commands):
    """Script for bash; where there is nothing to complete, it completes names of files."""
    options, values = [], []
    for command, parser in commands.items():
        names = [name for action in parser._actions for name in action.option_strings]
        options.append(f"            {command}) words={shlex.quote(' '.join(names))} ;;")
        for action in parser._actions:
            if action.choices:
                # A positional argument follows the name of the command.
                for name in action.option_strings or [command]:
                    words = shlex.quote(" ".join(action.choices))
                    values.append(f'            "{command} {name}") words={words} ;;')
    return BASH.format(
        commands=shlex.quote(" ".join([*commands, "--help", "--version"])),
        options="\n".join(options),
        values="\n".join(values),
    )


def zsh_script(commands):
    """Script for zsh."""
    return ZSH.format(script=bash_script(commands))


def fish_script(commands):
    """Script for fish."""
    lines = []
    for command, parser in commands.items():
        summary = shlex.quote(parser.description.partition(".")[0])
        lines.append(f"complete -c skqeq -n __fish_use_subcommand -f -a {command} -d {summary}")
        for action in parser._actions:
            words = ["complete", "-c", "skqeq", "-n", f"__fish_seen_subcommand_from {command}"]
            for name in action.option_strings:
                words += ["-l" if name.startswith("--") else "-s", name.lstrip("-")]
            if action.choices:
                words += ["-x", "-a", " ".join(action.choices)]
            elif not action.option_strings:
                continue  # names of files, which fish completes without advice
            elif action.nargs != 0:
                words.append("-r")
            words += ["-d", (action.help or "").partition(" (default")[0].partition(";")[0]]
            lines.append(shlex.join(words))
    return "\n".join(lines)
