#!/usr/bin/env python3
"""Loads the same TSBS rows into Meridian, DuckDB and ClickHouse's embedded engine, runs the same queries on each, compares
the rows that they return, and prints what each took.

    python3 benches/peers/compare.py --hosts 100 --hours 72 [--decimals 2] [--json FILE]

Peers are installed into a virtual environment of their own (target/peers) by the first run. Build first:
cargo build --release --workspace --bins. How each engine is called stands in engines.py.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import environment

# Share of the machine that others may take while something is measured, and how long to wait for that.
BUSY_SHARE_MAX = 0.1
QUIET_PATIENCE_S = 45
LOCK_PATIENCE_S = 40
LOCK_PAUSE_S = 5
COUNT = {"name": "count(*)", "sql": "SELECT count(*) FROM cpu"}


@contextlib.contextmanager
def alone(locks):
    """Holds the lock files: whoever else respects them does not compute meanwhile. Waits for a while until the machine is
    quiet, and says so when it is not."""
    with contextlib.ExitStack() as held:
        files = [held.enter_context(open(lock, "a")) for lock in locks]
        while not all_locked(files):
            time.sleep(LOCK_PAUSE_S)
        deadline = time.monotonic() + QUIET_PATIENCE_S
        while (busy := busy_share()) > BUSY_SHARE_MAX and time.monotonic() < deadline:
            pass
        if busy > BUSY_SHARE_MAX:
            print(f"NOT QUIET: others take {busy:.0%} of the machine", file=sys.stderr, flush=True)
        yield


def all_locked(files):
    """Who waits for one of several locks keeps the others from nobody for long."""
    for file in files:
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    for other in files:
                        fcntl.flock(other, fcntl.LOCK_UN)
                    return False
                time.sleep(0.01)
    return True


def busy_share():
    """Of all cores' time over a second."""
    def ticks():
        fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
        return sum(fields), fields[3] + fields[4]
    all_before, idle_before = ticks()
    time.sleep(1)
    all_after, idle_after = ticks()
    return 1 - (idle_after - idle_before) / max(all_after - all_before, 1)


def digest(rows):
    """Number of rows and a hash of them in any order."""
    from engines import canonical
    lines = sorted(map(canonical, rows))
    return {"rows": len(lines), "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest()}


def query_sets(bench, shape, runs):
    out = subprocess.run([bench, "sql", *shape, "--runs", str(runs)], check=True, stdout=subprocess.PIPE, text=True)
    return [*json.loads(out.stdout), {"name": COUNT["name"], "queries": [COUNT["sql"]] * runs}]


def measure(engine, queries):
    """Median milliseconds of a set, whose queries were all asked once before: of data that is in memory."""
    times = engine.times([*queries, *queries])
    return statistics.median(times[len(queries):])


def run_engine(kind, folder, csv, rows, shape, sets, locks):
    """Everything about one engine: figures by name, digests by query."""
    engine = kind(folder, environment.RELEASE, shape)
    try:
        with alone(locks):
            figures = load(engine, csv, rows)
        times, digests = ask(engine, sets, locks)
    finally:
        engine.close()
    return {"version": kind.version(environment.RELEASE), "figures": figures | times, "digests": digests}


def load(engine, csv, rows):
    figures = {"load, rows/s": rows / engine.load(csv)}
    # None yet where all rows are still in the log and in memory.
    figures["bytes a row, loaded"] = engine.bytes() / rows or None
    figures["compress, rows/s"] = rows / engine.compress()
    figures["bytes a row, compressed"] = engine.bytes() / rows
    return figures


def ask(engine, sets, locks):
    times, digests = {}, {}
    with alone(locks):
        for query in sets:
            times[f"{query['name']}, ms"] = measure(engine, query["queries"])
    for query in sets:
        digests[query["name"]] = digest(engine.rows(engine.query(query["queries"][-1])))
    return times, digests


def run(options):
    """Results by engine's name."""
    from engines import ENGINES
    bench = str(environment.RELEASE / "bench")
    shape = ["--hosts", str(options.hosts), "--hours", str(options.hours), "--decimals", str(options.decimals)]
    sets = query_sets(bench, shape, options.runs)
    rows = options.hosts * options.hours * 360
    results = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        csv = f"{folder}/cpu.csv"
        if options.engines != "meridian":
            with open(csv, "w") as out:
                subprocess.run([bench, "generate", *shape], check=True, stdout=out)
        for key in options.engines.split(","):
            own = pathlib.Path(folder) / key
            own.mkdir()
            # A process of its own: an engine within this one would keep its memory and threads while others are measured.
            child = os.fork()
            if child == 0:
                result = run_engine(ENGINES[key], str(own), csv, rows, shape, sets, options.lock)
                pathlib.Path(f"{folder}/{key}.json").write_text(json.dumps(result))
                os._exit(0)
            if os.waitpid(child, 0)[1] != 0:
                sys.exit(f"{key} could not be measured")
            results[ENGINES[key].name] = json.loads(pathlib.Path(f"{folder}/{key}.json").read_text())
    return results


def differences(results):
    """Queries whose answers are not the same everywhere."""
    wrong = []
    (first, expected), *others = results.items()
    for name, result in others:
        for query, found in result["digests"].items():
            if found != expected["digests"][query]:
                counts = f"{found['rows']} and {expected['digests'][query]['rows']} rows"
                wrong.append(f"{query}: {name} differs from {first} ({counts})")
    return wrong


def table(results):
    engines = list(results)
    heads = [f"{name} {results[name]['version']}" for name in engines]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(engines)]
    for name in results[engines[0]]["figures"]:
        cells = [cell(results[engine]["figures"].get(name)) for engine in engines]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(value):
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}" if value < 100 else f"{value:.1f}"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--hours", type=int, default=72)
    parser.add_argument("--decimals", type=int, default=0)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--engines", default="meridian,duckdb,clickhouse")
    parser.add_argument("--folder", help="where the databases are made (the system's temporary folder)")
    parser.add_argument("--json", help="write the figures and digests to this file, too")
    parser.add_argument("--lock", action="append", default=[], help="file to lock while something is measured")
    return parser


def main():
    options = arguments().parse_args()
    environment.enter()
    results = run(options)
    print(table(results))
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(results, indent=1))
    wrong = differences(results)
    for line in wrong:
        print(f"WRONG {line}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
