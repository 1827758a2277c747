"""The page of the evaluation."""

from collections.abc import Sequence

from steps.evaluate.gallery import described, gallery, spread
from steps.evaluate.report import EvaluationReport, Figure, ProductionReport, Sample, ValidationLosses, Verdicts
from steps.page import Page, Section, Table, Tile, Tone

TONES: dict[str, Tone] = {"better": "good", "worse": "bad", "lower": "plain", "higher": "plain", "undecided": "plain"}
SHOWN_CHANGES = 20
SHOWN_UNTESTED = 10


def draw(report: EvaluationReport) -> Page:
    """The comparison first, then what became of the programs, then how values are spread, then answers side by side."""
    return Page(
        title="Base against tuned",
        lead=f"{report.loss_rows:,} test rows with {report.loss_tokens:,} completion tokens, {report.answers:,} greedy "
        f"answers of at most {report.max_new_tokens} tokens. Same prompts, same process, adapter off and on.",
        tiles=[
            *([] if report.verdicts is None or report.verdicts.isolated else [NOT_ISOLATED]),
            *(
                Tile(
                    figure.name,
                    figure.show(figure.tuned),
                    f"base {figure.show(figure.base)}, {figure.verdict}",
                    TONES[figure.verdict],
                )
                for figure in report.figures
            ),
        ],
        sections=[
            Section("Figures", text=_about_figures(report), table=_table(report.figures, report.confidence)),
            *(_production(report.production, report.confidence) if report.production else []),
            *(_validation(report.validation, report.confidence) if report.validation else []),
            *(
                Section(f"Set {one.name}: {len(one.samples)} problems", table=_table(one.figures, report.confidence))
                for one in report.sets
            ),
            *_guards(report),
            *(_execution("the test rows", report.verdicts, report.samples) if report.verdicts else []),
            *(
                section
                for one in report.sets
                if one.verdicts
                for section in _execution(f"set {one.name}", one.verdicts, one.samples)
            ),
            *spread(report.distributions),
            *gallery(report.samples),
        ],
    )


NOT_ISOLATED = Tile("generated code", "not isolated", "ran as this user, with limits alone", "warn")


def _about_figures(report: EvaluationReport) -> str:
    about = (
        f"Behind each share: its count, and its {report.confidence:.0%} interval (Wilson). The difference's interval "
        "is by paired bootstrap over the same rows. Length: tokens of an answer without the end token. Repetition: of "
        "an answer's sequences of four tokens, the share that occurs earlier in it (seq-rep-4)."
    )
    if report.sampling is not None:
        drawn = report.sampling
        about += (
            f" Sampled: {drawn.answers} answers to each prompt whose tests count, at temperature {drawn.temperature:g} "
            f"and top-p {drawn.top_p:g}; pass@k by the unbiased estimator, its intervals by bootstrap over prompts."
        )
    if report.noise is not None:
        again = report.noise
        about += (
            f" Noise: how much the base's own figure changed when it was asked again in the opposite order, "
            f"{again.batch_size} rows at a time: {again.loss_rows} losses and {again.answers} answers, over these rows "
            "alone. A difference that is not larger says nothing."
        )
    return about


def _validation(losses: ValidationLosses, confidence: float) -> list[Section]:
    about = (
        f"{losses.rows:,} rows with {losses.tokens:,} completion tokens. Training chose its checkpoint by the loss on "
        "the validation rows, so these figures prove nothing and decide nothing: those of the test rows do."
    )
    return [Section("Validation rows", text=about, table=_table(losses.figures, confidence))]


def _production(production: ProductionReport, confidence: float) -> list[Section]:
    title = f"Candidate against production, version {production.version}"
    if production.same:
        return [Section(title, text="The adapter in production is this very one: there is nothing to measure.")]
    if production.why_not:
        return [Section(title, text=f"Not measured: {production.why_not}")]
    about = (
        "The same test rows, asked with the prompt template of the version in production. Its loss is per token "
        "of the candidate's tokenizer, so that the two compare. Noise is the base's."
    )
    return [Section(title, text=about, table=_table(production.figures, confidence, ("production", "candidate")))]


def _guards(report: EvaluationReport) -> list[Section]:
    """What the tuning cost elsewhere: the reference text, and tasks of lm-eval."""
    sections = [
        Section(
            f"Task {one.name}: {one.documents:,} documents",
            text="Means over the documents, by lm-eval; the interval is by paired bootstrap over documents.",
            table=_table(one.figures, report.confidence),
        )
        for one in report.tasks
    ]
    if report.forgetting is None:
        return sections
    about = (
        f"{report.forgetting.windows} windows of {report.forgetting.text}, {report.forgetting.tokens:,} tokens in all"
    )
    table = _table(report.forgetting.figures, report.confidence)
    text = f"The loss on a text that is no training data: {about}. The interval is by paired bootstrap over windows."
    return [Section("Forgetting", text=text, table=table), *sections]


def _table(figures: list[Figure], confidence: float, names: tuple[str, str] = ("base", "tuned")) -> Table:
    columns = ["figure", *names, "difference", f"{confidence:.0%} interval", "verdict"]
    rows = [_row(figure) for figure in figures]
    if any(figure.noise is not None for figure in figures):
        columns.insert(-1, "noise")
        for row, figure in zip(rows, figures, strict=True):
            row.insert(-1, figure.shown_noise())
    return Table(columns, rows)


def _row(figure: Figure) -> list[str]:
    interval = f"{figure.show(figure.low)} to {figure.show(figure.high)}"
    name = f"{figure.name} ({figure.unit})" if figure.unit else figure.name
    base = _with_count(figure, figure.base, figure.base_interval)
    tuned = _with_count(figure, figure.tuned, figure.tuned_interval)
    return [name, base, tuned, figure.show(figure.difference), interval, figure.verdict]


def _with_count(figure: Figure, value: float, interval: tuple[float, float] | None) -> str:
    if interval is None:
        return figure.show(value)
    low, high = map(figure.show, interval)
    count = f"{round(value * figure.rows)} of {figure.rows}; " if figure.rows is not None else ""
    return f"{figure.show(value)} ({count}{low} to {high})"


def _execution(of: str, verdicts: Verdicts, samples: Sequence[Sample]) -> list[Section]:
    """What became of the programs: by kind, from pass to fail and back, and the tests that say nothing."""
    kinds = list(dict.fromkeys([*verdicts.base, *verdicts.tuned]))
    kinds.sort(key=lambda kind: -verdicts.base.get(kind, 0) - verdicts.tuned.get(kind, 0))
    rows = [[kind, f"{verdicts.base.get(kind, 0):,}", f"{verdicts.tuned.get(kind, 0):,}"] for kind in kinds]
    where = "isolated in namespaces of their own" if verdicts.isolated else "NOT isolated, with limits alone"
    sections = [
        Section(
            f"What became of the programs, {of}",
            text=f"{verdicts.programs:,} answers ran, {where}. {verdicts.with_tests:,} rows carry tests; "
            f"{verdicts.tested:,} of them count, since their own solution passes here. "
            "“ran”: to its end, without tests to pass.",
            table=Table(["verdict", "base", "tuned"], rows),
        )
    ]
    for title, before, after in (("From pass to fail", True, False), ("From fail to pass", False, True)):
        changed = [sample for sample in samples if _passed(sample) == (before, after)]
        if verdicts.tested:
            sections.append(_changes(f"{title}, {of}", changed))
    if verdicts.untested:
        sections.append(_untested(of, verdicts))
    return sections


def _passed(sample: Sample) -> tuple[bool, bool] | None:
    """Whether base and tuned pass, where the tests count."""
    if sample.base_verdict is None or sample.tuned_verdict is None:
        return None
    return sample.base_verdict.passed, sample.tuned_verdict.passed


def _changes(title: str, changed: Sequence[Sample]) -> Section:
    if not changed:
        return Section(title, text="No prompt.")
    rows = [
        [_first_line(sample.instruction), described(sample.base_verdict), described(sample.tuned_verdict)]
        for sample in changed[:SHOWN_CHANGES]
    ]
    more = f", the first {SHOWN_CHANGES}" if len(changed) > SHOWN_CHANGES else ""
    about = f"{len(changed):,} {'prompt' if len(changed) == 1 else 'prompts'}{more}."
    return Section(title, text=about, table=Table(["prompt", "base", "tuned"], rows))


def _untested(of: str, verdicts: Verdicts) -> Section:
    more = f"; the first {SHOWN_UNTESTED}" if len(verdicts.untested) > SHOWN_UNTESTED else ""
    return Section(
        f"Tests that say nothing here, {of}",
        text=f"{len(verdicts.untested):,} rows whose own solution fails their tests in the sandbox, or just anything "
        f"passes them, so that their answers are run but not tested{more}.",
        table=Table(["row", "its own solution"], [list(row) for row in verdicts.untested[:SHOWN_UNTESTED]], ["row"]),
    )


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:100] if text.strip() else ""
