"""The files of a finished study: written at its end, and read again."""

from __future__ import annotations

import json
from collections.abc import Sequence

from lrsearch.core.answer import Answer, StageResult
from lrsearch.errors import RecordError, first_line
from lrsearch.files import write_json, write_whole, writing
from lrsearch.report.study_page_data import ReportData
from lrsearch.tracking.folder import FORMAT, StudyFolder, check_format
from lrsearch.tracking.provenance import clean
from lrsearch.tracking.reading import read_run, read_start

FILES = (
    *("plan.json", "result.json", "trials.csv", "report.html"),
    *("plots/response.png", "plots/schedules.png"),
)
"""What a finished study writes into its folder, and shows in MLflow."""


def write_files(
    folder: StudyFolder, answer: Answer, stages: Sequence[StageResult], trials: str, data: ReportData
) -> None:
    """Write the plots and the report from `data`, the table of the `trials` (CSV), and at last the result.

    Raises RecordError where they cannot be written.
    """
    from lrsearch.report.page import draw, page

    plots = folder.path / "plots"
    with writing(plots):
        plots.mkdir(exist_ok=True)
    write_whole(folder.path / "trials.csv", trials)
    pictures = draw(data)
    for name in ("response", "schedules"):
        write_whole(plots / f"{name}.png", pictures[name])
    write_whole(folder.report, page(data, pictures, clean))
    plain = [stage.to_dict() for stage in stages]
    write_json(folder.result, {"format": FORMAT, "answer": answer.to_dict(), "stages": plain})


def read_result(folder: StudyFolder) -> tuple[Answer, tuple[StageResult, ...]]:
    """Return the answer and the stages of a finished study.

    Raises RecordError where its file is missing, damaged, or another lrsearch's.
    """
    try:
        values = json.loads(folder.result.read_text(encoding="utf-8"))
        check_format(folder.result, values["format"])
        stages = tuple(map(StageResult.from_dict, values["stages"]))
        return Answer.from_dict(values["answer"]), stages
    except FileNotFoundError:
        raise RecordError(
            f"{folder.name} is not finished; continue with: lrsearch resume {folder.name}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecordError(f"{folder.result} is damaged: {first_line(error)}") from error


def is_finished(folder: StudyFolder) -> bool:
    """Return whether a study has its answer, and its run has ended with it."""
    if not folder.result.is_file():
        return False
    runs = (read_run(path) for path in folder.journals() if read_start(path).kind == "study")
    return any(run.end is not None and run.end.status == "FINISHED" for run in runs)
