"""The process around a command: telemetry off, pipes refused, no socket beyond this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from personabench.errors import UsageError
from personabench.models import environment

MAIN = "from personabench.cli import main; main()"
RUN = ("run", "-m", "none", "-t", "lamp4", "-n", "1")

# Runs a command in a process in which any socket to another machine would be seen.
SPY = """
import json, sys
seen = []
def spy(name, arguments):
    if name in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        seen.append([name, repr(arguments[-1] if name != "socket.getaddrinfo" else arguments[0])])
from personabench.cli import main
sys.argv[1:] = json.loads(sys.argv[1])
import personabench.models.environment as environment
if "--offline" in sys.argv:
    environment.go_offline()
sys.addaudithook(spy)  # After the guard: it sees what the guard lets through.
try:
    main()
finally:
    print(json.dumps(seen), file=sys.stderr)
"""


def run_process(folder: Path, *words: str, **variables: str) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-c", MAIN, *words],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
        env={**os.environ, **variables},
    )
    return ended.returncode, ended.stderr


@pytest.mark.parametrize(
    ("host", "near"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("localhost", True),
        ("a.localhost", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", True),
        ("", True),
        (None, True),
        (b"localhost", True),
        ("10.0.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("::ffff:10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("example.org", False),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org", False),
    ],
)
def test_only_this_machine_is_near(host: str | bytes | None, near: bool) -> None:
    assert environment.is_loopback(host) is near


OFFLINE = [
    (("--model", "a/b:c.gguf"), "c.gguf of a/b would have been fetched"),
    (("--model", "a/b"), "the list of files of a/b would have been fetched"),
    (("-b", "openai", "--model", "x", "--base-url", "http://192.0.2.1/v1"), "192.0.2.1:80"),
    (("-b", "vllm", "--base-url", "http://example.org:8000/v1"), "example.org:8000"),
]


@pytest.mark.parametrize(("words", "target"), OFFLINE)
def test_offline_says_what_would_have_been_fetched(
    tmp_path: Path, words: tuple[str, ...], target: str
) -> None:
    variables = {"OPENAI_API_KEY": "sk-test-0123456789"}
    if target.startswith("192"):
        variables["PERSONABENCH_OFFLINE"] = "1"
    else:
        words = ("--offline", *words)
    code, error = run_process(tmp_path, *RUN, *words, **variables)
    assert code == 2 and "offline: " in error and target in error and "Traceback" not in error


def test_a_download_offline_names_the_address(tmp_path: Path) -> None:
    code, error = run_process(tmp_path, "--offline", "download", "lamp4", "--target", "d")
    assert code == 2 and "https://" in error and "would have been fetched" in error


def test_no_connection_of_an_offline_process_leaves_the_machine(tmp_path: Path) -> None:
    script = """
import asyncio, socket, urllib.request
from personabench.models import environment
environment.go_offline()
import http.client, ssl
from personabench.errors import UsageError

def refused(act):
    try:
        act()
    except UsageError as error:
        assert "offline" in str(error)
        return True
    raise SystemExit(f"not refused: {act}")

udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
async def connect():
    await asyncio.open_connection("192.0.2.1", 80)
refused(lambda: socket.create_connection(("192.0.2.1", 80), 1))
refused(lambda: socket.socket().connect_ex(("192.0.2.1", 80)))
refused(lambda: socket.getaddrinfo("example.org", 80))
refused(lambda: socket.gethostbyname("example.org"))
refused(lambda: udp.sendto(b"x", ("192.0.2.1", 53)))
refused(lambda: udp.sendmsg([b"x"], [], 0, ("192.0.2.1", 53)))
refused(lambda: urllib.request.urlopen("http://192.0.2.1/", timeout=1))
refused(lambda: http.client.HTTPConnection("192.0.2.1", timeout=1).request("GET", "/"))
refused(lambda: asyncio.run(connect()))

server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).close()
socket.create_connection(("localhost", server.getsockname()[1])).close()
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.variants
def test_an_offline_run_on_the_packaged_model_stays_on_this_machine(tmp_path: Path) -> None:
    words = json.dumps([*RUN, "--offline", "--cache", "off"])
    ended = subprocess.run(
        [sys.executable, "-c", SPY, words], capture_output=True, text=True, cwd=tmp_path
    )
    assert ended.returncode == 0, ended.stderr
    events = json.loads(ended.stderr.splitlines()[-1])
    assert all("127.0.0.1" in address for _, address in events), events


def test_telemetry_is_off_unless_the_user_turned_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    names = environment.NO_TELEMETRY
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    environment.disable_telemetry()
    set_to = {name: os.environ[name] for name in names}
    assert set_to == {
        "VLLM_NO_USAGE_STATS": "1",
        "RAY_USAGE_STATS_ENABLED": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "WANDB_ERROR_REPORTING": "false",
    }


def test_the_libraries_read_these_variables() -> None:
    script = (
        "from personabench.models.environment import disable_telemetry, go_offline\n"
        "disable_telemetry(); go_offline()\n"
        "from huggingface_hub import constants\n"
        "import datasets\n"
        "assert constants.HF_HUB_DISABLE_TELEMETRY and constants.HF_HUB_OFFLINE\n"
        "assert datasets.config.HF_DATASETS_OFFLINE or datasets.config.HF_HUB_OFFLINE\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_passwords_of_proxies_are_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:a/b#c?d@e%2F@proxy:3128")
    monkeypatch.setenv("HTTP_PROXY", "proxy:3128")
    environment.encode_proxies()
    assert os.environ["HTTPS_PROXY"] == "http://me:a%2Fb%23c%3Fd%40e%2F@proxy:3128"
    assert os.environ["HTTP_PROXY"] == "proxy:3128"
    environment.encode_proxies()
    assert os.environ["HTTPS_PROXY"] == "http://me:a%2Fb%23c%3Fd%40e%2F@proxy:3128"


def test_words_that_are_no_text_are_refused() -> None:
    with pytest.raises(UsageError, match=r"word 2 of the command line .*not UTF-8"):
        environment.check_words(["ok", "m\udcff"])


def test_an_option_with_other_bytes_is_refused(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", MAIN, *RUN, "-b", "scripted", "--model", b"m\xff"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert ended.returncode == 2 and "not UTF-8" in ended.stderr
    assert "Traceback" not in ended.stderr and "\n" not in ended.stderr.strip()


def test_ray_is_refused_offline(tmp_path: Path) -> None:
    words = ("run", "-t", "lamp4", "-m", "none", "-b", "scripted", "--executor", "ray")
    code, error = run_process(tmp_path, "--offline", *words, "--shards", "2")
    assert code == 2 and "--executor ray cannot be used offline" in error
