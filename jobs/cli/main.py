"""The command ``dsmi-zoo``; commands import what they need, so that ``--help`` is fast."""

import os
import signal
import sys
import warnings

import click

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import one_line

from ..terminal import accept_any_text, print_error, show_details, show_log
from .look import (
    catalog_group,
    convert_command,
    doctor_command,
    measure_command,
    pairs_command,
    report_command,
    status_command,
    time_command,
)
from .run import (
    finetune_command,
    merge_command,
    prefetch_command,
    remeasure_command,
    rerun_command,
    run_command,
    submit_group,
    validate_command,
)
from .share import export_command, publish_command, verify_command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="dsmi-zoo", prog_name="dsmi-zoo")
@click.option("-v", "--verbose", is_flag=True, help="Show more detail, also from the workers.")
def cli(verbose: bool) -> None:
    """Benchmark a model zoo by its representations: diffusion spectral entropy (DSE) and mutual information (DSMI).

    \b
    First steps:
      dsmi-zoo run                         measure the digits zoo, write runs/digits/report/index.html
      dsmi-zoo status --out runs/digits    what is done, failed, missing
      dsmi-zoo measure Z.npy y.npy         measure an embedding of your own
    """
    if verbose:
        show_details()


for command in (
    run_command,
    submit_group,
    rerun_command,
    remeasure_command,
    finetune_command,
    merge_command,
    prefetch_command,
    status_command,
    report_command,
    pairs_command,
    export_command,
    time_command,
    convert_command,
    publish_command,
    verify_command,
    validate_command,
    measure_command,
    catalog_group,
    doctor_command,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line; report a user's error in one line and exit with code 2."""
    signal.signal(signal.SIGTERM, _interrupt)
    show_log()
    accept_any_text()
    warnings.showwarning = lambda message, *_where: print_error(str(message))
    try:
        code = cli.main(standalone_mode=False)
        sys.stdout.flush()
        sys.stderr.flush()
        # Everything is written and closed. Thread pools of native libraries may abort while Python shuts down, which
        # would turn a finished run into a failed command.
        os._exit(code or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        sys.exit(2)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "dsmi-zoo"
        _exit_with(f"{one_line(_message(error)).rstrip('.')}{_usage(error)}; see: {command} --help")
    except (InputError, OSError) as error:
        _exit_with(one_line(str(error)))
    except (KeyboardInterrupt, click.Abort):
        if sys.stderr.isatty():
            print(file=sys.stderr)  # after the terminal's ^C
        print_error("stopped; what is finished is kept, and the same command goes on from here")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(130)  # as above: workers and locks are closed, and thread pools may wait for ever


def _interrupt(*_: object) -> None:
    """Handle SIGTERM, by which batch systems end jobs, like Ctrl-C; once, since shell and command may both get it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _message(error: click.ClickException) -> str:
    """Return click's message, preceded by the option's name if it is about an option's value."""
    option = getattr(error, "param", None)
    if isinstance(error, click.BadParameter) and isinstance(option, click.Option) and error.message:
        return f"{option.opts[0]}: {error.message}"
    return error.format_message()


def _usage(error: click.ClickException) -> str:
    """Return the order of a command's arguments if an option is unknown, for it may be one of them."""
    if not isinstance(error, click.NoSuchOption) or error.ctx is None:
        return ""
    if error.option_name in ("-v", "--verbose"):
        return f"; {error.option_name} comes before the command"
    command = error.ctx.command
    if not any(isinstance(parameter, click.Argument) for parameter in command.params):
        return ""
    return f"; usage: {error.ctx.command_path} {' '.join(command.collect_usage_pieces(error.ctx))}"


def _exit_with(line: str) -> None:
    print_error(line)
    sys.exit(2)


if __name__ == "__main__":
    main()
