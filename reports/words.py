"""The sentences around a table: what was run, how to read it, where the papers' numbers stand."""

from __future__ import annotations

from collections.abc import Iterable

from reports.cells import difference, signed
from reports.table import Table, detectable
from results.papers import SOURCES, Contradiction
from results.statistics import LEVEL, POWER
from run_format import DONE

CORRECTED = (
    f"Excluded: the paired t-test's p is under {1 - LEVEL:.2g} after Holm's correction over this table's rows; the "
    "intervals are not corrected, so one may leave 0 out and the verdict still be *within noise*."
)


def about(table: Table, date: str = "") -> str:
    """One paragraph: protocol, models, seeds, length, device, code and data, dates."""
    runs, done = table.runs, table.runs[table.runs["state"] == DONE]
    models = listed(sorted({row.model for row in table.rows if row.model}))
    seeds = ", ".join(map(str, sorted(runs["seed"].unique())))
    finished = f"{done['run'].nunique()} of {runs['run'].nunique()} runs have finished"
    settings = ", ".join(f"`{key}={value}`" for key, value in table.changed.items())
    changed = f", changed by {settings}" if settings else ""
    sentences = [f"Protocol `{table.protocol}`{changed}, model {models or 'unknown'}, seeds {seeds}: {finished}."]
    if len(done):
        steps, epochs = _range(done["step"].dropna()), _range(done["epochs"].dropna())
        device = listed(sorted({device for device in done["device"] if device}))
        sentences.append(f"A finished run took {steps} steps ({epochs} epochs)" + (f" on {device}." if device else "."))
        commits = listed(sorted({commit[:8] for commit in done["commit"] if commit})) or "unknown"
        dirty = ", with uncommitted changes" if (done["dirty"] == "yes").any() else ""
        code = listed(sorted({code[:8] for code in done["code_fingerprint"] if code})) or "unknown"
        data = listed(sorted({data[:8] for data in done["data_fingerprint"] if data})) or "unknown"
        sentences.append(f"Commit {commits}{dirty}; code fingerprint {code}, data fingerprint {data}.")
    dates = sorted({str(moment)[:10] for moment in done["finished"] if moment})
    when = date or " to ".join(dict.fromkeys((dates[0], dates[-1])) if dates else ())
    if when:
        sentences.append(f"Finished: {when}.")
    return " ".join(sentences)


def legend(table: Table) -> list[str]:
    """How to read the table, one sentence or two per line."""
    metric, papers = table.metric, table.spec.papers
    base = table.label_of[table.baseline]
    lines = [
        f"{metric.label}: `{metric.metric}` after the last epoch, never the best one; mean over finished seeds ± "
        f"half of its {100 * LEVEL:.0f} % t-interval. “2 of 3” means that the third seed has no result yet. "
        "An arm without any result shows the state of its runs.",
        f"Δ: difference to {base} in points, paired by seed, with a {100 * LEVEL:.0f} % t-interval over n pairs of "
        "runs. A single pair, or pairs that all differ by the same amount, give no interval and are not judged.",
        *_resolution(table),
        *_protocol_lines(table),
    ]
    if any(row.other_model and row.difference is not None for row in table.rows):
        lines.append(f"†: this arm's model is another one than that of {base}; the difference is not the arm's alone.")
    lines.append(
        f"Parameters and FLOPs are counted on our models at the resolution of this protocol; "
        f"the papers' columns are of {papers.label}, "
        "with their model in brackets."
    )
    return lines


def places(table: Table) -> list[str]:
    """Where each published number was printed, and our own difference where the papers compare with another arm."""
    lines = []
    for row in table.rows:
        parts = []
        for reference in row.references:
            number, base = reference.number, reference.baseline
            said = f"{number.place}: {number.printed + ' ' + number.unit if number.printed else number.note}"
            if number.printed and number.note:
                said += f" ({number.note})"
            if base is not None and reference.difference is not None:
                said += f", {signed(reference.difference, number.decimals)} to {base.row} ({base.printed} {base.unit})"
            if reference.against != table.baseline:
                ours = difference(reference.ours, table.metric.decimals)
                said += f"; compared here with {table.label_of[reference.against]}: {ours}"
            parts.append(said)
        if parts:
            lines.append(f"{row.label}: {'; '.join(parts)}.")
    if lines:
        lines.append("; ".join(f"{key}: {title}" for key, title in SOURCES.items()) + ".")
    return lines


def remark(entry: Contradiction) -> str:
    """One contradiction in a sentence or two."""
    place = f"{entry.source} {entry.table}, {', '.join(entry.rows)}"
    kind = {"editions": "the two versions differ", "text": "text and table differ"}.get(entry.kind, entry.kind)
    return f"{place}, {kind}: printed is {entry.printed}; {entry.against}. {' '.join(entry.evidence.split())}"


def listed(words: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *first, last = list(words) or [""]
    return f"{', '.join(first)} and {last}" if first else last


def _resolution(table: Table) -> list[str]:
    """What the seeds at hand can tell apart, a sentence."""
    said = []
    for n in sorted({row.difference.n for row in table.rows if row.difference is not None}):
        if (smallest := detectable(table, n)) is not None:
            said.append(f"{n} seeds resolve ±{smallest:.{table.metric.decimals}f}")
    if not said:
        return []
    return [
        f"{'; '.join(said)}: a paired t-test finds a true difference of that size, in points, in {100 * POWER:.0f} % "
        "of repetitions, at the deviation of the pairs' differences pooled over this table's arms and without "
        "correction for the number of rows."
    ]


def _protocol_lines(table: Table) -> list[str]:
    papers = table.spec.papers
    if table.is_papers_protocol:
        return [
            f"Papers: {papers.label}, the protocol of this table.",
            "Verdict: *agrees*: the papers' Δ, give or take its rounding, is not excluded, and 0 is. *within noise*: "
            "neither is excluded. *contradicts*: the papers' Δ is excluded. *not run*: no "
            "finished pair of runs yet. –: the papers give no difference. Where an arm's model is not the papers' "
            f"model (in brackets), only the sign is compared. {CORRECTED}",
        ]
    return [
        f"Papers: {papers.label}. **This is another protocol than this table's (`{table.protocol}`"
        f"{', changed' if table.changed else ''}): the sizes "
        "of the two columns cannot be compared, only the signs of the differences.**",
        "Verdict, by sign alone: *agrees*: 0 is excluded and our difference is on the papers' side. *within noise*: 0 "
        "is not excluded. *contradicts*: 0 is excluded and our difference is on the other side, or the papers' Δ is "
        f"0.0. *not run*: no finished pair of runs yet. –: the papers give no difference. {CORRECTED}",
    ]


def _range(numbers: Iterable[int]) -> str:
    values = sorted({int(number) for number in numbers})
    if not values:
        return "unknown"
    return f"{values[0]:,}" if len(values) == 1 else f"{values[0]:,} to {values[-1]:,}"
