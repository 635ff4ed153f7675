"""README and docs state no number that the committed results, the counts or the papers do not give.

A table of results stands below a comment that names where its numbers are from:
``<!-- numbers: LABEL [LABEL …] METRIC [METRIC …] -->``, labels of results/measured and metrics of their runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from reports import specification_files
from results import archive, counts, papers
from results.statistics.estimates import mean_interval, paired_difference
from tests import readme_findings

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
WHOLE = ("README.md", "probes.md")  # every number in these is checked
SOURCE = re.compile(r"<!-- numbers: (.+) -->")
FINDINGS = "<!-- findings -->"
PRINTED = re.compile(r"<!-- printed: (.+), (.+), (.+) -->")  # paper, table, metric
RESULT = re.compile(r"accuracy|top-1|\bΔ|params|flops|miou|\bap\b", re.IGNORECASE)  # in a header
NUMBER = re.compile(r"(?<![\w.])[+−-]?\d+(?:\.\d+)?")
# Numbers in prose with a decimal point or a per cent sign that are no results, by document.
IN_PROSE = {
    "README.md": {
        "3.10": "version of Python",
        "2203.06108": "arXiv",
        "95 %": "level of intervals",
        "22.05": "version of Slurm",
        "0.57": "test_parameters_of_the_variant_that_is_ours",
    },
    "probes.md": {
        "2312.04927": "arXiv",
        "2508.19029": "arXiv",
        "42 %": "test_a_vote_of_the_places_that_cues_can_name",
        "37 %": "test_a_vote_of_the_places_that_cues_can_name",
        "28 %": "test_a_vote_of_the_places_that_cues_can_name",
        "99 %": "of a prototype, said to be of one",
        "86 %": "of a prototype, said to be of one",
        "60 %": "definition of an object token",
        "25 %": "chance, of four classes",
        "1.3": "milliseconds to draw a scene, on one machine",
    },
}


@dataclass(frozen=True)
class DocumentTable:
    """A table of a document. sources: the words of the comment above it, if there is one; printed: of a table that
    repeats what a paper prints, the paper, its table and the metric of the last column; findings: whether it is that
    of the findings' page."""

    document: str
    line: int
    header: list[str]
    rows: list[list[str]]
    sources: tuple[str, ...]
    printed: tuple[str, ...]
    findings: bool = False

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def tables() -> Iterator[DocumentTable]:
    for path in DOCUMENTS:
        lines = without_code(path.read_text(encoding="utf-8")).splitlines()
        above: tuple[str, ...] = ()
        printed: tuple[str, ...] = ()
        for number, line in enumerate(lines):
            if match := SOURCE.fullmatch(line):
                above = tuple(match[1].split())
            if match := PRINTED.fullmatch(line):
                printed = match.groups()
            if re.match(r"\|[ :|-]+\|$", line) and "-" in line:
                rows = []
                for row in lines[number + 1 :]:
                    if not row.startswith("|"):
                        break
                    rows.append(cells(row))
                findings = FINDINGS in lines[max(0, number - 3) : number]
                yield DocumentTable(path.name, number, cells(lines[number - 1]), rows, above, printed, findings)
                above = printed = ()
            elif line and not line.startswith(("|", "<!--")):
                above = printed = ()


def without_code(text: str) -> str:
    """Lines of code blocks are emptied, so that line numbers stay."""
    return re.sub(r"^```.*?^```$", lambda block: "\n" * block[0].count("\n"), text, flags=re.M | re.S)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def decimals(text: str) -> list[str]:
    return re.findall(r"(?<![\w.])\d+\.\d+(?![\w.])", text)


TABLES = list(tables())
MARKED = [table for table in TABLES if table.sources]


@dataclass(frozen=True)
class Source:
    """What the committed results of a table's comment hold, by the label of an arm."""

    runs: dict[str, set[str]]
    finals: dict[str, dict[str, dict[int, float]]]  # metric -> arm -> seed -> value
    reach: dict[str, dict[tuple[str, str], float]]  # arm -> direction, distance -> accuracy, in %
    flops_g: dict[str, float]
    params_m: dict[str, float]
    printed: dict[str, set[float]]


@cache
def source(words: tuple[str, ...]) -> Source:
    labels = [word for word in words if word in archive.labels()]
    metrics = [word for word in words if word not in labels and word != "reach"]
    assert labels and metrics, f"{words}: labels of results/measured and metrics"
    made = Source({}, {metric: {} for metric in metrics}, {}, {}, {}, {})
    for label in labels:
        collected = archive.read(archive.folder(label))
        plan = archive.plan_of(collected)
        names = {arm["name"]: arm["label"] for arm in plan["arms"]}
        runs = collected.runs.assign(label=collected.runs["arm"].map(names))
        for name, rows in runs.groupby("label"):
            made.runs.setdefault(name, set(rows["run"]))
            made.flops_g[name], made.params_m[name] = rows["flops_g"].iloc[0], rows["params_m"].iloc[0]
        for metric in metrics:
            for arm, seed, value in collected.finals(metric)[["arm", "seed", "value"]].itertuples(index=False):
                made.finals[metric].setdefault(names[arm], {})[int(seed)] = value
        for (arm, direction, distance), rows in (
            collected.curves[collected.curves["curve"] == "reach"].groupby(["arm", "direction", "distance"])
            if "direction" in collected.curves
            else ()
        ):
            accuracy = 100 * rows["correct"].sum() / rows["count"].sum()
            made.reach.setdefault(names[arm], {})[direction, str(int(distance))] = accuracy
        spec = specification_files.of_sweep(plan["sweep"])
        metric = spec.papers.metric if spec.papers else ""
        for arm, described in spec.arms.items():
            found = [papers.number(p.source, p.table, p.row, metric) for p in described.published]
            made.printed.setdefault(names.get(arm, arm), set()).update(n.value for n in found if n.value is not None)
    return made


def expected(table: DocumentTable, row: list[str], column: int) -> list[float] | set[float]:
    """The numbers of one cell: in this order, or any of a set."""
    given, header, arm = source(table.sources), table.header[column], row[0]
    assert arm in given.runs, f"{table}: the results have {', '.join(given.runs)}, no {arm!r}"
    of_metrics = list(given.finals.values())
    values = of_metrics[0][arm]
    if header.isdigit():
        return [given.reach[arm][row[table.header.index("direction")], header]]
    if header == "FLOPs (G)":
        return [given.flops_g[arm]]
    if header == "Params (M)":
        return [given.params_m[arm]]
    if header.startswith("Papers"):
        return given.printed[arm]
    if match := re.fullmatch(r"Δ to (.+?)(?: \[95 % interval\])?", header):
        if arm == match[1]:
            return []
        difference = paired_difference(values, of_metrics[0][match[1]])
        return [difference.mean, difference.low, difference.high, difference.n]
    if header.endswith("by seed"):
        by_seed = [at for at, title in enumerate(table.header) if title.endswith("by seed")]
        chosen = of_metrics[by_seed.index(column)][arm]  # in the order of the comment
        return [chosen[seed] for seed in sorted(chosen)]
    assert header.endswith("(%)"), f"{table}: what is in column {header!r}?"
    interval = mean_interval(values)
    return [interval.mean, (interval.high - interval.low) / 2, interval.n]


@pytest.mark.parametrize("table", MARKED, ids=str)
def test_numbers_of_a_table_are_those_of_its_source_to_the_last_digit(table):
    compared = 0
    for row in table.rows:
        for column in range(1, len(table.header)):
            if table.header[column] == "direction":
                continue
            wanted, cell = expected(table, row, column), row[column]
            printed = [text.replace("−", "-") for text in NUMBER.findall(cell)]
            place = f"{table}, {row[0]}, {table.header[column]}: {cell}"
            if isinstance(wanted, set):
                assert {float(text) for text in printed} <= wanted, place
                continue
            assert len(printed) == len(wanted), place
            for text, value in zip(printed, wanted):
                unit = 10.0 ** -len(text.partition(".")[2])
                assert abs(float(text) - value) <= 0.5 * unit + 1e-9, f"{place}; it is {value}"
                compared += 1
    assert compared >= 6


@pytest.mark.parametrize("table", [table for table in TABLES if table.printed], ids=str)
def test_numbers_of_a_paper_are_those_that_it_prints(table):
    paper, name, metric = table.printed
    assert table.rows
    for row, *_, stated in table.rows:
        assert float(stated) == papers.number(paper, name, row, metric).value, f"{table}: {row}"


def test_the_findings_in_readme_are_those_of_the_committed_results():
    """``python -m tests.readme_findings`` writes them there."""
    assert (
        readme_findings.TABLE.search(readme_findings.README.read_text(encoding="utf-8"))[0] == readme_findings.table()
    )


def test_readme_stays_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_arms_of_several_results_are_the_same_runs_where_they_share_a_name():
    for words in {table.sources for table in MARKED}:
        seen: dict[str, set[str]] = {}
        for label in (word for word in words if word in archive.labels()):
            for arm, runs in source((label, *(word for word in words if "/" in word))).runs.items():
                assert seen.setdefault(arm, runs) == runs, (words, arm)


def test_tables_of_results_say_where_their_numbers_are_from():
    results = [table for table in TABLES if RESULT.search(" ".join(table.header))]
    whole = [
        table
        for table in TABLES
        if table.document in WHOLE and any(decimals(cell) for row in table.rows for cell in row)
    ]
    assert [
        str(table)
        for table in (*results, *whole)
        if not table.sources + table.printed + (table.findings,) * table.findings
    ] == []
    assert {table.document for table in MARKED} >= set(WHOLE)


@pytest.mark.parametrize("name", WHOLE)
def test_numbers_in_prose_are_no_results_that_nothing_holds_to_account(name):
    text = without_code(next(path for path in DOCUMENTS if path.name == name).read_text(encoding="utf-8"))
    prose = "\n".join(line for line in text.splitlines() if not line.startswith(("|", "    ")))
    stated = {*decimals(prose), *re.findall(r"\d+ %", prose)}
    assert stated == set(IN_PROSE[name])


def test_the_commit_that_is_named_is_the_one_that_measured():
    text = (ROOT / "docs" / "probes.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w-]+)` \((commit [^)]*)\)", text)
    assert [label for label, _ in named] == [
        "reach-smoke",
        "reach-smoke-256px",
        "search-smoke",
        "pair-smoke",
        "diagonal-smoke",
        "match-smoke",
        "probe_attacks-smoke",
    ]
    for label, words in named:
        runs = archive.read(archive.folder(label)).runs
        assert {each[:8] for each in runs["commit"] if each} == set(re.findall(r"[0-9a-f]{8}", words))


def test_parameters_of_the_variant_that_is_ours():
    """As README creates it: with 1,000 classes."""
    import timm

    import atm  # noqa: F401

    model = timm.create_model("atmnet_nano", num_classes=1000)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert f"`nano` (ours, {millions:.2f} M parameters)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_counts_that_are_stated_for_the_papers_arms():
    """docs/sweeps.md infers S from costs."""
    text = " ".join((ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8").split())
    sentence = re.search(r"S = 1 is inferred from their costs: (.*?); the released S gives (.*?) and (.*?) G\.", text)
    labels = ("xT, joint, S = 1 (xT-A)", "ATMNet-xT", "xT, 3 samples, S = 1 (xT-B)", "ATMNet-xT",
              "xT, joint, released S", "xT, 3 samples, released S")  # fmt: skip
    counted = [f"{counts.load()[label, 0, 'flops_g']:.3f}" for label in labels]
    assert re.findall(r"\d\.\d{3}", sentence[0]) == counted


def test_macros_that_docs_give_as_examples_are_those_of_the_committed_pages():
    text = " ".join((ROOT / "docs" / "reports.md").read_text(encoding="utf-8").split())
    examples = re.findall(r"`\\(atm\w+)\{\}` (?:is )?([+−-]?[\d.]+\d)", text)
    committed = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "reports" / "pages").glob("*/macros.tex"))
    values = dict(re.findall(r"\\newcommand\{\\(\w+)\}\{(.*?)\}", committed))
    assert len(examples) == 2
    assert {name: values[name] for name, _ in examples} == dict(examples)
