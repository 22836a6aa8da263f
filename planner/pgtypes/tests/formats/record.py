#!/usr/bin/env python3
"""Records what a real PostgreSQL 15 makes of the cases in values.tsv and copy.tsv, next to this file.

The cases are the first columns of each line; the columns behind them are replaced by PostgreSQL's answer.

    record.py 'host=/tmp port=5432 user=postgres'

COPY cases read files on the server: it must run on this machine, and the user be a superuser.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent

# An unquoted assignment, so that lengths are checked as INSERT checks them; the output functions print.
TRY_VALUE = r"""
create function pg_temp.try(kind text, literal text) returns text language plpgsql as $$
-- Not by the type's own name: a table makes a type of its name, and text[] would be an array of the table text's rows.
declare place text := 'of ' || kind; shown text; bytes text; state text; message text; detail text; hint text;
begin
    execute format('create temp table if not exists %I (v %s)', place, kind);
    execute format('insert into %I values (%L) returning format(''%%s'', v), encode(%s(v), ''hex'')',
        place, literal, (select typsend from pg_attribute a join pg_type t on t.oid = a.atttypid
                         where attrelid = to_regclass(quote_ident(place)) and attname = 'v')) into shown, bytes;
    return encode(convert_to('ok', 'utf8'), 'hex') || ' ' || encode(convert_to(shown, 'utf8'), 'hex') || ' '
        || encode(convert_to(bytes, 'utf8'), 'hex');
exception when others then
    get stacked diagnostics state = returned_sqlstate, message = message_text, detail = pg_exception_detail,
        hint = pg_exception_hint;
    return encode(convert_to(state, 'utf8'), 'hex') || ' ' || encode(convert_to(message, 'utf8'), 'hex') || ' '
        || encode(convert_to(detail, 'utf8'), 'hex') || ' ' || encode(convert_to(hint, 'utf8'), 'hex');
end $$;
"""

TRY_COPY = r"""
create function pg_temp.copy(statement text) returns text language plpgsql as $$
declare state text; message text; hint text; context text;
begin
    execute statement;
    return encode(convert_to('ok', 'utf8'), 'hex');
exception when others then
    get stacked diagnostics state = returned_sqlstate, message = message_text, hint = pg_exception_hint,
        context = pg_exception_context;
    return encode(convert_to(state, 'utf8'), 'hex') || ' ' || encode(convert_to(message, 'utf8'), 'hex') || ' '
        || encode(convert_to(hint, 'utf8'), 'hex') || ' ' || encode(convert_to(context, 'utf8'), 'hex');
end $$;
"""


def escape(data):
    """Bytes as a field of the files: printable ASCII and whole UTF-8 characters stay."""
    out = []
    for char in data.decode("utf8", "surrogateescape"):
        if char == "\\":
            out.append("\\\\")
        elif char in "\n\r\t":
            out.append({"\n": "\\n", "\r": "\\r", "\t": "\\t"}[char])
        elif ord(char) < 32 or ord(char) == 127 or 0xD800 <= ord(char) < 0xE000:
            out.append("".join(f"\\x{byte:02x}" for byte in char.encode("utf8", "surrogateescape")))
        else:
            out.append(char)
    return "".join(out)


def unescape(field):
    def one(match):
        text = match.group(0)
        if text.startswith("\\x"):
            return bytes([int(text[2:], 16)]).decode("latin1")
        return {"\\n": "\n", "\\r": "\r", "\\t": "\t", "\\\\": "\\"}[text]

    bytes_as_latin1 = field.encode("utf8").decode("latin1")
    return re.sub(r"\\x[0-9a-f]{2}|\\[nrt\\]", one, bytes_as_latin1).encode("latin1")


def quoted(data):
    return f"convert_from(decode('{data.hex()}', 'hex'), 'utf8')"


def ask(server, statements):
    sql = "\\set QUIET on\nset client_min_messages = warning;\n" + "\n".join(statements)
    done = subprocess.run(["psql", server, "-X", "-At", "-v", "ON_ERROR_STOP=0", "-f", "-"], input=sql, text=True, capture_output=True)
    if done.stderr:
        sys.exit(done.stderr[:2000])
    return [[bytes.fromhex(part) for part in line.split(" ")] for line in done.stdout.splitlines()]


def read(name):
    lines = (HERE / name).read_text("utf8").split("\n")
    return [line for line in lines if line.startswith("#")], [line for line in lines if line and not line.startswith("#")]


def write(name, head, rows):
    text = "\n".join(head + ["\t".join(row) for row in rows]) + "\n"
    (HERE / name).write_text(text, "utf8")


def record_values(server):
    head, lines = read("values.tsv")
    statements, cases, zone = [TRY_VALUE], [], None
    for line in lines:
        case = line.split("\t")[:3]
        cases.append(case)
        if case[1] != zone:
            zone = case[1]
            statements.append(f"set timezone = '{zone}';")
        statements.append(f"select pg_temp.try('{case[0]}', {quoted(unescape(case[2]))});")
    answers = ask(server, statements)
    assert len(answers) == len(cases)
    write("values.tsv", head, [case + [escape(part) for part in answer] for case, answer in zip(cases, answers)])


def record_copy(server):
    head, lines = read("copy.tsv")
    cases = [line.split("\t")[:4] for line in lines]
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        statements = [TRY_COPY, "set timezone = 'UTC';"]
        for number, (direction, columns, options, data) in enumerate(cases):
            source, target = f"{folder}/{number}.in", f"{folder}/{number}.out"
            pathlib.Path(source).write_bytes(unescape(data))
            load, store = (options, "format text") if direction == "in" else ("format text", options)
            copy_in = quoted(f"copy t from '{source}' with ({load})".encode("utf8"))
            statements.append(f"create temp table t ({columns});\nselect pg_temp.copy({copy_in});")
            statements.append(f"copy t to '{target}' with ({store});\ndrop table t;")
        answers = ask(server, statements)
        assert len(answers) == len(cases)
        rows = []
        for number, (case, answer) in enumerate(zip(cases, answers)):
            if answer == [b"ok"]:
                answer.append(pathlib.Path(f"{folder}/{number}.out").read_bytes())
            else:
                # The function that we ask through is not part of the answer.
                answer[3] = re.split(rb"(?:^|\n)SQL statement", answer[3])[0]
            rows.append(case + [escape(part) for part in answer])
    write("copy.tsv", head, rows)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    record_values(sys.argv[1])
    record_copy(sys.argv[1])
