"""Writes what was measured into docs/performance.md, between its marks, and draws docs/performance.svg."""

import re

import compare

# What is to be reached, by step, engine's figure and sense: at most (<=) or at least (>=).
TARGETS = [
    ("whole numbers", "bytes a row, compressed", "<=", 4.0),
    ("two decimals", "bytes a row, compressed", "<=", 13.0),
    ("whole numbers", "load, rows/s", ">=", 800_000),
    ("whole numbers", "compress, rows/s", ">=", 1_000_000),
    ("whole numbers", "single-groupby-1-1-1, ms", "<=", 0.5),
    ("whole numbers", "single-groupby-5-8-1, ms", "<=", 1.0),
    ("whole numbers", "cpu-max-all-8, ms", "<=", 3.0),
    ("whole numbers", "double-groupby-1, ms", "<=", 4.0),
    ("whole numbers", "double-groupby-all, ms", "<=", 10.0),
    ("whole numbers", "high-cpu-all, ms", "<=", 10.0),
    ("whole numbers", "lastpoint, ms", "<=", 1.5),
    ("whole numbers", "groupby-orderby-limit, ms", "<=", 1.5),
    ("whole numbers", "count(*), ms", "<=", 0.5),
    ("many hosts", "double-groupby-1, ms", "<=", 100.0),
    ("many hosts", "double-groupby-all, ms", "<=", 250.0),
    ("many hosts", "high-cpu-all, ms", "<=", 290.0),
    ("many hosts", "lastpoint, ms", "<=", 8.0),
    ("many hosts", "cpu-max-all-8, ms", "<=", 4.0),
]
PEER_STEPS = ["whole numbers", "two decimals", "many hosts"]
PLOTTED = {"whole numbers": "100 hosts, 72 h", "many hosts": "4000 hosts, 12 h"}
OURS = "Meridian"


def write(docs, kept):
    path = docs / "performance.md"
    text = path.read_text()
    steps = {name: step["result"] for name, step in kept["steps"].items()}
    blocks = {"machine": machine(kept)}
    if any(step in steps for step in PEER_STEPS):
        blocks["targets"] = targets(steps)
        draw(docs / "performance.svg", steps)
    for name, result in steps.items():
        blocks[name] = block(name, result)
    for name, lines in blocks.items():
        mark = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = mark.subn(lambda found: f"{found[1]}\n{lines}\n\n{found[2]}", text)
        if count != 1:
            raise SystemExit(f"{path} has {count} places for {name}")
    path.write_text(text)


def block(name, result):
    if name in PEER_STEPS:
        return compare.table(result)
    return codecs(result) if name == "codecs" else figures(result)


def machine(kept):
    found = kept["machine"]
    commits = sorted({step["commit"] for step in kept["steps"].values()})
    return (f"{found['cpu']}, {found['cores']} cores, {found['memory']} of memory, Linux {found['kernel']}, "
            f"{found['disk']} on a virtual disk. Release build (`opt-level` 3, no LTO) of {', '.join(commits)}.")


def targets(steps):
    """Ours beside the target and beside the best peer of the same run."""
    lines = ["| data | figure | target | Meridian | reached | best peer, same run |", "|---|---|---:|---:|---|---:|"]
    for step, figure, sense, target in TARGETS:
        if step not in steps:
            continue
        engines = steps[step]
        ours = engines[OURS]["figures"][figure]
        peers = {name: result["figures"][figure] for name, result in engines.items() if name != OURS}
        best = best_of(peers, sense)
        reached = "yes" if (ours <= target if sense == "<=" else ours >= target) else "**no**"
        lines.append(f"| {step} | {figure} | {compare.cell(target)} | {compare.cell(ours)} | {reached} | {best} |")
    return "\n".join(lines)


def best_of(peers, sense):
    if not peers:
        return ""
    name = (min if sense == "<=" else max)(peers, key=peers.get)
    return f"{compare.cell(peers[name])} ({name})"


def figures(result):
    lines = ["| figure | value | unit |", "|---|---:|---|"]
    lines += [f"| {figure['name']} | {compare.cell(figure['value'])} | {figure['unit']} |" for figure in result]
    return "\n".join(lines)


def codecs(result):
    """One row a codec, one table a column of data."""
    lines, tables = [], {}
    for figure in result:
        if ": " not in figure["name"]:
            lines.append(f"{figure['name']}: {compare.cell(figure['value'])} {figure['unit']}.")
            continue
        column, rest = figure["name"].split(": ", 1)
        codec, what = rest.rsplit(", ", 1)
        tables.setdefault(column, {}).setdefault(codec, {})[what] = figure["value"]
    lines = [" ".join(lines), "", "| column | codec | bytes a value | encode, GB/s | decode, GB/s |", "|---|---|---:|---:|---:|"]
    for column, rows in tables.items():
        for codec, values in rows.items():
            cells = f"{values['size']:.4f} | {values['encode']:.2f} | {values['decode']:.2f}"
            lines.append(f"| {column} | {codec} | {cells} |")
    return "\n".join(lines)


def draw(path, steps):
    """Milliseconds of every query, one panel a data set, logarithmic."""
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "meridian"
    from matplotlib import pyplot
    shown = [step for step in PLOTTED if step in steps]
    figure, panels = pyplot.subplots(1, len(shown), figsize=(6.5 * len(shown), 6), squeeze=False)
    for panel, step in zip(panels[0], shown):
        draw_panel(panel, PLOTTED[step], steps[step])
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def draw_panel(panel, title, engines):
    queries = [name.removesuffix(", ms") for name in engines[OURS]["figures"] if name.endswith(", ms")]
    height = 0.8 / len(engines)
    for number, (engine, result) in enumerate(engines.items()):
        places = [row + (number - (len(engines) - 1) / 2) * height for row in range(len(queries))]
        panel.barh(places, [result["figures"][f"{query}, ms"] for query in queries], height, label=engine)
    panel.set_yticks(range(len(queries)), queries)
    panel.invert_yaxis()
    panel.set_xscale("log")
    panel.set_xlabel("ms, median")
    panel.set_title(title)
    panel.grid(axis="x", which="major", alpha=0.4)
    panel.legend()
