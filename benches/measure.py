#!/usr/bin/env python3
"""Measures everything that docs/performance.md shows, and writes it there.

    cargo build --release --workspace --bins
    python3 benches/measure.py [--only STEP,STEP] [--lock FILE]

Results are kept in docs/performance.json; with --only, those of the other steps stay as they are. `--only none` writes the
page anew from what is kept. The machine should have nothing else to do: --lock names a file that is locked around
each measurement, for machines on which others build.
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent / "peers"))
import compare  # noqa: E402
import environment  # noqa: E402
import page  # noqa: E402

DOCS = environment.ROOT / "docs"
SHAPE = ["--hosts", "100", "--hours", "72"]
ENGINE_SHAPE = ["--hosts", "100", "--hours", "24"]


def bench(*arguments, release=environment.RELEASE):
    """Figures of a command of `bench` that needs no node."""
    command = [str(release / "bench"), *arguments, "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def codecs(_options):
    """With pco, which is built apart: in the other folder everything above arrow would be built anew."""
    folder = environment.ROOT / "target" / "pco"
    build = ["cargo", "build", "--release", "--locked", "--package", "benches", "--features", "pco", "--target-dir", folder]
    subprocess.run(build, check=True, cwd=environment.ROOT)
    return bench("codecs", *ENGINE_SHAPE, release=folder / "release")


def on_node(options, *commands):
    """Figures of commands of `bench`, one after another against one new node."""
    from engines import Meridian
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        node = Meridian(folder, environment.RELEASE, [])
        try:
            return [figure for command in commands for figure in node.measure(*command)]
        finally:
            node.close()


def named(prefix, figures):
    return [figure | {"name": f"{prefix}: {figure['name']}"} for figure in figures]


def ingest(options):
    ways = {
        "COPY, 1 connection": ["--connections", "1"],
        "COPY, 4 connections": ["--connections", "4"],
        "INSERT of 1000 rows, 1 connection": ["--method", "insert", "--hours", "12"],
        "INSERT of 1000 rows, 4 connections": ["--method", "insert", "--connections", "4", "--hours", "12"],
    }
    measured = []
    for way, arguments in ways.items():
        hours = [] if "--hours" in arguments else ["--hours", "72"]
        measured += named(way, on_node(options, ["ingest", "--hosts", "100", *hours, *arguments]))
    return measured


def peers(hosts, hours, decimals):
    def step(options):
        arguments = ["--hosts", str(hosts), "--hours", str(hours), "--decimals", str(decimals), "--runs", str(options.runs)]
        arguments += ["--folder", options.folder] if options.folder else []
        return compare.run(compare.arguments().parse_args(arguments + [f"--lock={lock}" for lock in options.lock]))
    return step


# Those that lock by themselves, piece by piece, are marked.
STEPS = {
    "codecs": (codecs, False),
    "wal": (lambda options: bench("wal", "--folder", options.folder or tempfile.gettempdir()), False),
    "shard": (lambda options: bench("shard", *ENGINE_SHAPE, "--folder", options.folder or tempfile.gettempdir()), False),
    "idle": (lambda options: bench("idle"), False),
    "ingest": (ingest, False),
    "planning": (lambda options: on_node(options, ["ingest", *SHAPE], ["compress"], ["planning", *SHAPE]), False),
    "mixed": (lambda options: on_node(options, ["mixed", *SHAPE, "--compress"]), False),
    "whole numbers": (peers(100, 72, 0), True),
    "two decimals": (peers(100, 72, 2), True),
    "many hosts": (peers(4000, 12, 0), True),
}


def machine():
    cpu = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())
    return {
        "cpu": cpu.group(1) if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": f"{int(memory.group(1)) / 2**20:.0f} GiB" if memory else "unknown",
        "kernel": platform.release().split("-")[0],
        "disk": disk(),
    }


def disk():
    """Kind of the file system that measurements write to, and whether its device spins."""
    out = subprocess.run(["findmnt", "-no", "FSTYPE", "-T", tempfile.gettempdir()], stdout=subprocess.PIPE, text=True)
    return out.stdout.strip() or "unknown"


def commit():
    out = subprocess.run(["git", "-C", environment.ROOT, "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE, text=True)
    return out.stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"comma-separated, of: {', '.join(STEPS)}; none: only write the page")
    parser.add_argument("--runs", type=int, default=20, help="queries of each kind")
    parser.add_argument("--folder", help="where nodes and databases are made (the system's temporary folder)")
    parser.add_argument("--lock", action="append", default=[], help="file to lock while something is measured")
    options = parser.parse_args()
    environment.enter()
    store = DOCS / "performance.json"
    kept = json.loads(store.read_text()) if store.exists() else {"steps": {}}
    wanted = [] if options.only == "none" else options.only.split(",") if options.only else list(STEPS)
    for name in wanted:
        measure, locks_itself = STEPS[name]
        print(f"measuring {name}", file=sys.stderr, flush=True)
        with contextlib.nullcontext() if locks_itself else compare.alone(options.lock):
            result = measure(options)
        kept["machine"] = machine()
        kept["steps"][name] = {"commit": commit(), "result": result}
        store.write_text(json.dumps(kept, indent=1) + "\n")
    page.write(DOCS, kept)


if __name__ == "__main__":
    main()
