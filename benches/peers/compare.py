#!/usr/bin/env python3
"""Loads the same TSBS rows into Meridian, DuckDB and ClickHouse's embedded engine, runs the same queries on each, compares
the rows that they return, and prints what each took.

    python3 benches/peers/compare.py --hosts 100 --hours 72 [--decimals 2] [--json FILE]

Peers are installed into a virtual environment of their own (target/peers) by the first run. Build first:
cargo build --release --workspace --bins.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import venv

ROOT = pathlib.Path(__file__).resolve().parents[2]
VENV = ROOT / "target" / "peers"
PACKAGES = ["duckdb", "pytz", "chdb", "psycopg[binary]"]
TAGS = ["hostname", "region", "datacenter", "rack", "os", "arch", "team", "service", "service_version", "service_environment"]
METRICS = ["usage_user", "usage_system", "usage_idle", "usage_nice", "usage_iowait", "usage_irq", "usage_softirq",
           "usage_steal", "usage_guest", "usage_guest_nice"]


def inside_venv():
    """Runs this script again in its own environment, made when it is missing."""
    python = VENV / "bin" / "python"
    if pathlib.Path(sys.prefix) == VENV:
        return
    if not (VENV / "installed").exists():
        venv.create(VENV, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (VENV / "installed").touch()
    os.execv(python, [str(python), *sys.argv])


def folder_bytes(folder):
    return sum(path.stat().st_blocks * 512 for path in pathlib.Path(folder).rglob("*") if path.is_file())


class Meridian:
    name = "Meridian"

    def __init__(self, folder, binary, bench, shape):
        self.folder, self.bench, self.shape = folder, bench, shape
        listen = ["--sql-listen", "127.0.0.1:0", "--cluster-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
        self.process = subprocess.Popen([binary, "start", "--json", *listen, "--data-dir", f"{folder}/node"],
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.url = f"postgresql://meridian@{json.loads(self.process.stdout.readline())['sql']}/meridian"

    def connect(self):
        import psycopg
        deadline = time.monotonic() + 30
        while True:
            try:
                self.connection = psycopg.connect(self.url, autocommit=True)
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def load(self, _csv):
        """By `bench ingest`: one connection, COPY, rows made before the clock starts."""
        self.connect()
        out = subprocess.run([self.bench, "ingest", "--url", self.url, "--json", *self.shape], check=True,
                             stdout=subprocess.PIPE, text=True)
        figures = {figure["name"]: figure["value"] for figure in json.loads(out.stdout)}
        return figures["time"]

    def compress(self):
        """Seconds that it took, or None where it cannot be done."""
        import psycopg
        try:
            self.connection.execute("ALTER TABLE cpu SET (timescaledb.compress, timescaledb.compress_segmentby = 'hostname',"
                                    " timescaledb.compress_orderby = 'time')")
            started = time.monotonic()
            self.connection.execute("SELECT compress_chunk(c) FROM show_chunks('cpu') c").fetchall()
            return time.monotonic() - started
        except psycopg.Error as error:
            print(f"not compressed: {error}", file=sys.stderr)
            return None

    def bytes(self):
        """Of the chunks' files; not a number while all rows are still in the log, which is recycled."""
        return sum(folder_bytes(folder) for folder in pathlib.Path(self.folder).rglob("chunks")) or float("nan")

    def query(self, sql):
        return self.connection.execute(sql).fetchall()

    def close(self):
        self.connection.close()
        self.process.terminate()
        self.process.wait()


class DuckDb:
    name = "DuckDB"

    def __init__(self, folder):
        import duckdb
        self.path = f"{folder}/cpu.duckdb"
        self.connection = duckdb.connect(self.path)
        self.connection.execute("SET TimeZone = 'UTC'")

    def load(self, csv):
        columns = ["time timestamptz", *(f"{tag} text" for tag in TAGS), *(f"{metric} double" for metric in METRICS)]
        self.connection.execute(f"CREATE TABLE cpu ({', '.join(columns)})")
        started = time.monotonic()
        self.connection.execute(f"COPY cpu FROM '{csv}' (FORMAT csv, HEADER false)")
        self.connection.execute("CHECKPOINT")
        return time.monotonic() - started

    def compress(self):
        """Rows sorted by series, which is what its encodings need to do well."""
        started = time.monotonic()
        self.connection.execute("CREATE TABLE sorted AS SELECT * FROM cpu ORDER BY hostname, time")
        self.connection.execute("DROP TABLE cpu")
        self.connection.execute("ALTER TABLE sorted RENAME TO cpu")
        self.connection.execute("CHECKPOINT")
        return time.monotonic() - started

    def bytes(self):
        size = self.connection.execute("SELECT used_blocks * block_size FROM pragma_database_size()").fetchone()
        return size[0]

    def query(self, sql):
        return self.connection.execute(sql).fetchall()

    def close(self):
        self.connection.close()


class ClickHouse:
    name = "ClickHouse"

    def __init__(self, folder):
        from chdb.session import Session
        self.folder = f"{folder}/chdb"
        self.session = Session(self.folder)

    def load(self, csv):
        columns = ["time DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD)",
                   *(f"{tag} LowCardinality(String)" for tag in TAGS),
                   *(f"{metric} Float64 CODEC(Gorilla, ZSTD)" for metric in METRICS)]
        self.session.query(f"CREATE TABLE cpu ({', '.join(columns)}) ENGINE = MergeTree ORDER BY (hostname, time)")
        started = time.monotonic()
        self.session.query(f"INSERT INTO cpu SELECT * FROM file('{csv}', CSV) "
                           "SETTINGS date_time_input_format = 'best_effort'")
        return time.monotonic() - started

    def compress(self):
        started = time.monotonic()
        self.session.query("OPTIMIZE TABLE cpu FINAL")
        return time.monotonic() - started

    def bytes(self):
        out = self.session.query("SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND table = 'cpu'", "CSV")
        return int(str(out).strip())

    def query(self, sql):
        sql = sql.replace("time_bucket('1 minute', time)", "toStartOfInterval(time, INTERVAL 1 minute)")
        sql = sql.replace("time_bucket('1 hour', time)", "toStartOfInterval(time, INTERVAL 1 hour)")
        if "DISTINCT ON (hostname)" in sql:
            sql = "SELECT * FROM cpu ORDER BY hostname, time DESC LIMIT 1 BY hostname"
        sql = sql.replace("+00'", "'")
        out = str(self.session.query(sql, "JSONCompactEachRow"))
        return [json.loads(line) for line in out.splitlines()]

    def close(self):
        self.session.close()


def canonical(rows):
    """Rows as sorted text, times to the second in UTC, numbers to six digits: what must be equal everywhere."""
    def cell(value):
        if hasattr(value, "strftime"):
            import datetime
            value = value.astimezone(datetime.timezone.utc) if value.tzinfo else value
            return value.strftime("%Y-%m-%d %H:%M:%S")
        if isinstance(value, (int, float)):
            return f"{value:.6g}"
        text = str(value)
        if len(text) >= 19 and text[4] == "-" and text[13] == ":":
            return text[:19]
        return text
    return sorted("|".join(map(cell, row)) for row in rows)


def measure(engine, queries):
    """Median milliseconds per query of a set, and the rows of its last."""
    times = []
    engine.query(queries[0])
    for sql in queries:
        started = time.perf_counter()
        rows = engine.query(sql)
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times), canonical(rows)


def run(options):
    target = ROOT / "target" / "release"
    bench, binary = str(target / "bench"), str(target / "meridian")
    shape = ["--hosts", str(options.hosts), "--hours", str(options.hours), "--decimals", str(options.decimals)]
    sets = json.loads(subprocess.run([bench, "sql", *shape, "--runs", str(options.runs)], check=True,
                                     stdout=subprocess.PIPE, text=True).stdout)
    results, answers, wrong = {}, {}, []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        csv = f"{folder}/cpu.csv"
        with open(csv, "w") as out:
            subprocess.run([bench, "generate", *shape], check=True, stdout=out)
        rows = options.hosts * options.hours * 360
        makers = {"meridian": lambda: Meridian(folder, binary, bench, shape), "duckdb": lambda: DuckDb(folder),
                  "clickhouse": lambda: ClickHouse(folder)}
        for key in options.engines.split(","):
            engine = makers[key]()
            figures = results[engine.name] = {}
            figures["load, rows/s"] = rows / engine.load(csv)
            figures["bytes a row, loaded"] = engine.bytes() / rows
            seconds = engine.compress()
            if seconds is not None:
                figures["compress, rows/s"] = rows / seconds
            figures["bytes a row, compressed"] = engine.bytes() / rows
            for query in [*sets, {"name": "count(*)", "queries": ["SELECT count(*) FROM cpu"] * options.runs}]:
                figures[f"{query['name']}, ms"], found = measure(engine, query["queries"])
                expected = answers.setdefault(query["name"], (engine.name, found))
                # Ties in ORDER BY ... LIMIT aside there is one right answer.
                if found != expected[1]:
                    wrong.append(f"{query['name']}: {engine.name} differs from {expected[0]}")
            engine.close()
    return results, wrong


def table(results):
    engines = list(results)
    lines = ["| | " + " | ".join(engines) + " |", "|---|" + "---:|" * len(engines)]
    for name in results[engines[0]]:
        cells = [f"{results[engine].get(name, float('nan')):,.2f}" for engine in engines]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--hours", type=int, default=72)
    parser.add_argument("--decimals", type=int, default=0)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--engines", default="meridian,duckdb,clickhouse")
    parser.add_argument("--folder", help="where the databases are made (the system's temporary folder)")
    parser.add_argument("--json", help="write the figures to this file, too")
    options = parser.parse_args()
    inside_venv()
    results, wrong = run(options)
    print(table(results))
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(results, indent=1))
    for line in wrong:
        print(f"WRONG {line}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
