"""Every bad file is one HardwareError that names file, key, value, cause and fix."""

from pathlib import Path

import pytest

from mho.errors import HardwareError
from mho.hardware import dump_hardware, load_hardware

GENERIC = 'name = "a"\n[cell]\ntechnology = "generic"\n'
RERAM = (
    'name = "a"\n[cell]\ntechnology = "reram"\n'
    "g_ref_uS = 40.0\ntimes_s = [1.0]\nsigma_uS = [[1.0]]\nread_noise = 0.01\n"
)
PCM_CURVES = (
    "[cell.drift_mean]\nlog_slope = 0\nlog_offset = 0\nlow = 0\nhigh = 0\n"
    "[cell.drift_std]\nlog_slope = 0\nlog_offset = 0\nlow = 0\nhigh = 0\n"
)
PCM = (
    'name = "a"\n[cell]\ntechnology = "pcm"\nprogramming = [1.0]\nprogramming_g_ref_uS = 25\nt0_s = 20\n'
    "t_read_s = 1e-6\n"
)

CASES = {
    "unit S": (GENERIC + "g_max_S = 25e-6", ["'cell.g_max_S'", "2.5e-05", "Did you mean 'g_max_uS'", "in uS"]),
    "unit nS": (GENERIC + "g_max_nS = 25", ["'cell.g_max_nS'", "'g_max_uS'? Write the value in uS"]),
    "unit left out": (GENERIC + "g_max = 25", ["'cell.g_max'", "'g_max_uS'? Write the value in uS"]),
    "unit of time": (GENERIC + "t0_ms = 25", ["'cell.t0_ms'", "'t0_s'? Write the value in s"]),
    "typo": (GENERIC + "read_nose = 0.1", ["'cell.read_nose'", "Did you mean 'read_noise'"]),
    "typo deep": (PCM + "read_q_power = [1, 1, 1]\n" + PCM_CURVES + "hihg = 1", ["'cell.drift_std.hihg'", "'high'"]),
    "typo at top": ("summery = 'x'\n" + GENERIC, ["'summery'", "'summary'"]),
    "key of another technology": (GENERIC + "sigma_nA = [[1, 2]]", ["'cell.sigma_nA'", "unknown key"]),
    "several": (GENERIC + "aa = 1\n[adc]\nbitz = 2", ["2 problems", "'cell.aa'", "'adc.bitz'", "'bits'"]),
    "text for int": (GENERIC + '[adc]\nbits = "6"', ["'adc.bits' = '6'", "write 6 without quotes"]),
    "float for int": (GENERIC + "[adc]\nbits = 6.5", ["'adc.bits' = 6.5", "whole number"]),
    "whole float for int": (GENERIC + "[adc]\nbits = 6.0", ["'adc.bits' = 6.0", "whole number"]),
    "bool for int": (GENERIC + "[adc]\nbits = true", ["'adc.bits' = True", "whole number"]),
    "bool for float": (GENERIC + "read_noise = true", ["'cell.read_noise' = True", "a number"]),
    "int for bool": (GENERIC + "[mapping]\nper_column = 1", ["'mapping.per_column' = 1", "true or false"]),
    "number for text": ("summary = 3\n" + GENERIC, ["'summary' = 3", "in quotes"]),
    "date": (GENERIC + "read_noise = 2020-01-01", ["'cell.read_noise'", "date"]),
    "list too short": (GENERIC + "sigma_table = [[0, 1], [25]]", ["'cell.sigma_table.1'", "too short"]),
    "list too long": (GENERIC + "sigma_table = [[0, 1], [25, 1, 2]]", ["'cell.sigma_table.1'", "too long"]),
    "part is no table": ("adc = 6\n" + GENERIC, ["'adc' = 6", "write a table, [adc]"]),
    "cell is no table": ('name = "a"\ncell = 3', ["'cell' = 3", "[cell]"]),
    "choice": (GENERIC + '[mapping]\nscheme = "signd"', ["'mapping.scheme' = 'signd'", "Did you mean 'signed'"]),
    "negative sigma": (GENERIC + "read_noise = -0.1", ["'cell.read_noise' = -0.1", "at least 0", "raise it"]),
    "too many bits": (GENERIC + "bits = 99", ["'cell.bits' = 99", "at most 24", "lower it"]),
    "infinite": (GENERIC + "g_max_uS = inf", ["'cell.g_max_uS' = inf", "finite"]),
    "not a number": (GENERIC + "g_max_uS = nan", ["'cell.g_max_uS' = nan", "finite"]),
    "range upside down": (GENERIC + "g_min_uS = 30", ["'cell.g_min_uS' = 30.0", "g_max_uS = 25.0", "lower"]),
    "enob without bits": (GENERIC + "[adc]\nenob = 5.0", ["'adc.bits' = None", "set adc.bits"]),
    "enob above bits": (GENERIC + "[adc]\nbits = 6\nenob = 7.0", ["'adc.enob' = 7.0", "bits = 6"]),
    "noise without adc": ("output_noise = 0.1\n" + GENERIC, ["'output_noise' = 0.1", "add an [adc]"]),
    "slices without bits": (GENERIC + "[mapping]\nslices = 2", ["'mapping.slices' = 2", "bits_per_slice"]),
    "faults beyond 1": (
        GENERIC + "[faults]\nstuck_on = 0.6\nstuck_off = 0.6",
        ["'faults.stuck_on' = 0.6", "exceeds 1"],
    ),
    "signed pcm": (RERAM + '[mapping]\nscheme = "signed"', ["'mapping.scheme'", "'reram'", "differential"]),
    "table too narrow": (GENERIC + "sigma_table = [[0, 1], [20, 2]]", ["'cell.sigma_table'", "does not reach"]),
    "table falls": (GENERIC + "sigma_table = [[25, 1], [0, 2]]", ["'cell.sigma_table'", "sort"]),
    "table negative": (GENERIC + "sigma_table = [[0, 1], [25, -2]]", ["'cell.sigma_table'", "negative"]),
    "noise given twice": (
        GENERIC + "programming_noise = 0.1\nsigma_table = [[0, 1], [25, 2]]",
        ["'cell.sigma_table'", "given twice"],
    ),
    "negative polynomial": (RERAM.replace("[[1.0]]", "[[1.0, -2.0]]"), ["'cell.sigma_uS'", "standard deviation of -"]),
    "empty polynomial": (RERAM.replace("[[1.0]]", "[[]]"), ["'cell.sigma_uS'", "[0.0]"]),
    "beyond the fit": (RERAM + "g_max_uS = 50", ["'cell.g_max_uS'", "nothing was measured"]),
    "times do not match": (RERAM.replace("[1.0]\n", "[1.0, 2.0]\n"), ["'cell.times_s'", "2 times for 1"]),
    "read noise missing": (PCM + PCM_CURVES, ["'cell.read_q' = None", "add read_q"]),
    "nested contradiction": (
        PCM + "read_q_power = [1, 1, 1]\n" + PCM_CURVES.replace("low = 0\nhigh = 0\n[", "low = 2\nhigh = 0\n["),
        ["'cell.drift_mean.low' = 2.0", "exchange"],
    ),
    "constant missing": (
        PCM.replace("t0_s = 20\n", "") + "read_q_power = [1, 1, 1]\n" + PCM_CURVES,
        ["'cell.t0_s'", "add"],
    ),
    "name missing": ('[cell]\ntechnology = "generic"', ["'name'", "missing"]),
    "cell missing": ('name = "a"', ["'cell.technology'", "no [cell]"]),
    "technology missing": ('name = "a"\n[cell]\nbits = 4', ["'cell.technology'", "missing", "reram-cmo"]),
    "technology unknown": (
        'name = "a"\n[cell]\ntechnology = "pmc"',
        ["'cell.technology' = 'pmc'", "Did you mean 'pcm'"],
    ),
    "technology of a wrong type": (
        'name = "a"\n[cell]\ntechnology = 3',
        ["'cell.technology' = 3", "unknown technology"],
    ),
    "other schema": ("schema = 2\n" + GENERIC, ["'schema' = 2", "schema = 1"]),
    "true is no schema": ("schema = true\n" + GENERIC, ["'schema' = True"]),
    "source of nothing": (
        GENERIC + '[[sources]]\nkey = "cell.read_nose"\ncite = "x"\nstatus = "assumed"',
        ["'sources.0.key'", "'read_noise'"],
    ),
    "typo in a source": (
        GENERIC + '[[sources]]\nkey = "cell"\ncit = "x"\nstatus = "assumed"',
        ["'sources.0.cit'", "'cite'"],
    ),
    "no value": ("name =\n", ["not valid TOML", "line 1"]),
    "key twice": (GENERIC + "bits = 2\nbits = 3\n", ["not valid TOML", "line 5"]),
    "empty": ("  \n", ["the file is empty", "pcm-hermes"]),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_file(case: str, tmp_path: Path) -> None:
    text, parts = CASES[case]
    file = tmp_path / "device.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(HardwareError) as caught:
        load_hardware(file)
    message = str(caught.value)
    assert message.startswith(str(file))
    assert "Fix: " in message
    for part in parts:
        assert part in message, message


def test_errors_mention_the_chosen_technology_only(tmp_path: Path) -> None:
    file = tmp_path / "device.toml"
    file.write_text(PCM, encoding="utf-8")
    with pytest.raises(HardwareError) as caught:
        load_hardware(file)
    assert "drift_mean" in str(caught.value)
    assert "sigma_nA" not in str(caught.value)


def test_bad_encoding(tmp_path: Path) -> None:
    file = tmp_path / "device.toml"
    file.write_bytes(GENERIC.encode() + b"# \xff\xfe")
    with pytest.raises(HardwareError, match="UTF-8"):
        load_hardware(file)


def test_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    file = tmp_path / "device.toml"
    file.write_bytes(b"\xef\xbb\xbf" + GENERIC.replace("\n", "\r\n").encode())
    assert load_hardware(file).name == "a"


def test_an_integer_may_stand_for_a_float(tmp_path: Path) -> None:
    file = tmp_path / "device.toml"
    file.write_text(GENERIC + "g_max_uS = 30", encoding="utf-8")
    assert load_hardware(file).cell.g_max_uS == 30.0


def test_unknown_preset_has_the_nearest_names() -> None:
    with pytest.raises(HardwareError, match=r"'pcm-herms'.*Did you mean 'pcm-hermes'"):
        load_hardware("pcm-herms")
    with pytest.raises(HardwareError, match="Known: flash-sonos"):
        load_hardware("zzz")


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match="no such file"):
        load_hardware(tmp_path / "nothing.toml")
    with pytest.raises(HardwareError, match="is a folder"):
        load_hardware(tmp_path)


def test_dump_escapes_text(tmp_path: Path) -> None:
    hw = load_hardware("generic").replace(summary='a "quoted" \\ text\nwith a second line, \u00b5S')
    file = tmp_path / "device.toml"
    file.write_text(dump_hardware(hw), encoding="utf-8")
    assert load_hardware(file) == hw
