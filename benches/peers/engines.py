"""Databases that hold the TSBS table `cpu`. Each loads the same CSV, sorts or compresses what it loaded, and answers the
same queries. An answer is taken whole, in the form that costs the client least, and made into rows only when it is compared:
Arrow where it comes as columns, and each row read and let go where it comes as rows.

How each is called:
  Meridian    a process of its own, over TCP on loopback: PostgreSQL's simple protocol, results as text, read row by row
              by `bench time`; for the comparison of answers by libpq
  DuckDB      inside this process: sql, result as an Arrow table
  ClickHouse  inside this process (chdb): query, result as the bytes of an Arrow stream
So the peers have neither a socket nor text between them and this script.
"""

import datetime
import json
import pathlib
import subprocess
import time

TAGS = ["hostname", "region", "datacenter", "rack", "os", "arch", "team", "service", "service_version", "service_environment"]
METRICS = ["usage_user", "usage_system", "usage_idle", "usage_nice", "usage_iowait", "usage_irq", "usage_softirq",
           "usage_steal", "usage_guest", "usage_guest_nice"]
START_PATIENCE_S = 30
UTC = datetime.timezone.utc


def folder_bytes(folder):
    return sum(path.stat().st_blocks * 512 for path in pathlib.Path(folder).rglob("*") if path.is_file())


class InProcess:
    """What runs in this process."""

    def times(self, queries):
        """Milliseconds of each query until its whole answer is here."""
        times = []
        for sql in queries:
            started = time.perf_counter()
            answer = self.query(sql)
            times.append((time.perf_counter() - started) * 1e3)
            del answer
        return times


class Meridian:
    name = "Meridian"

    def __init__(self, folder, release, shape):
        self.folder, self.bench, self.shape = folder, str(release / "bench"), shape
        listen = [part for door in ("sql", "cluster", "admin") for part in (f"--{door}-listen", "127.0.0.1:0")]
        command = [str(release / "meridian"), "start", "--json", *listen, "--data-dir", f"{folder}/node"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.url = f"postgresql://meridian@{json.loads(self.process.stdout.readline())['sql']}/meridian"
        self.connection = self.connect()

    @staticmethod
    def version(release):
        out = subprocess.run([release / "meridian", "version"], check=True, stdout=subprocess.PIPE, text=True)
        return out.stdout.split()[1]

    def connect(self):
        import psycopg
        deadline = time.monotonic() + START_PATIENCE_S
        while True:
            try:
                return psycopg.connect(self.url, autocommit=True)
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def measure(self, command, *options):
        """Figures of a command of `bench` against this node, by name."""
        arguments = [self.bench, command, "--url", self.url, "--json", *options]
        out = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(out.stdout)

    def load(self, _csv):
        """By `bench ingest`: COPY on one connection, rows made before the clock starts, each piece durable."""
        figures = {figure["name"]: figure["value"] for figure in self.measure("ingest", *self.shape)}
        return figures["time"]

    def compress(self):
        figures = {figure["name"]: figure["value"] for figure in self.measure("compress")}
        return figures["compress time"]

    def bytes(self):
        """Of the chunks' files. The log is of a size of its own and used again and again."""
        return sum(folder_bytes(folder) for folder in pathlib.Path(self.folder).rglob("chunks"))

    def query(self, sql):
        from psycopg.pq import ExecStatus
        result = self.connection.pgconn.exec_(sql.encode())
        if result.status != ExecStatus.TUPLES_OK:
            raise RuntimeError(f"{sql}: {result.error_message.decode()}")
        return result

    def times(self, queries):
        """Milliseconds of each query until its last row was read."""
        command = [self.bench, "time", "--url", self.url]
        out = subprocess.run(command, check=True, input=json.dumps(queries), stdout=subprocess.PIPE, text=True)
        return json.loads(out.stdout)

    @staticmethod
    def rows(result):
        columns = range(result.nfields)
        for row in range(result.ntuples):
            yield [number_or_text(result.get_value(row, column).decode()) for column in columns]

    def close(self):
        self.connection.close()
        self.process.terminate()
        self.process.wait()


class DuckDb(InProcess):
    name = "DuckDB"

    def __init__(self, folder, _release, _shape):
        import duckdb
        self.connection = duckdb.connect(f"{folder}/cpu.duckdb")
        self.connection.execute("SET TimeZone = 'UTC'")

    @staticmethod
    def version(_release):
        import duckdb
        return duckdb.__version__

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
        size = self.connection.execute("SELECT used_blocks * block_size FROM pragma_database_size()").fetchall()
        return size[0][0]

    def query(self, sql):
        return self.connection.sql(sql).to_arrow_table()

    @staticmethod
    def rows(table):
        return arrow_rows(table)

    def close(self):
        self.connection.close()


class ClickHouse(InProcess):
    name = "ClickHouse"

    def __init__(self, folder, _release, _shape):
        from chdb.session import Session
        self.session = Session(f"{folder}/chdb")

    @staticmethod
    def version(_release):
        import chdb
        return chdb.engine_version

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

    @staticmethod
    def translated(sql):
        sql = sql.replace("time_bucket('1 minute', time)", "toStartOfInterval(time, INTERVAL 1 minute)")
        sql = sql.replace("time_bucket('1 hour', time)", "toStartOfInterval(time, INTERVAL 1 hour)")
        if "DISTINCT ON (hostname)" in sql:
            sql = "SELECT * FROM cpu ORDER BY hostname, time DESC LIMIT 1 BY hostname"
        return sql.replace("+00'", "'")

    def query(self, sql):
        settings = " SETTINGS output_format_arrow_string_as_string = 1"
        return self.session.query(self.translated(sql) + settings, "ArrowStream").bytes()

    @staticmethod
    def rows(stream):
        import pyarrow
        table = pyarrow.ipc.open_stream(stream).read_all()
        for at, field in enumerate(table.schema):
            # Its DateTime comes as a number of seconds.
            if field.type == pyarrow.uint32():
                seconds = table.column(at).cast(pyarrow.int64()).cast(pyarrow.timestamp("s", "UTC"))
                table = table.set_column(at, field.name, seconds)
        return arrow_rows(table)

    def close(self):
        self.session.close()


def number_or_text(text):
    try:
        return float(text)
    except ValueError:
        return text


def arrow_rows(table):
    for batch in table.to_batches():
        yield from zip(*(column.to_pylist() for column in batch.columns))


def canonical(row):
    """A row as text, times to the second in UTC, numbers to six digits: what must be equal everywhere."""
    return "|".join(map(canonical_cell, row))


def canonical_cell(value):
    if isinstance(value, datetime.datetime):
        value = value.astimezone(UTC) if value.tzinfo else value
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, (int, float)):
        return f"{value:.6g}"
    text = str(value)
    is_number = text.replace(".", "", 1).isdigit()
    is_time = len(text) >= 19 and text[4] == "-" and text[13] == ":"
    return f"{float(text):.6g}" if is_number else text[:19] if is_time else text


ENGINES = {"meridian": Meridian, "duckdb": DuckDb, "clickhouse": ClickHouse}
