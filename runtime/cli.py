"""The command line: all commands. The only file that reads the environment."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import cast, get_args

from ..kvstore import KVError
from ..scheduler import POLICIES, TYPICAL, Costs, Forecasts, NotTheSame, Setting
from ..tools import ToolError
from ..tracing import Options as Tracing
from ..tracing import TracingError, provider, use
from .below import Tiers
from .cli_audit import audit_options, audit_shown
from .cli_kv import kv_options, kv_shown
from .cli_plan import plan_options, plan_shown
from .cli_simulate import dumped, simulate_options, simulated, table
from .cli_tools import tools_options, tools_shown
from .cli_tools_serve import tools_serve_options, tools_served
from .cli_trace import trace_options, trace_shown, writable
from .engines import Mode
from .errors import SostenutoError
from .guards_file import read_guards
from .host import Host
from .journal import replay
from .learnt import load_policy, read_costs, read_forecasts, write_forecasts
from .opening import ENGINES, Wanted, open_engine
from .report import page


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 is success, 1 a fault that is named on standard error, 2 a wrong use."""
    parser = argparse.ArgumentParser(prog="sostenuto", description=__doc__.split(":")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _demo_options(
        commands.add_parser("demo", help="agents with real tools on a real model, in a pool too small for all")
    )
    _serve_options(commands.add_parser("serve", help="an OpenAI-compatible server in front of any engine"))
    _vllm_options(commands.add_parser("vllm", help="the command line of a vLLM server that holds agents' contexts"))
    _doctor_options(commands.add_parser("doctor", help="what computes a model here: machine, torch, operations, path"))
    again = commands.add_parser(
        "replay", help="feed a journal to the kernel: the same events must give the same effects"
    )
    again.add_argument("journal", type=Path, metavar="FILE")
    again.add_argument("--policy", metavar="FILE.py:NAME", help="the policy of your own that wrote it")
    simulate_options(commands.add_parser("simulate", help="policies side by side on a trace, under a virtual clock"))
    _calibrate_options(
        commands.add_parser("calibrate", help="measure what steps and copies cost here, for policies to read")
    )
    trace_options(commands.add_parser("trace", help="look at traces: what was reused, waited for and computed twice"))
    kv_options(commands.add_parser("kv", help="look into a disk tier: its snapshots, is it whole, what can go"))
    audit_options(commands.add_parser("audit", help="the log of tool calls: is it as it was written"))
    tools = commands.add_parser("tools", help="look at tool schemas, calls and plans: what can be enforced, what fits")
    actions = tools_options(tools)
    plan_options(actions)
    tools_serve_options(actions)
    given = list(sys.argv[1:] if argv is None else argv)
    cut = given.index("--") if "--" in given else len(given)
    options = parser.parse_args(given[:cut])
    options.more = given[cut + 1 :]
    if options.more and options.command != "vllm":
        parser.error(f"{options.command} hands nothing on: found {' '.join(given[cut:])}")
    try:
        return _COMMANDS[options.command](options)
    except (SostenutoError, KVError, ToolError, TracingError, NotTheSame, ValueError, OSError) as error:
        print(f"sostenuto: {error}", file=sys.stderr)
        return 1


def _demo_options(parser: argparse.ArgumentParser) -> None:
    _engine_options(parser)
    _policy_option(parser, "who schedules the live run")
    parser.add_argument(
        "--pool-tokens", type=_positive, metavar="N", help="tokens that the pool holds (default: too few for all)"
    )
    parser.add_argument("--tasks", type=Path, metavar="FILE", help='questions, one {"id", "question"} per line')
    parser.add_argument("--agents", type=_positive, default=8, metavar="N", help="agents at once (default: 8)")
    parser.add_argument(
        "--rounds", type=_positive, default=4, metavar="N", help="model calls per agent at most (default: 4)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("sostenuto-demo"), metavar="DIR", help="where trace and journal go"
    )
    _trace_options(parser, " (default: in --out)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def _policy_option(parser: argparse.ArgumentParser, what: str) -> None:
    names = ", ".join(sorted(POLICIES))
    told = f"{what}: {names}, or FILE.py:NAME for one of your own (default: sostenuto)"
    parser.add_argument("--policy", default="sostenuto", metavar="NAME", help=told)


def _trace_options(parser: argparse.ArgumentParser, otherwise: str = "") -> None:
    parser.add_argument("--trace", type=Path, metavar="FILE", help=f"the trace as OTLP JSON{otherwise}")
    parser.add_argument(
        "--otlp", nargs="?", const="", metavar="URL", help="send spans by OTLP, to URL or as OTEL_* say"
    )


def _engine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", default="torch", choices=ENGINES, help="what computes (default: torch, in here)")
    parser.add_argument("--url", help="where the server is, for --engine vllm and openai")
    parser.add_argument(
        "--model",
        help="a Hugging Face model directory, a GGUF file or a hub id (default: the packaged one); with --url, the "
        "name under which the server serves it (default: the first)",
    )
    _mode_option(parser)
    parser.add_argument("--tokenizer", help="a directory or hub id, where a vLLM server's model is not found here")
    parser.add_argument(
        "--api-key-from", metavar="VARIABLE", help="the environment variable that holds the server's key"
    )


def _mode_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mode",
        default="exact",
        choices=get_args(Mode),
        help="exact: the same bits in any company; fast: steps of few rows read a GGUF file's own blocks",
    )


def _wanted(options: argparse.Namespace, pool_tokens: int | None) -> Wanted:
    name = options.api_key_from
    if name is not None and name not in os.environ:
        raise ValueError(f"--api-key-from: there is no environment variable {name}")
    key = None if name is None else os.environ[name]
    return Wanted(options.engine, options.model, options.url, key, pool_tokens, options.mode, options.tokenizer)


def _demo(options: argparse.Namespace) -> int:
    policy = load_policy(options.policy)
    # The demo needs the `local` extra; `sostenuto replay` does not.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from .demo.show import POOL_TOKENS, Options, show

    return show(
        Options(
            wanted=_wanted(options, options.pool_tokens or (POOL_TOKENS if options.engine == "torch" else None)),
            policy=policy,
            tasks=options.tasks,
            agents=options.agents,
            rounds=options.rounds,
            out=options.out,
            trace=options.trace,
            otlp=options.otlp,
            json=options.json,
        )
    )


def _serve_options(parser: argparse.ArgumentParser) -> None:
    _engine_options(parser)
    _policy_option(parser, "who schedules")
    parser.add_argument("--costs", type=Path, metavar="FILE", help="what steps and copies cost: `calibrate` writes it")
    parser.add_argument("--forecasts", type=Path, metavar="FILE", help="keep what is learnt of tools there")
    parser.add_argument("--workers", type=_positive, metavar="N", help="how many tool calls can run at once")
    parser.add_argument(
        "--token-ms", type=float, metavar="MS", help="what a token may take while others' prompts are computed"
    )
    parser.add_argument(
        "--share",
        action="append",
        default=[],
        metavar="TENANT=N",
        help="what a tenant weighs against others, which weigh 1",
    )
    parser.add_argument("--pool-tokens", type=_positive, metavar="N", help="tokens that the pool holds")
    parser.add_argument(
        "--host-tokens", type=_positive, default=0, metavar="N", help="tokens of contexts kept in host memory below it"
    )
    parser.add_argument(
        "--store",
        type=Path,
        metavar="FOLDER",
        help="keep contexts that wait for a person there, for later processes too",
    )
    parser.add_argument(
        "--store-tokens", type=_positive, metavar="N", help="and no more than so many tokens (default: without an end)"
    )
    parser.add_argument(
        "--remote", metavar="URL", help="share contexts with other hosts of the model through this Redis or Valkey"
    )
    parser.add_argument("--bind", default="127.0.0.1", metavar="ADDRESS", help="where to listen (default: loopback)")
    parser.add_argument("--port", type=int, default=8000, help="0: one that is free (default: 8000)")
    parser.add_argument("--name", help="what the model is called (default: its own name)")
    parser.add_argument(
        "--keys", type=Path, metavar="FILE", help='API keys and their tenants, as JSON: {"key": "tenant"}'
    )
    parser.add_argument("--open", action="store_true", help="listen beyond loopback without keys")
    parser.add_argument("--guards", type=Path, metavar="FILE", help="limits, bounds and rules, as JSON: docs/guards.md")
    parser.add_argument("--journal", type=Path, metavar="FILE", help="write every event of the schedule there")
    _trace_options(parser)


def _serve(options: argparse.Namespace) -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from .doors.http import serve

    keys = None if options.keys is None else _keys(options.keys)
    below = Tiers(options.host_tokens, options.store, options.store_tokens, options.remote)
    below.look()
    policy, setting = load_policy(options.policy), _setting(options)
    guards = None if options.guards is None else read_guards(options.guards)
    engine = open_engine(_wanted(options, options.pool_tokens))
    with ExitStack() as stack:
        if options.forecasts is not None:
            stack.callback(write_forecasts, options.forecasts, setting.forecasts)
        if options.trace is not None or options.otlp is not None:
            otlp = options.otlp or options.otlp is not None  # without an address: as the variables say
            tracer = provider("sostenuto-serve", trace_file=options.trace, otlp=otlp)
            stack.callback(tracer.shutdown)
            use(Tracing(tracer))
        lower = below.open(engine)
        host = Host(engine, policy=policy, journal=options.journal, below=lower, setting=setting, guards=guards)
        stack.enter_context(host)
        serve(host, bind=options.bind, port=options.port, keys=keys, open=options.open, name=options.name)
    return 0


def _setting(options: argparse.Namespace) -> Setting:
    shares = {}
    for text in options.share:
        tenant, equals, number = text.rpartition("=")
        if not (tenant and equals):
            raise ValueError(f"--share: found {text!r}; expected TENANT=N, such as team-a=2")
        shares[tenant] = float(number)
    return Setting(
        costs=TYPICAL if options.costs is None else read_costs(options.costs),
        forecasts=Forecasts() if options.forecasts is None else read_forecasts(options.forecasts),
        workers=options.workers,
        shares=shares,
        token_target_s=None if options.token_ms is None else options.token_ms / 1e3,
    )


def _keys(path: Path) -> dict[str, str]:
    expected = f'{path}: expected a JSON object of keys and tenants, such as {{"secret": "team-a"}}'
    try:
        keys = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{expected}; it is no JSON ({error})") from error
    if not isinstance(keys, dict) or not all(isinstance(tenant, str) for tenant in keys.values()):
        raise ValueError(expected)
    return keys


def _vllm_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a model directory or hub id, as `vllm serve` takes it")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--cpus", type=_positive, metavar="N", help="compute on so many processors, without a GPU")
    parser.add_argument("--run", action="store_true", help="run it in place of printing it")
    parser.epilog = "What stands behind -- is handed on to vllm serve."


def _vllm(options: argparse.Namespace) -> int:
    from .engines.vllm.command import command_line, environment, shown

    command = command_line(options.model, port=options.port, host=options.host, more=options.more)
    variables = environment(cpus=options.cpus)
    if not options.run:
        print(shown(command, variables))
        return 0
    try:
        os.execvpe(command[0], command, {**os.environ, **variables})
    except FileNotFoundError:
        raise ValueError(
            "there is no program `vllm` here: install vLLM, and this package beside it with `pip install --no-deps "
            "sostenuto`, or run the printed command where it is"
        ) from None


def _doctor_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="a model directory, a GGUF file or a hub id (default: the packaged one)")
    _mode_option(parser)


def _doctor(options: argparse.Namespace) -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from .engines.torch.doctor import examine

    for heading, found in examine(options.model, options.mode):
        _print(f"{heading:<12}{found}")
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


_positive.__name__ = "positive number"  # argparse names it when it refuses a value


def _replay(options: argparse.Namespace) -> int:
    journal: Path = options.journal
    if not journal.is_file():
        raise ValueError(f"there is no journal {journal}: give the file that a run wrote")
    kernel, events = replay(journal, None if options.policy is None else load_policy(options.policy))
    print(f"{journal}: {events} events gave the same effects | {kernel!r}")
    return 0


def _simulate(options: argparse.Namespace) -> int:
    found = simulated(options)
    if options.report is not None:
        options.report.write_text(page(found.trace, found.settings, found.results), encoding="utf-8")
    _print(dumped(found) if options.json else table(found))
    return 0


def _calibrate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="a model directory, a GGUF file or a hub id (default: the packaged one)")
    _mode_option(parser)
    parser.add_argument("--out", type=Path, default=Path("sostenuto-costs.json"), metavar="FILE")
    parser.add_argument("--runs", type=_positive, default=5, metavar="N", help="the best of so many runs (default: 5)")
    parser.add_argument("--seconds", type=_positive, default=90, metavar="S", help="so long at most (default: 90)")
    parser.add_argument("--literal", action="store_true", help="print the costs as scheduler/costs.py has them, too")


def _calibrate(options: argparse.Namespace) -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from .calibrate import POOL_TOKENS, Effort, Tried, calibrate, literal, told

    out: Path = options.out
    near = out.resolve().parent
    if not near.is_dir():
        raise ValueError(f"--out: there is no folder {near}")
    engine = open_engine(Wanted(model=options.model, pool_tokens=POOL_TOKENS, mode=options.mode))
    effort, machine = Effort(options.runs, options.seconds), f"{os.cpu_count()} processors"
    found = calibrate(cast(Tried, engine), near=near, clock=time.perf_counter, effort=effort, machine=machine)
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(told(found), f"written to {out}", *([literal(Costs.read(found["costs"]))] * options.literal), sep="\n")
    return 0


def _trace(options: argparse.Namespace) -> int:
    shown, left_out = trace_shown(options)
    if left_out and sys.stderr is not None:  # print takes None for standard output
        print(f"sostenuto: {left_out}", file=sys.stderr)
    _print(shown)
    return 0


def _kv(options: argparse.Namespace) -> int:
    shown, code = kv_shown(options, time.time())
    _print(shown)
    return code


def _audit(options: argparse.Namespace) -> int:
    shown, code = audit_shown(options, os.environ)
    _print(shown)
    return code


def _tools(options: argparse.Namespace) -> int:
    if options.action == "serve":
        return tools_served(options)
    shown, code = plan_shown(options) if options.action == "plan" else (tools_shown(options), 0)
    _print(shown)
    return code


def _print(text: str) -> None:
    try:
        print(writable(text), flush=True)
    except BrokenPipeError:  # who read it has seen enough; nothing is left to complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_COMMANDS = {
    "demo": _demo,
    "serve": _serve,
    "vllm": _vllm,
    "doctor": _doctor,
    "replay": _replay,
    "simulate": _simulate,
    "calibrate": _calibrate,
    "trace": _trace,
    "kv": _kv,
    "audit": _audit,
    "tools": _tools,
}

if __name__ == "__main__":
    raise SystemExit(main())
