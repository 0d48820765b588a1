"""Fill the table of benchmarks/README.md from benchmarks/speed.json: ``python benchmarks/make_speed.py``."""

import json
from pathlib import Path
from typing import Any

from mho.evaluation.atomic import write_atomically

HERE = Path(__file__).parent
BEGIN, END = "<!-- speed:begin -->", "<!-- speed:end -->"
HEAD = (
    "case", "digital ms", "mho ms", "ratio (quartiles)", "aim", "peak MB, digital / mho", "GFLOP", "MB", "10^6 normals",
    "floor ms, digital / mho", "over its floor, digital / mho",
)  # fmt: skip


def block(document: dict[str, Any]) -> str:
    """The text between the marks."""
    machine, peaks = document["machine"], document["roofline"]["peaks"]
    lines = [
        BEGIN,
        f"{machine['processor']}, {document['settings']['threads']} threads of {machine['cores']} cores, "
        f"torch {machine['torch']}, load average {machine['load_average']}. Peaks measured in the same run: "
        f"{peaks['operations_s'] / 1e9:.0f} GFLOP/s, {peaks['bytes_s'] / 1e9:.0f} GB/s, "
        f"{peaks['normals_s'] / 1e9:.2f} * 10^9 normals a second.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "| --- |" + " ---: |" * (len(HEAD) - 1),
    ]
    lines += [_line(row, document["roofline"]["cases"][row["case"]]) for row in document["results"]]
    return "\n".join([*lines, END])


def _line(row: dict[str, Any], floor: dict[str, Any]) -> str:
    low, high = row["ratio_quartiles"]
    verdict = "met" if row["ratio"] <= row["aim"] else "over"
    sides = ("digital", "mho")
    floors = [floor[f"{side}_floor_ms"] for side in sides]
    over = [row[f"{side}_ms"] / least for side, least in zip(sides, floors, strict=True)]
    cells = (
        f"`{row['case']}`",
        f"{row['digital_ms']:.3g}",
        f"{row['mho_ms']:.3g}",
        f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})",
        f"{row['aim']} {verdict}",
        f"{row['digital_peak_mb']:.0f} / {row['peak_mb']:.0f}",
        f"{floor['operations'] / 1e9:.3g}",
        f"{floor['bytes'] / 1e6:.3g}",
        f"{floor['normals'] / 1e6:.3g}",
        " / ".join(f"{value:.3g}" for value in floors),
        " / ".join(f"{value:.2f}" for value in over),
    )
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    document = json.loads((HERE / "speed.json").read_text(encoding="utf-8"))
    path = HERE / "README.md"
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    write_atomically(path, (before + block(document) + after).encode())


if __name__ == "__main__":
    main()
