"""The sentences that say what a verdict means, what it is corrected for, and how much a page could have resolved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from reports.content.table import Ablation, TaskTable, detectable, deviation
from results import papers
from results.statistics.estimates import LEVEL, POWER
from results.statistics.verdicts import (
    CHANCE,
    EQUIVALENCE,
    MOST_SEEDS,
    chance_of_agreement,
    false_exclusion,
    seeds_to_agree,
)

WIDER = 1.5  # times our deviation: what the papers' runs are also assumed to have, to say how often verdicts then err


def by_size(*, difference: bool) -> str:
    """What verdicts on sizes mean, of differences or of means."""
    if difference:
        theirs, ours, run, digit = "Δ", "Δ", "pair of runs", "one printed unit"
    else:
        theirs, ours, run, digit = "number", "mean", "run", "half a printed unit"
    return (
        f"*excluded*: the papers' {theirs} lies outside the {percent(LEVEL)} prediction interval of one {run} like "
        f"ours, widened by {digit} for rounding; their runs are taken to scatter as ours do. *agrees*: not excluded, "
        f"and the {percent(EQUIVALENCE)} interval of our {ours} lies within the margin around the printed one (two "
        "one-sided tests). *inconclusive*: neither."
    )


def margins(metrics: Iterable[str]) -> str:
    """The margins of these metrics of the papers."""
    by_margin: dict[float, list[str]] = {}
    for metric in dict.fromkeys(metrics):
        by_margin.setdefault(papers.margin(metric), []).append(metric)
    clauses = (f"±{margin:g} points ({', '.join(names)})" for margin, names in by_margin.items())
    return f"Margin: {'; '.join(clauses)}."


def lines(ablation: Ablation) -> Iterator[str]:
    """How the verdicts of an ablation are reached, and what its seeds could have resolved."""
    with_papers = [table for table in ablation.tables if table.papers is not None]
    compared = [each for table in with_papers for row in table.rows for each in row.compared]
    if any(each.by_size for each in compared):
        yield (
            f"Verdict: {by_size(difference=True)} In brackets: that prediction interval. "
            f"{margins(each.number.metric for each in compared)} *not run*: no finished pair of runs yet. "
            "–: the papers give no difference."
        )
        for table in with_papers:
            yield from _could_agree(ablation, table)
    if any(not each.by_size for each in compared):
        target = "seeds and images" if any(each.new_images for each in compared) else "seeds"
        yield (
            "Verdict by sign alone, where protocol or model are not the papers': *same sign*, *opposite sign*: our Δ "
            f"differs from 0 (p < {1 - LEVEL:.2g} over {target}). *not resolved*: it may be 0. Below the papers' "
            "Δ: where their true difference lies if their single runs scatter as ours do. *not run*: no finished pair "
            "of runs yet. –: the papers give no difference, or 0.0, which has no sign."
        )
    yield from _family(ablation)


def targets(ablation: Ablation) -> str:
    """What the intervals are about."""
    over_seeds = (
        f"Intervals over seeds ({percent(LEVEL)} t-interval over n pairs of runs) hold for these evaluation images: "
        "what other seeds would give on them."
    )
    images = sorted({row.new_images.images for table in ablation.tables for row in table.rows if row.new_images})
    if not images:
        return f"{over_seeds} What holds for new images is not known: no two pairs recorded theirs."
    counts = " or ".join(f"{count:,}" for count in images)
    return (
        f"{over_seeds} Intervals over seeds and images hold for the task: what other seeds would give on new images "
        f"(random effects of both; {counts} images). With few seeds the latter may be the narrower: they know the "
        "scatter from the images as well, the former from n differences alone."
    )


def resolution(ablation: Ablation) -> Iterator[str]:
    """The smallest differences that the finished seeds can tell from 0, and what repeats of one run differ by."""
    clauses = []
    for table in ablation.tables:
        for n in sorted({row.difference.n for row in table.rows if row.difference is not None}):
            if (smallest := detectable(table, n)) is not None:
                clauses.append(f"{n} seeds resolve ±{smallest:.{table.metric.decimals}f}{_of_task(ablation, table)}")
    if clauses:
        yield (
            f"{'; '.join(clauses)}: a paired t-test finds a true difference of that size, in points, in "
            f"{percent(POWER)} of repetitions, at the deviation of the pairs' differences pooled over this table's "
            "arms and without correction for the number of rows."
        )
    for table in ablation.tables:
        if table.repeats is not None:
            sd = f"{table.repeats.sd:.{table.metric.decimals}f}"
            yield (
                f"Noise floor{_of_task(ablation, table)}: the same run, measured again on another day or processor, "
                f"differs with a deviation of {sd} points ({table.repeats.freedom:g} repeats). A Δ between two single "
                f"runs moves by {2**0.5:.1f} times that without any cause."
            )


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _could_agree(ablation: Ablation, table: TaskTable) -> Iterator[str]:
    """How often equal arms would agree, and how many seeds it takes, at the deviations of a table."""
    sd = deviation(table)
    spreads = [row.difference.unpaired for row in table.rows if row.difference is not None and row.difference.unpaired]
    seeds = {each.ours.n for row in table.rows for each in row.compared if each.by_size and each.ours}
    if sd is None or not spreads or not seeds or table.papers is None:
        return
    n, margin = max(seeds), papers.margin(table.papers.metric)
    single = (sum(spread.sd**2 for spread in spreads) / len(spreads)) ** 0.5
    needed = seeds_to_agree(sd, single, margin)
    more = f"{needed} seeds would make that" if needed else f"not even {MOST_SEEDS} seeds would make that"
    yield (
        f"What would resolve *inconclusive*{_of_task(ablation, table)}: at these deviations equal arms *agree* in "
        f"{percent(chance_of_agreement(sd, single, n, margin))} of repetitions with n = {n}; {more} {percent(CHANCE)}. "
        f"Of equal pairs {percent(1 - LEVEL)} are *excluded* before correction, and "
        f"{percent(false_exclusion(2 * (n - 1), n, WIDER))} if the papers' runs scatter {WIDER:g} times as ours do."
    )


def _family(ablation: Ablation) -> Iterator[str]:
    """What p-values are corrected for."""
    pairs, sized = set(), 0
    for table in ablation.tested:
        for row in table.rows:
            tests = [(row.against, row.judgement), (table.control or row.arm, row.control_judgement)]
            tests += [(each.against, each.judgement) for each in row.together]
            tests += [(each.against, each.judgement) for each in row.compared]
            pairs |= {
                (table.task, table.metric.metric, frozenset((row.arm, against)))
                for against, judgement in tests
                if judgement.p_holm is not None
            }
            sized += sum(each.judgement.papers_p_holm is not None for each in row.compared)
    if len(pairs) + sized > 1:
        of_tasks = " and tasks" if ablation.several else ""
        parts = [f"the {len(pairs)} differences of this table's rows{of_tasks} against 0"] * bool(pairs)
        parts += [f"the {sized} comparisons with the papers' numbers"] * bool(sized)
        families = " and, apart from them, over ".join(parts)
        uncorrected = "intervals and *agrees*" if sized else "intervals"
        yield f"p-values are corrected (Holm) over {families}; {uncorrected} are not."


def _of_task(ablation: Ablation, table: TaskTable) -> str:
    return f" of {table.metric.label}" if ablation.several else ""
