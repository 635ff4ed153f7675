"""The sentences around a table: which runs it shows, how to read it, where the papers' numbers stand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from reports.content import verdict_words
from reports.content.table import Ablation, PrintedReference, TaskTable
from reports.content.text import signed, text
from reports.content.values import NOTHING, PairedDifference
from results import fingerprints
from results.papers import OTHERS, SOURCES
from results.statistics.estimates import LEVEL
from run_format import DONE

if TYPE_CHECKING:
    import pandas as pd

# The present code's own fingerprint is not named: a committed page changes only where the answer does.
PRESENT_CODE = {
    "yes": "Measured by the present code: this checkout has the same code fingerprint.",
    "no": "Measured by earlier code: the code fingerprint of this checkout is another.",
    "mixed": "{of_present} of {all} were measured by the present code.",
    "unknown": "Whether that is the present code cannot be told: their recipe, task, mixer or data set is not here.",
}


def about(ablation: Ablation, date: str = "") -> str:
    """One paragraph: protocol, models, seeds, length, device, code and data, dates."""
    table, runs = ablation.first, ablation.runs
    done = runs[runs["state"] == DONE]
    models = listed(sorted({row.model for row in table.rows if row.model}))
    seeds = ", ".join(map(str, sorted(runs["seed"].unique())))
    finished = f"{done['run'].nunique()} of {runs['run'].nunique()} runs have finished"
    settings = ", ".join(f"`{key}={value}`" for key, value in table.changed.items())
    changed = f", changed by {settings}" if settings else ""
    sentences = [f"Protocol `{table.protocol}`{changed}, model {models or 'unknown'}, seeds {seeds}: {finished}."]
    for each in ablation.tables:
        done = each.runs[each.runs["state"] == DONE]
        if len(done):
            sentences += _provenance(done, f"of task {each.task} " if ablation.several else "")
    dates = sorted({str(moment)[:10] for moment in runs[runs["state"] == DONE]["finished"] if moment})
    when = date or " to ".join(dict.fromkeys((dates[0], dates[-1])) if dates else ())
    if when:
        sentences.append(f"Finished: {when}.")
    return " ".join(sentences)


def legend(ablation: Ablation) -> list[str]:
    """How to read the table, one sentence or two per line."""
    base = ablation.first.label_of[ablation.first.baseline]
    lines = [
        f"{'; '.join(f'{by.metric.label}: `{by.metric.metric}`' for by in (each, *each.further))} after the last "
        "epoch, never the best one"
        for each in ablation.tables
    ]
    mean = (
        f"mean over finished seeds ± half of its {100 * LEVEL:.0f} % t-interval over seeds. “2 of 3” means that the "
        "third seed has no result yet. An arm without any result shows the state of its runs."
    )
    if ablation.several:
        of_tasks = "; ".join(f"{line} (task {each.task})" for line, each in zip(lines, ablation.tables))
        lines = [f"{of_tasks}.", f"Results: {mean}"]
    else:
        lines = [f"{lines[0]}; {mean}"]
    lines += [
        f"Δ: difference to {base}, or to the arm it names, in points, paired by seed over n pairs of runs. A single "
        "pair, or pairs that all differ by the same amount, give no interval and are not judged.",
        *_control_lines(ablation),
        *_further_lines(ablation),
        verdict_words.targets(ablation),
        *verdict_words.resolution(ablation),
        *_protocol_lines(ablation),
        *verdict_words.lines(ablation),
    ]
    if any(row.other_model and row.difference is not None for each in ablation.tables for row in each.rows):
        lines.append(f"†: this arm's model is not that of {base}, so the difference is not due to the arm alone.")
    sizes = "Parameters and FLOPs are counted on our models at the resolution of this protocol"
    if labels := dict.fromkeys(each.papers.label for each in ablation.tables if each.papers):
        sizes += f"; the papers' columns are of {'; '.join(labels)}, with their model in brackets"
    lines.append(f"{sizes}.")
    if ablation.spec.times:
        devices = listed(dict.fromkeys(str(each) for each in ablation.runs["device"].dropna() if each)) or "none yet"
        lines.append(
            f"ms / image: of training, data included, as the runs logged it near their end (devices: {devices}). It "
            "compares arms only where they ran on the same kind of machine with nothing else on it."
        )
    return lines


def _control_lines(ablation: Ablation) -> Iterator[str]:
    """What a difference to the control tells."""
    table = ablation.first
    if table.control is not None and ablation.spec.control is not None:
        yield f"The control, {table.label_of[table.control]}: {ablation.spec.control.because}."


def _further_lines(ablation: Ablation) -> Iterator[str]:
    """Which metrics are beside the family of tests, and which belong to it."""
    further = [each for table in ablation.tables for each in table.further]
    if untested := listed(dict.fromkeys(each.metric.label for each in further if not each.tested)):
        yield (
            f"Further metrics of the same runs, without tests and verdicts here, because these are of the main metric "
            f"alone: {untested}."
        )
    if tested := listed(dict.fromkeys(each.metric.label for each in further if each.tested)):
        yield f"Further metrics of the same runs, whose differences are tested, too: {tested}."


def places(ablation: Ablation, tables: Iterable[TaskTable] | None = None) -> list[str]:
    """Where each published number was printed, and our own difference where the papers compare with another arm.

    tables: those of some tasks; all tasks without it.
    """
    lines = []
    for table in ablation.tables if tables is None else tables:
        for row in table.rows:
            if row.references:
                label = f"{row.label}, {table.metric.label}" if ablation.several else row.label
                lines.append(f"{label}: {'; '.join(_place(table, reference) for reference in row.references)}.")
    if lines:
        rows = [row for table in ablation.tables for row in table.rows]
        named = {reference.number.source for row in rows for reference in row.references}
        sources = SOURCES | {key: title for key, title in OTHERS.items() if key in named}
        lines.append("; ".join(f"{key}: {title}" for key, title in sources.items()) + ".")
    return lines


def listed(words: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *first, last = list(words) or [""]
    return f"{', '.join(first)} and {last}" if first else last


def _place(table: TaskTable, reference: PrintedReference) -> str:
    number, base = reference.number, reference.baseline
    sentence = f"{number.place}: {number.printed + ' ' + number.unit if number.printed else number.note}"
    if number.printed and number.note:
        sentence += f" ({number.note})"
    if base is not None and reference.difference is not None:
        sentence += f", {signed(reference.difference, number.decimals)} to {base.row} ({base.printed} {base.unit})"
    if reference.place.reading:
        sentence += f", if {reference.place.reading}"
    if reference.place.because:
        sentence += f"; no verdict: {reference.place.because}"
    if reference.against != table.baseline:
        ours = PairedDifference(reference.ours, table.metric.decimals) if reference.ours else NOTHING
        sentence += f"; compared here with {table.label_of[reference.against]}: {text(ours)}"
    return sentence


def _provenance(done: pd.DataFrame, task: str) -> Iterator[str]:
    """How long finished runs took, where, and of which code and data they are."""
    epochs = _range(done["epochs"].dropna())
    length = f"{_range(done['step'].dropna())} steps" + (
        f" ({epochs} {'epoch' if epochs == '1' else 'epochs'})" if epochs else ""
    )
    device = listed(sorted({device for device in done["device"] if device}))
    yield f"A finished run {task}took {length}" + (f" on {device}." if device else ".")
    yield from measured_by(done)


def measured_by(done: pd.DataFrame) -> Iterator[str]:
    """Which commit measured finished runs, and whether that is the present code."""
    commits = listed(sorted({commit[:8] for commit in done["commit"] if commit})) or "unknown"
    dirty = ", with uncommitted changes" if (done["dirty"] == "yes").any() else ""
    code = listed(sorted({code[:8] for code in done["code_fingerprint"] if code})) or "unknown"
    data = listed(sorted({data[:8] for data in done["data_fingerprint"] if data})) or "unknown"
    yield f"Commit {commits}{dirty}; code fingerprint {code}, data fingerprint {data}."
    if present := fingerprints.present_code(done):
        of_present = int((done[fingerprints.PRESENT_CODE] == "yes").sum())
        yield PRESENT_CODE[present].format(of_present=of_present, all=len(done))


def _protocol_lines(ablation: Ablation) -> Iterator[str]:
    """What the papers' columns are of."""
    for table in ablation.tables:
        if table.papers is None:
            continue
        of_task = f", {table.metric.label}" if ablation.several else ""
        if table.is_papers_protocol:
            yield f"Papers{of_task}: {table.papers.label}, the protocol of this table."
        else:
            yield (
                f"Papers{of_task}: {table.papers.label}. **This is another protocol than this table's "
                f"(`{table.protocol}`{', changed' if table.changed else ''}): the sizes "
                "of the two columns cannot be compared, only the signs of the differences.**"
            )


def _range(numbers: Iterable[int]) -> str:
    """``300`` or ``300 to 600``; nothing where nothing is known."""
    values = sorted({int(number) for number in numbers})
    if not values:
        return ""
    return f"{values[0]:,}" if len(values) == 1 else f"{values[0]:,} to {values[-1]:,}"
