"""`python -m benchmarks`: measure the gateway and its peers, print the table, write JSON and a plot.

    python -m benchmarks --cases one,paced --repeats 1 --peers none

Targets take turns within a repeat, so that a noisy moment hits all of them. Every case has fresh processes, which
are gone when it ends.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path

import uvloop
from rich.console import Console

from benchmarks import ceilings, plot, report
from benchmarks.cases.catalogue import Case, chosen
from benchmarks.cases.stage import Figures, Stage
from benchmarks.load.reader import StreamFailed
from benchmarks.peers.target import Envoy, Naive
from benchmarks.process import Cores
from benchmarks.record import RESULTS, Measurement, Record
from benchmarks.targets import Gateway, Stand, Target
from benchmarks.upstream.handle import upstream

# What `make compiled` makes: the same sources as machine code, as our wheels have them.
COMPILED = Path(sys.prefix) / "compiled"
PEERS: dict[str, Target] = {"interpreted": Gateway(name="interpreted"), "envoy": Envoy(), "naive": Naive()}
CASE_TIMEOUT_S = 120.0


def main() -> int:
    """Run what the command line asks for."""
    options = _parser().parse_args()
    try:
        cases = chosen(options.cases)
        peers = [] if options.peers == "none" else [PEERS[name] for name in options.peers.split(",")]
    except (ValueError, KeyError) as exc:
        print(f"benchmarks: {exc}", file=sys.stderr)
        return 2
    # On stderr, so that `--markdown > file` holds the table alone.
    console = Console(stderr=True)
    transport = options.transport or os.environ.get("GATEWAY_TRANSPORT")
    ours = Gateway(transport=transport, packages=COMPILED if options.build == "compiled" else None)
    if reason := ours.missing():
        print(f"benchmarks: {COMPILED.name}: {reason}", file=sys.stderr)
        return 2
    absent = {peer.name: reason for peer in peers if (reason := peer.missing()) is not None}
    for name, reason in absent.items():
        console.print(f"{name} is left out: {reason}")
    targets: list[Target] = [ours, *(peer for peer in peers if peer.name not in absent)]
    record = Record([target.name for target in targets], options.repeats, transport or "default", options.build, absent=absent)
    cores = Cores.of_machine()
    os.sched_setaffinity(0, {cores.load})
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = Path(scratch)
        record.ceilings = ceilings.measure(cores, folder)
        for repeat in range(options.repeats):
            for case in cases:
                for target in targets:
                    if case.takes(target):
                        console.print(f"{repeat + 1}/{options.repeats} {case.name}: {target.name}", highlight=False)
                        record.measurements.append(_measure(case, case.played_by(target), repeat, cores, folder))
    _publish(record, options, console)
    return 1 if any(measured.failure and measured.target == ours.name for measured in record.measurements) else 0


def _measure(case: Case, target: Target, repeat: int, cores: Cores, folder: Path) -> Measurement:
    """Run one case on fresh processes; a failure is part of the record."""
    try:
        with upstream(cores.load, folder / "upstream.log") as source:
            stand = Stand(source.port, cores.target, folder)
            with case.serving(target, stand) as served, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                figures = runner.run(_play(case, Stage(target, served, source)))
    except (StreamFailed, OSError, RuntimeError, TimeoutError) as exc:
        return Measurement(case.name, target.name, repeat, failure=f"{type(exc).__name__}: {exc}")
    return Measurement(case.name, target.name, repeat, figures)


async def _play(case: Case, stage: Stage) -> Figures:
    async with asyncio.timeout(CASE_TIMEOUT_S):
        await case.warm_up(stage)
        # A collection of ours would be measured as latency of theirs.
        gc.collect()
        gc.disable()
        try:
            return await case.measure(stage)
        finally:
            gc.enable()


def _publish(record: Record, options: argparse.Namespace, console: Console) -> None:
    if options.markdown:
        print(report.markdown(record))
    else:
        report.show(record, Console())
    path = record.write()
    drawing = path.with_suffix(".svg")
    drawing.write_text(plot.svg(record))
    console.print(f"written: {path}, {drawing.name}", highlight=False)
    if options.publish:
        shutil.copyfile(path, RESULTS / "latest.json")
        shutil.copyfile(drawing, RESULTS / "latest.svg")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--cases", default="all", help="comma-separated: one, many, big, paced, short, idle, cancel, stall, ws, shared, rpc, tool; all"
    )
    parser.add_argument("--repeats", type=int, default=3, help="how often each case is run; the table shows medians")
    parser.add_argument("--peers", default="envoy,naive", help="comma-separated: interpreted, envoy, naive; none")
    parser.add_argument("--build", choices=("interpreted", "compiled"), default="interpreted", help="which gateway is measured")
    parser.add_argument("--transport", choices=("lane", "grpcio"), help="how the gateway reaches its workers; its default otherwise")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--publish", action="store_true", help="make this the run that the README refers to: results/latest.*")
    return parser


if __name__ == "__main__":
    sys.exit(main())
