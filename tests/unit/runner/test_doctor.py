# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``sendense doctor`` against real programs, files and ports."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.hubstate.ports import FIRST_PORT, LAST_PORT, PortOwner, PortPool
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir
from sendense_runner import __version__
from sendense_runner.cli import main
from sendense_runner.doctor import (
    FAILED,
    OK,
    WARNING,
    check_binding,
    check_libvirt,
    check_ports,
    check_program,
    check_repository,
    check_state_dir,
)
from tests.unit.house.rules import ROOT


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def listener(*ports: int) -> socket.socket:
    """A listener on the first of these ports that is free; one that was closed a moment ago counts as free."""
    for port in ports:
        found = socket.socket()
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind(("127.0.0.1", port))
            found.listen()
        except OSError:
            found.close()
            continue
        return found
    raise AssertionError(f"every port of {ports} is taken on this machine")


def test_program_is_found_with_its_version() -> None:
    found = check_program("qemu-img", "qemu-utils", (1, 0))
    assert found.status == OK
    assert found.advice == ""


def test_missing_program_names_its_package() -> None:
    found = check_program("no-such-program", "some-package", (1, 0))
    assert (found.status, "some-package" in found.advice) == (FAILED, True)


def test_old_program_is_a_warning(tmp_path: Path) -> None:
    executable(tmp_path / "qemu-img", "#!/bin/sh\necho qemu-img version 5.2.0\n")
    found = check_program("qemu-img", "qemu-utils", (7, 2), near=str(tmp_path))
    assert found.status == WARNING
    assert "5.2.0" in found.found
    assert "7.2" in found.advice


def test_broken_program_fails(tmp_path: Path) -> None:
    executable(tmp_path / "qemu-img", "#!/bin/sh\necho cannot load libfoo >&2\nexit 127\n")
    found = check_program("qemu-img", "qemu-utils", (7, 2), near=str(tmp_path))
    assert found.status == FAILED
    assert "cannot load libfoo" in found.found


def test_bindings() -> None:
    assert check_binding(sys.executable, "json", "python3").status == OK
    missing = check_binding(sys.executable, "no_such_binding", "python3-nothing")
    assert missing.status == FAILED
    assert "No module named" in missing.found
    assert "python3-nothing" in missing.advice
    assert check_binding("/nonexistent/python", "json", "python3").status == FAILED


def test_state_directory(short_path: str) -> None:
    tmp_path = Path(short_path)
    assert check_state_dir(str(tmp_path / "later/deeper")).status == OK
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    assert check_state_dir(str(private)).status == OK
    private.chmod(0o750)
    opened = check_state_dir(str(private))
    assert (opened.status, "chmod 0700" in opened.advice) == (FAILED, True)
    a_file = tmp_path / "file"
    a_file.touch()
    assert check_state_dir(str(a_file)).status == FAILED
    assert check_state_dir(str(a_file / "below")).status == FAILED
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    assert check_state_dir(str(link)).status == FAILED


def test_state_directory_of_somebody_else(short_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    found = check_state_dir(short_path)
    assert (found.status, "user id" in found.found) == (FAILED, True)


@pytest.fixture
def short_path() -> Iterator[str]:
    """Sockets have short paths, so state directories cannot lie in pytest's own."""
    with tempfile.TemporaryDirectory(prefix="sds") as path:
        yield path


def test_state_directory_that_is_too_deep_for_sockets(tmp_path: Path) -> None:
    found = check_state_dir(str(tmp_path / ("x" * 60)))
    assert found.status == FAILED
    assert "bytes" in found.found


def test_foreign_listener_on_a_port_is_named_and_our_own_lease_is_not(short_path: str) -> None:
    state = StateDir(os.path.join(short_path, "state")).create()
    pool = PortPool(state)
    leases = pool.allocate([PortOwner("1" * 32, "libvirt-x", "node", "vm-disk0")], wait_s=5)
    try:
        leased = leases[0].port
        with listener(leased), listener(*range(LAST_PORT, FIRST_PORT - 1, -1)) as foreign:
            foreign_port = foreign.getsockname()[1]
            found = check_ports(state.path)
    finally:
        for lease in leases:
            lease.release()
    assert found.status == WARNING
    assert "1 in use by jobs" in found.found
    named = found.advice.partition(" listens on ")[2].partition(";")[0].replace(" ...", "").split(", ")
    assert str(leased) not in named
    assert str(foreign_port) in named or found.advice.count(",") >= 4


def test_repository(tmp_path: Path) -> None:
    missing = check_repository(str(tmp_path))
    assert (missing.status, "sendense-repository.json" in missing.found) == (FAILED, True)
    marker = tmp_path / "sendense-repository.json"
    marker.write_text("{")
    assert check_repository(str(tmp_path)).status == FAILED
    marker.write_text("[]")
    assert check_repository(str(tmp_path)).status == FAILED
    marker.write_text(json.dumps({"repository_id": "7d0ff0a4-0000-4000-8000-000000000000"}))
    found = check_repository(str(tmp_path))
    assert (found.status, "7d0ff0a4" in found.found) == (OK, True)


def test_libvirt_answers_or_says_why_not() -> None:
    assert check_libvirt("test:///default").status == OK
    refused = check_libvirt("qemu+unix:///system?socket=/nonexistent")
    assert refused.status == FAILED
    assert "/nonexistent" in refused.found
    assert check_libvirt("--help").status == FAILED


def test_json_names_every_check_and_the_status_says_whether_one_failed(
    tmp_path: Path, short_path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["doctor", "--state-dir", os.path.join(short_path, "state"), "--output", "json"]
    assert main([*arguments, "--repository", str(tmp_path)]) == 3
    answer = json.loads(capsys.readouterr().out)
    assert (answer["schema"], answer["ok"]) == (1, False)
    failed = [check["name"] for check in answer["checks"] if check["status"] == "failed"]
    assert "repository" in failed
    assert {"qemu-img", "qemu-nbd", "python nbd", "state directory", "export ports"} <= {check["name"] for check in answer["checks"]}
    (tmp_path / "sendense-repository.json").write_text(json.dumps({"repository_id": "7d0ff0a4"}))
    assert main([*arguments, "--repository", str(tmp_path), "--libvirt-uri", "test:///default"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_table_gives_the_advice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--state-dir", str(tmp_path / "s"), "--repository", str(tmp_path / "none")]) == 3
    text = capsys.readouterr().out
    assert "repository        failed" in text
    assert "Mount the storage" in text


def test_wrong_usage_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["doctor", "--output", "xml"])
    assert caught.value.code == 2
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_it_runs_from_a_checkout_without_help_of_the_environment(tmp_path: Path, short_path: str) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    argv = [sys.executable, "-m", "sendense_runner"]
    version = subprocess.run([*argv, "--version"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert version.stdout == f"sendense {__version__}\n"
    state = os.path.join(short_path, "state")
    command = [*argv, "doctor", "--state-dir", state, "--output", "json"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert json.loads(done.stdout)["ok"] is True
    assert not os.path.exists(state)
