"""The command line as people and scripts have it: processes, a terminal, signals, a shell's TAB."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import JOURNAL_ADAPTER, PATIENCE_S, Served, served, wait_for

GATEWAY = str(Path(sys.executable).with_name("gateway"))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = f'[[pools]]\nname = "journal"\nadapter = "{JOURNAL_ADAPTER}"\nsize = 1\nconcurrency = 16\n'
    with served(tmp_path_factory.mktemp("cli"), settings=settings) as gateway:
        yield gateway


def environment(gateway: Served, **more: str) -> dict[str, str]:
    return {**os.environ, "GATEWAY_URL": gateway.url, **more}


class Terminal:
    """A command with a terminal of its own; `text` is all that it has written there."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.text = ""
        ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**env, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
            close_fds=True,
        )
        os.close(theirs)
        self._ours = ours
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:
                # EIO: nobody has the other side open any more.
                return
            if not data:
                return
            self.text += data.decode("utf-8", "replace")

    def interrupt(self) -> None:
        """What a terminal sends for Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join(PATIENCE_S)
            os.close(self._ours)


def test_a_terminal_shows_a_live_view_and_the_end(gateway: Served) -> None:
    terminal = Terminal([GATEWAY, "stream", "paced", "tag=live", "count=20", "interval_ms=30"], environment(gateway))
    assert terminal.wait() == 0
    assert re.search(r"paced r_\w+", terminal.text)
    assert "█" in terminal.text
    assert "20 chunks in " in terminal.text
    assert "ok: 20 chunks in" in terminal.text
    # The cursor is there again.
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")


def test_a_failure_on_a_terminal_is_a_panel_that_names_the_field(gateway: Served) -> None:
    terminal = Terminal([GATEWAY, "stream", "paced", "tag=x", "count=many"], environment(gateway))
    assert terminal.wait() == 1
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.text)
    assert text.startswith("╭─ 422 The arguments do not fit the tool's schema ─")
    assert "/count: " in text


def test_ctrl_c_cancels_the_run_and_says_so(gateway: Served) -> None:
    terminal = Terminal([GATEWAY, "stream", "endless", "tag=ctrl-c"], environment(gateway))
    wait_for(lambda: "running" in terminal.text, "the first chunk")
    terminal.interrupt()
    assert terminal.wait() == 130
    assert re.search(r"cancelled r_\w+", terminal.text)
    wait_for(lambda: "finally" in gateway.journal("ctrl-c"), "the tool's end")


def piped(gateway: Served, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([GATEWAY, *arguments], env=environment(gateway), stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_ctrl_c_in_a_pipe_cancels_the_run(gateway: Served) -> None:
    with piped(gateway, "stream", "endless", "tag=pipe") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b'{"n":1}\n'
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, b"cancelled r_" in said, b"Traceback" in said) == (130, True, False)
    wait_for(lambda: "finally" in gateway.journal("pipe"), "the tool's end")


def test_a_second_ctrl_c_does_not_wait_for_the_gateway(gateway: Served) -> None:
    with piped(gateway, "stream", "endless", "tag=twice") as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(gateway.pid, signal.SIGSTOP)
        try:
            process.send_signal(signal.SIGINT)
            # It has hung up, and now asks a gateway that doesn't answer to cancel the run.
            wait_for(lambda: is_asked(gateway), "the farewell")
            process.send_signal(signal.SIGINT)
            assert process.wait(1.5) == 130
            assert process.stderr is not None
            assert b"cancels it when nobody" in process.stderr.read()
        finally:
            os.kill(gateway.pid, signal.SIGCONT)
            process.kill()
    wait_for(lambda: "finally" in gateway.journal("twice"), "the tool's end")


def is_asked(gateway: Served) -> bool:
    """Whether something has come for a gateway that it has yet to read (proc_net_tcp: the state 01 is established, then tx:rx)."""
    connections = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    port = f":{gateway.port:04X}"
    return any(fields[1].endswith(port) and fields[3] == "01" and int(fields[4].split(":")[1], 16) for fields in connections)


def test_ctrl_c_leaves_a_run_that_was_joined(gateway: Served) -> None:
    run = gateway.client.post("/v1/tools/endless/runs", json={"tag": "joined"}).json()["run"]
    with piped(gateway, "attach", run) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, f"gateway attach {run}.".encode() in said) == (130, True)
    assert gateway.client.delete(f"/v1/runs/{run}").json()["state"] == "cancelled"
    assert gateway.client.get(f"/v1/runs/{run}").json()["end"]["error"]["detail"].endswith("by a client")


def test_who_has_seen_enough_ends_the_run(gateway: Served) -> None:
    command = f"{GATEWAY} stream endless tag=head | head -n 1"
    done = subprocess.run(command, shell=True, env=environment(gateway), capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert (done.stdout, "Traceback" in done.stderr) == ('{"n":1}\n', False)
    wait_for(lambda: "finally" in gateway.journal("head"), "the tool's end")


def test_arguments_come_from_a_pipe(gateway: Served) -> None:
    command = [GATEWAY, "stream", "numbered", "-", "count=2"]
    done = subprocess.run(command, input='{"tag": "stdin"}', env=environment(gateway), capture_output=True, text=True, check=True)
    assert done.stdout == '{"stream":"stdin","n":1}\n{"stream":"stdin","n":2}\n'


def complete(gateway: Served, words: str, url: str | None = None) -> list[str]:
    """What bash would offer behind these words."""
    count = len(words.split(" ")) - 1
    env = environment(gateway, _GATEWAY_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(count))
    if url is not None:
        env["GATEWAY_URL"] = url
    done = subprocess.run([GATEWAY], env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.stderr == ""
    return done.stdout.split()


def test_a_tab_offers_tools_arguments_and_options(gateway: Served) -> None:
    assert complete(gateway, "gateway stream endl") == ["endless", "endless_async"]
    assert complete(gateway, "gateway stream paced co") == ["count="]
    assert "--on-disconnect" in complete(gateway, "gateway stream paced --on")
    assert complete(gateway, "gateway att") == ["attach"]


def test_a_tab_offers_nothing_where_there_is_no_gateway(gateway: Served) -> None:
    assert complete(gateway, "gateway stream endl", url="http://127.0.0.1:1") == []
    assert complete(gateway, "gateway stream endl", url="nonsense") == []


@pytest.mark.parametrize("arguments", [["tools"], ["runs"], ["version"]])
def test_client_commands_load_no_web_server(gateway: Served, arguments: list[str]) -> None:
    code = (
        "import sys\nfrom gateway.cli import app\n"
        f"app({arguments!r}, standalone_mode=False)\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'fastapi', 'uvicorn', 'grpc', 'starlette'}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(gateway), capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
