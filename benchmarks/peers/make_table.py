"""Fill the table of README.md from ../results/peers.json: ``python benchmarks/peers/make_table.py``."""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- peers:begin -->", "<!-- peers:end -->"
NAMES = {"lightning": "aihwkit-lightning", "aihwkit_torch": "aihwkit, torch", "aihwkit_cpp": "aihwkit, C++",
         "crosssim": "CrossSim"}  # fmt: skip


def block(document: dict[str, Any]) -> str:
    """The text between the marks: a row a tool, a column a case."""
    cases, machine, settings = list(document["results"]), document["machine"], document["settings"]
    threads = f"{settings['threads']} thread{'s' * (settings['threads'] > 1)} of {machine['cores']} cores"
    clock = "wall-clock time" if settings["clock"] == "wall" else "**processor time**"
    lines = [
        BEGIN,
        f"{machine['processor']}, {threads}, {clock}, torch {machine['torch']}, {settings['rounds']} rounds, "
        f"load average {machine['load_average']}.",
        "",
        "| tool | " + " | ".join(f"`{case}`" for case in cases) + " |",
        "| --- |" + " ---: |" * len(cases),
    ]
    for tool, said in document["versions"].items():
        cells = [_cell(document["results"][case][tool], tool == "torch") for case in cases]
        lines.append(f"| {NAMES.get(tool, tool)} {said['version']} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, END])


def _cell(row: dict[str, Any], alone: bool) -> str:
    """Milliseconds, and for all but torch the ratio with quartiles."""
    if "failed" in row:
        return "failed"
    ms = f"{row['ms']:.2f} ms" if row["ms"] < 100 else f"{row['ms']:.0f} ms"
    low, high = row["ratio_quartiles"]
    return ms if alone else f"{ms}, **{row['ratio']:.2f}** ({low:.2f} to {high:.2f})"


def filled(text: str, document: dict[str, Any]) -> str:
    """``text`` with what stands between the marks made anew."""
    before, _, rest = text.partition(BEGIN)
    return before + block(document) + rest.partition(END)[2]


def main() -> None:
    document = json.loads((HERE.parent / "results" / "peers.json").read_text(encoding="utf-8"))
    readme = HERE / "README.md"
    readme.write_text(filled(readme.read_text(encoding="utf-8"), document), encoding="utf-8")


if __name__ == "__main__":
    main()
