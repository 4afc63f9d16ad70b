"""The parts of the README that are generated: `python -m tests.readme` writes them anew."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from lrsearch.core.suggestion import RULE_READS, RULES

README = Path(__file__).parents[1] / "README.md"
BENCH = Path(__file__).parent / "bench"
PAGES = (README, BENCH / "README.md")
COMMANDS = (
    (),
    *((name,) for name in ("search", "resume", "range-test", "report", "compare", "reproduce")),
    *((name,) for name in ("status", "sync", "ui", "tasks", "rm")),
)


def command_help() -> str:
    """The help of every command, as it is printed on a terminal of 100 columns."""
    environment = {**os.environ, "COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"}
    texts = []
    for command in COMMANDS:
        words = [*command, "--help"]
        script = "from lrsearch.cli import main; main()"
        run = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.argv = ['lrsearch', *{words!r}]; {script}"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        lines = [line.rstrip() for line in run.stdout.strip().splitlines()]
        texts.append("\n".join([f"$ lrsearch {' '.join(words)}", *lines]))
    return "```console\n" + "\n\n".join(texts) + "\n```"


def rules_table() -> str:
    """What each rule's lr is and how good it is, from the last run of `python -m tests.bench rules`."""
    figures = _results("rules")
    lines = [
        "| rule | the lr | share of the improvement lost: mean (90th percentile) | five seeds apart |",
        "|---|---|---|---|",
    ]
    for rule in RULES:
        lost = f"{figures[rule]['mean']:.1f}% ({figures[rule]['p90']:.1f}%)"
        lines.append(f"| `{rule}` | {RULE_READS[rule]} | {lost} | {figures[rule]['seeds_apart']:.1f}x |")
    return "\n".join(lines)


def overhead_table() -> str:
    """What a range test costs, from the last run of `python -m tests.bench overhead`."""
    run = _results("overhead")
    ratios: dict[str, dict[str, str]] = {}
    costs = []
    for figure in sorted(run["figures"], key=lambda figure: (figure["at"], figure["median"])):
        if figure["at"] == "cost":
            costs.append(f"| {figure['name']} | {figure['median']:.2g} s |")
        else:
            interval = f"{figure['median']:.2f} ({figure['low']:.2f}–{figure['high']:.2f})"
            ratios.setdefault(figure["name"], {})[figure["at"]] = interval
    lengths = list(dict.fromkeys(f["at"] for f in run["figures"] if f["at"] != "cost"))
    lines = [
        "Time against a bare training loop, median of the paired rounds with its 95% interval:",
        f"`{run['command']}`, {run['date'][:10]}, {run['machine']}, one torch thread.",
        "",
        "| | " + " | ".join(f"a step of {length}" for length in lengths) + " |",
        "|---" * (1 + len(lengths)) + "|",
        *(
            f"| {name} | {' | '.join(at.get(length, '–') for length in lengths)} |"
            for name, at in ratios.items()
        ),
        "",
        "| before and after | |",
        "|---|---|",
        *costs,
    ]
    return "\n".join(lines)


def regret_table(*groups: str) -> str:
    """What contestants of these groups lose and cost, from the last run of `python -m tests.bench regret`."""
    run = _results("regret")
    lines = [
        "| | median | 90th percentile | worst task | diverged | behind `default` (95%) | cost |",
        "|---|---|---|---|---|---|---|",
    ]
    for score in run["scores"]:
        if score["group"] not in groups:
            continue
        behind = score["behind"]
        said = "" if behind is None else f"{behind[0]:+.2f} ({behind[1]:+.2f} … {behind[2]:+.2f})"
        lines.append(
            f"| {score['contestant']} | {score['median']:.2f}% ± {score['median_error']:.2f} "
            f"| {score['p90']:.2f}% ± {score['p90_error']:.2f} | {score['worst_task']:.2f}% "
            f"| {score['diverged']:.1%} | {said} | {score['cost']:.1f} |"
        )
    lines += ["", f"`{run['command']}`, {run['date']}, {run['studies a task']} studies a task."]
    return "\n".join(lines)


def coverage() -> str:
    """How often the interval of each preset holds the oracle's best lr."""
    shares = {s["contestant"]: s["covered"] for s in _results("regret")["scores"] if s["how"] == "replay"}
    listed = [f"{shares[preset]:.1%} (`{preset}`)" for preset in ("default", "quick", "thorough")]
    return f"The 90% interval holds the best learning rate in {', '.join(listed)} of the studies."


def llm_table() -> str:
    """What the surface loses on the table of language models, from the last `python -m tests.bench llm`."""
    run = _results("llm")
    lines = [
        "| slices | trainings | median, nats | 90th percentile | worst | hold the best lr | octaves wide |",
        "|---" * 7 + "|",
    ]
    lines += [
        f"| {one['half']} ({one['slices']}) | {one['trainings']} | {one['median']:.4f} | {one['p90']:.4f} "
        f"| {one['worst']:.4f} | {one['covered']:.1%} | {one['octaves']:.2f} |"
        for one in run["figures"]
    ]
    lines += ["", "| judged, with all trainings | value | target | |", "|---" * 4 + "|"]
    lines += [
        f"| {one['figure']} | {one['value']} | {one['target']} | {one['said']} |" for one in run["targets"]
    ]
    return "\n".join([*lines, "", f"`{run['command']}`, {run['date']}, {run['seeds']} replays a slice."])


def decisions_table() -> str:
    """Each setting's reason with its figures."""
    scores = {s["contestant"]: s for s in _results("regret")["scores"] if s["how"] == "replay"}

    def of(name: str, *, cost: bool = False) -> str:
        score = scores[name]
        said = f"{score['median']:.2f} / {score['p90']:.2f}"
        return f"{said} at {score['cost']:.1f}" if cost else said

    rows = (
        (
            "budget of `default`",
            "16, not 24",
            f"{of('default', cost=True)}; with 24, more lrs, fine, six families and three seeds "
            f"{of('24 run-equivalents', cost=True)}",
        ),
        (
            "coarse grid",
            "three lrs a factor of 8 apart",
            f"a factor of 4: {of('coarse factor 4')}; of 2: {of('coarse factor 2', cost=True)}. "
            "The trainings saved go to fresh seeds",
        ),
        (
            "fine",
            "none in `quick` and `default`",
            f"with three more lrs {of('with fine')}: it takes a seed from the end",
        ),
        (
            "schedule under the base search",
            "constant",
            f"linear {of('base under linear')}, cosine {of('base under cosine')}",
        ),
        (
            "families, in order of simplicity",
            "constant, linear, wsd, one-cycle",
            f"with cosine and step too {of('all six families', cost=True)}: at its best lr cosine is behind "
            "linear on all five tasks (by 0.02 to 0.9), step behind constant on four",
        ),
        (
            "shift of the lr for decay",
            "2",
            f"1: {of('shift 1')}; 4: {of('shift 4')}; none at all: {of('without moving the lr for decay')}. "
            "Never up to a cliff of the base schedule: without this, digits loses 0.5",
        ),
        ("families followed by octaves", "the best", f"two: {of('two families followed', cost=True)}"),
        (
            "fresh seeds in confirm",
            "2, up to 4",
            f"one: {of('one confirm seed', cost=True)}; three from the start: {of('three confirm seeds')}, "
            "since they leave less to follow the best schedule with; no confirmation: "
            f"{of('without confirm')}",
        ),
        ("the margin delta", "0.2%", f"0.5%: {of('margin 0.5%')}"),
        ("the rule of the decision", "the margin", f"one standard error: {of('one-standard-error rule')}"),
        (
            "range test",
            "three sweeps, rule `walls`",
            f"without: {of('without range test')}. Alone `walls` has {of('range test, walls')} with constant "
            f"and {of('range test, walls + cosine')} with cosine; the table above has the other rules",
        ),
        ("`quick`", "linear and one-cycle beside constant", of("quick", cost=True)),
    )
    lines = ["| setting | decided | because |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def tasks_table() -> str:
    """Median regrets by task, those that settings were chosen on first."""
    medians = _results("regret")["medians"]
    tasks = ("digits-mlp", "mnist-5k-cnn", "fashion-mlp", "diamonds-mlp", "moby-gru")
    names = ("default", "quick", "thorough", "TPE in our bracket, confirmed, 16 runs", "TPE, 16 runs")
    return "\n".join(
        [
            "| median regret in % | " + " | ".join(tasks) + " |",
            "|---" * (1 + len(tasks)) + "|",
            *(f"| {name} | {' | '.join(f'{medians[name][t]:.2f}' for t in tasks)} |" for name in names),
        ]
    )


def faults_table() -> str:
    """What each fault lost, from the last run of `python -m tests.bench faults`."""
    run = _results("faults")
    lines = [
        "| fault | tried | lost or double | trained again, at most | training held up, at most |",
        "|---|---|---|---|---|",
    ]
    for fault in run["outcomes"]:
        again = "" if fault["repeated_s"] is None else f"{max(fault['repeated_s']):.2f} s"
        held = "" if fault["held_up_s"] is None else f"{fault['held_up_s']:.2f} s"
        lines.append(f"| {fault['fault']} | {fault['tried']} | {fault['lost']} | {again} | {held} |")
    servers = " and ".join(
        f"{times} times on {name}" for name, times in run["server faults tried on"].items()
    )
    away = f"servers {servers.replace('1 times', 'once')}, away for {run['server away for, s']:.0f} s"
    return "\n".join([*lines, "", f"`{run['command']}`, {run['date']}; {away}."])


def storage_table() -> str:
    """How fast journals and stores are, from the last run of `python -m tests.bench storage`."""
    run = _results("storage")
    lines = ["| | |", "|---|---|"]
    lines += [f"| {figure['name']} | {figure['value']:.3g} {figure['unit']} |" for figure in run["figures"]]
    return "\n".join([*lines, "", f"`{run['command']}`, {run['date']}, {run['machine']}."])


def _results(benchmark: str) -> Any:
    return json.loads((BENCH / "results" / f"{benchmark}.json").read_text(encoding="utf-8"))


def rendered(text: str) -> str:
    """A page with its generated parts made anew."""
    parts = {
        "help": command_help,
        "rules": rules_table,
        "regret": lambda: regret_table("ours", "peers", "searches", "recipes"),
        "ablations": lambda: regret_table("ablations"),
        "rivals": lambda: regret_table("rivals"),
        "regret-rules": lambda: regret_table("rules"),
        "live": lambda: regret_table("live"),
        "tasks": tasks_table,
        "coverage": coverage,
        "decisions": decisions_table,
        "llm": llm_table,
        "overhead": overhead_table,
        "faults": faults_table,
        "storage": storage_table,
    }
    for name, part in parts.items():
        before, begin, rest = text.partition(f"<!-- {name}: begin -->\n")
        _, end, after = rest.partition(f"<!-- {name}: end -->")
        if begin and end:
            text = f"{before}{begin}{part()}\n{end}{after}"
    return text


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(rendered(page.read_text(encoding="utf-8")), encoding="utf-8")
