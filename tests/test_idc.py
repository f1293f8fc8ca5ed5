"""Fetching from the Imaging Data Commons, with a folder in place of the bucket: what was fetched stays, what is missing is asked for, and errors are sentences."""
import json, os, shutil, signal, subprocess, sys

import numpy as np
import pandas as pd
import pytest

from mammogan import idc
from mammogan.core import ParameterError
from mammogan.idc import choose_series, fetch_series, fetched, transfer_by_idc


@pytest.fixture
def bucket(tmp_path):
    "Six series of two files each, and their rows"
    rows = []
    for i in range(6):
        folder = tmp_path/"bucket"/f"1.2.{i}"; folder.mkdir(parents=True)
        for n in range(2): (folder/f"{n}.dcm").write_bytes(np.random.default_rng(i).bytes(5000+n))
        rows.append(dict(series=f"1.2.{i}", patient=f"P_{i}", files=2, bytes=10001, folder=f"P_{i}/1.2.9/1.2.{i}"))
    return tmp_path/"bucket", pd.DataFrame(rows).set_index("series")


def copying(bucket, asked=None, spoil=()):
    "A transfer from a folder; the series in `spoil` lack the end of a file"
    def transfer(uids, into):
        for uid in uids:
            if asked is not None: asked.append(uid)
            shutil.copytree(bucket/uid, into/uid)
            if uid in spoil: (into/uid/"1.dcm").write_bytes(b"half")
    return transfer


def whole(folder, series): return [u for u, row in series.iterrows() if (folder/row.folder).is_dir() and sum(p.stat().st_size for p in (folder/row.folder).iterdir()) == 10001]


def test_a_second_call_fetches_nothing(bucket, tmp_path):
    where, series = bucket
    assert fetch_series(series, tmp_path/"out", copying(where))["fetched"] == 6
    asked = []
    assert fetch_series(series, tmp_path/"out", copying(where, asked)) == dict(series=6, there=6, fetched=0, failed=[]) and asked == []


def test_half_a_file_is_not_a_series_and_is_asked_for_again(bucket, tmp_path):
    where, series = bucket
    assert fetch_series(series, tmp_path/"out", copying(where, spoil={"1.2.3"}), batch=3)["failed"] == ["1.2.3"]
    assert whole(tmp_path/"out", series) == ["1.2.0", "1.2.1", "1.2.2", "1.2.4", "1.2.5"] and not (tmp_path/"out"/"P_3").exists()
    asked = []
    fetch_series(series, tmp_path/"out", copying(where, asked))
    assert asked == ["1.2.3"] and len(whole(tmp_path/"out", series)) == 6


def test_what_was_fetched_under_an_older_index_is_not_fetched_again(bucket, tmp_path):
    where, series = bucket
    fetch_series(series, tmp_path/"out", copying(where))
    asked = []
    assert fetch_series(series.assign(bytes=9999), tmp_path/"out", copying(where, asked))["there"] == 6 and asked == []


def test_a_transfer_that_stops_leaves_what_came(bucket, tmp_path):
    where, series = bucket
    def stops(uids, into): copying(where)(uids[:1], into); raise OSError("no route to host")
    done = fetch_series(series, tmp_path/"out", stops, batch=3)
    assert done["fetched"] == 2 and len(done["failed"]) == 4 and set(fetched(tmp_path/"out")) == {"1.2.0", "1.2.3"}
    def dead(uids, into): raise OSError("no route to host")
    with pytest.raises(ValueError, match=r"Nothing of the last 4 series arrived \(no route to host\).*2 of 6 series are in .* and stay there"): fetch_series(series, tmp_path/"out", dead)
    assert len(whole(tmp_path/"out", series)) == 2


def test_killed_in_the_middle_it_goes_on_and_ends_as_if_it_had_not_been(bucket, tmp_path):
    where, series = bucket
    series.to_json(tmp_path/"series.json")
    (tmp_path/"slow.py").write_text(f"""
import shutil, sys, time
import pandas as pd
from mammogan.idc import fetch_series
def slow(uids, into):
    for uid in uids: shutil.copytree({str(where)!r}+"/"+uid, into/uid); print(uid, flush=True); time.sleep(.3)
fetch_series(pd.read_json({str(tmp_path/"series.json")!r}, convert_axes=False), {str(tmp_path/"out")!r}, slow, batch=2)
""")
    running = subprocess.Popen([sys.executable, tmp_path/"slow.py"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for _ in range(3): running.stdout.readline()      # the second batch has begun
    os.kill(running.pid, signal.SIGKILL); running.wait()
    assert whole(tmp_path/"out", series) == ["1.2.0", "1.2.1"] and (tmp_path/"out"/".fetching").is_dir()
    asked = []
    fetch_series(series, tmp_path/"out", copying(where, asked))
    assert asked == ["1.2.2", "1.2.3", "1.2.4", "1.2.5"] and len(whole(tmp_path/"out", series)) == 6 and not (tmp_path/"out"/".fetching").exists()


def test_without_the_packages_it_is_a_sentence_that_says_what_to_install(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(idc, "find_spec", lambda name: None)
    with pytest.raises(ParameterError, match=r"pip install 'mammogan\[idc\]'"): choose_series()
    with pytest.raises(ParameterError, match=r"Fetching needs the package idc-index, which is not installed: pip install 'mammogan\[idc\]'"): fetch_series(bucket[1], tmp_path/"out")


def test_an_error_in_the_clients_log_becomes_an_exception(tmp_path, monkeypatch):
    "The real transfer, with a client that behaves as idc-index 0.13 does without a network"
    import logging
    class Client:
        def download_from_selection(self, **asked): logging.getLogger("idc_index.index").error('Download process failed with the following errors:\nERROR "cp s3://…": RequestError: send request failed caused by: dial tcp: no such host\n')
    monkeypatch.setattr(idc, "_client", Client)
    monkeypatch.setattr(idc, "find_spec", lambda name: True)
    with pytest.raises(ConnectionError, match="^dial tcp: no such host$"): transfer_by_idc(["1.2"], tmp_path)


def test_the_commands_dry_run_fetches_nothing_and_says_what_it_would(tmp_path):
    pytest.importorskip("idc_index_data", reason="the index comes with the extra [idc]")
    (tmp_path/"mammogan_fetch.py").write_text("import mammogan.idc\nmammogan.idc.fetch_series = None    # a call of it would end in a TypeError\nfrom mammogan.commands import mammogan_fetch\nmammogan_fetch()\n")
    done = subprocess.run([sys.executable, tmp_path/"mammogan_fetch.py", "--patients", "2", "--out", tmp_path/"cbis", "--dry_run"], capture_output=True, text=True)
    assert done.returncode == 0 and not (tmp_path/"cbis").exists(), done.stderr
    assert "CC BY 3.0" in done.stderr and "10.7937/K9/TCIA.2016.7O02S9CY" in done.stderr and "GB" in done.stderr and "description tables" in done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["patients"] == 2 and result["series"] >= 6
