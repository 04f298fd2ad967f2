"""edge-face installed in a whole Debian that was booted: what the unit and scripts/install promise, proved.

The tests build upon each other: one machine is installed, used, upgraded, rebooted and at last cleaned.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edge_face.migrations import MIGRATIONS
from tests.integration.test_daemon import write_clip
from tests.support.daemon import free_port
from tests.support.machine import ROOT, Machine
from tests.support.photos import astronaut, blank, jpeg
from tests.support.schemas import make_older, schema

pytestmark = pytest.mark.system

STATE = "/var/lib/edge-face"
CONFIG = "/etc/edge-face/config.ini"
SOURCE = "/root/edge-face"


class Gate:
    """The machine with edge-face on a clip and a broker of its own."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.broker = free_port()
        self.api = free_port()

    def configure(self, **camera: str) -> None:
        source = {"source": f"{STATE}/clip.avi", "loop": "true"} | camera
        lines = [
            "[node]\nid = gate-1",
            "[camera]\n" + "\n".join(f"{key} = {value}" for key, value in source.items()),
            f"[storage]\npath = {STATE}/edge-face.db",
            f"[api]\nport = {self.api}",
            f"[mqtt]\nhost = 127.0.0.1\nport = {self.broker}",
            "[decision]\ncooldown = 0\npresence_timeout = 1",
        ]
        self.machine.path(CONFIG).write_text("\n".join(lines) + "\n")

    def copy_source(self) -> None:
        """This checkout, as it stands, into the machine."""
        target = self.machine.path(SOURCE)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        copy = f"git ls-files -co --exclude-standard | tar -cf - -T - | tar -xf - -C {target}"
        subprocess.run(["sh", "-c", copy], cwd=ROOT, check=True)

    def install(self, *options: str, check: bool = True) -> str:
        return self.machine(f"{SOURCE}/scripts/install", *options, check=check, timeout_s=900)

    def ready(self, limit_s: float = 60) -> None:
        """Until it is active, and its camera delivers."""
        status = lambda: self.machine.show("StatusText")  # noqa: E731
        self.machine.until(lambda: self.machine.show("ActiveState") == "active" and status().endswith("fps"), limit_s)

    def pid(self) -> int:
        return int(self.machine.show("MainPID"))

    def children(self) -> list[int]:
        found = self.machine("pgrep", "--parent", str(self.pid()), "--full", "edge_face.worker", check=False)
        return [int(word) for word in found.split()]

    def child(self) -> int:
        """The camera's."""
        (child,) = self.children()
        return child

    def event(self, limit_s: int = 30) -> dict[str, object]:
        """The next one that the broker hears."""
        text = self.machine(
            *("mosquitto_sub", "-h", "127.0.0.1", "-p", str(self.broker), "-t", "edge-face/gate-1/front/event"),
            *("-C", "1", "-W", str(limit_s)),
        )
        found: dict[str, object] = json.loads(text)
        return found


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def gate(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    machine = Machine(request.param)
    try:
        machine.boot()
        gate = Gate(machine)
        gate.copy_source()
        photo = machine.path("/root/eileen.jpg")
        photo.write_bytes(jpeg(astronaut()))
        machine.path("/etc/mosquitto/conf.d/gate.conf").write_text(f"listener {gate.broker}\nallow_anonymous true\n")
        machine("systemctl", "restart", "mosquitto")
        clip = write_clip(tmp_path_factory.mktemp("clip") / "clip.avi", (blank(), 2), (astronaut(), 3), (blank(), 2))
        shutil.copy(clip, machine.path("/root/clip.avi"))
        yield gate
    finally:
        machine.power_off()


@pytest.fixture(autouse=True)
def working(gate: Gate, request: pytest.FixtureRequest) -> None:
    """Each test after the first begins with a gate that works."""
    if request.node.originalname != "test_installed_it_starts_and_tells":
        gate.ready()


def test_installed_it_starts_and_tells(gate: Gate) -> None:
    run = gate.machine
    said = gate.install()
    assert "edge-face is installed" in said
    assert re.search(r"models +ok", said)
    assert run("systemctl", "is-enabled", "edge-face").strip() == "enabled"
    assert run("stat", "-c", "%U %a", STATE).split() == ["edge-face", "700"]
    run("install", "-o", "edge-face", "-m", "600", "/root/clip.avi", f"{STATE}/clip.avi")
    run("install", "-o", "edge-face", "-m", "600", "/root/eileen.jpg", f"{STATE}/eileen.jpg")
    gate.configure()
    assert "Eileen" in run("edge-face", "enroll", "Eileen", f"{STATE}/eileen.jpg")
    run("systemctl", "restart", "edge-face", timeout_s=300)  # returns when it is ready
    gate.ready()
    event = gate.event()
    assert (event["status"], event["name"]) == ("PASS", "Eileen")
    entries = run("journalctl", "CAMERA=front", "STATUS=PASS", "--output=json", "--no-pager").splitlines()
    assert json.loads(entries[-1])["PERSON"] == "eileen"
    assert json.loads(entries[-1])["_SYSTEMD_UNIT"] == "edge-face.service"
    assert len(run("edge-face", "token").strip()) > 20


def test_the_sandbox_is_really_tight(gate: Gate) -> None:
    """Asked from inside: a camera's program tries what a program that was taken over would."""
    machine = gate.machine
    machine.path("/home/katya").mkdir(exist_ok=True)
    machine.path("/home/katya/diary").write_text("secret")
    machine.path("/usr/local/lib/probe.py").write_text(PROBE)
    gate.configure(source="exec:/usr/bin/python3 /usr/local/lib/probe.py", loop="false")
    machine("systemctl", "restart", "edge-face", timeout_s=300)
    result = machine.path(f"{STATE}/probe.json")
    machine.until(result.exists)
    found = json.loads(result.read_text())
    gate.configure()
    machine("systemctl", "restart", "edge-face", timeout_s=300)
    assert found == {
        "write state": "ok",
        "write /etc": "EROFS",
        "write /opt": "EROFS",
        "write /usr": "EROFS",
        "write /var/tmp": "ok",  # its own
        "read home": "refused",
        "read shadow": "EACCES",
        "raw socket": "refused",
        "packet socket": "refused",
        "capabilities": "0000000000000000",
        "no new privileges": "1",
        "mount": "refused",
        "unshare": "refused",
        "memory that can be written and run": "refused",
        "run from state": "EACCES",
        "kernel settings": "EROFS",
        "set clock": "EPERM",
        "disk": "refused",
        "other processes": "hidden",
    }


def test_killed_parent_and_child_come_back(gate: Gate) -> None:
    run, parent = gate.machine, gate.pid()
    run("kill", "-9", str(parent))
    run.until(lambda: gate.pid() not in (0, parent))
    gate.ready()
    parent, child = gate.pid(), gate.child()
    run("kill", "-9", str(child))
    run.until(lambda: gate.children() not in ([], [child]))
    gate.ready()
    assert gate.pid() == parent
    assert gate.event()["status"] == "PASS"


def test_a_hung_child_is_replaced_by_its_parent(gate: Gate) -> None:
    run, parent, child = gate.machine, gate.pid(), gate.child()
    run("kill", "-STOP", str(child))
    run.until(lambda: "front lost" in run.show("StatusText"))
    run.until(lambda: gate.children() not in ([], [child]), 60)
    gate.ready()
    assert gate.pid() == parent
    assert gate.child() != child


def test_a_stopped_parent_is_restarted_by_the_watchdog(gate: Gate) -> None:
    run, parent = gate.machine, gate.pid()
    run("kill", "-STOP", str(parent))
    run.until(lambda: gate.pid() not in (0, parent), 60)
    gate.ready()
    assert "Watchdog timeout" in run("journalctl", "--unit=edge-face", "--no-pager", "--lines=50")


def test_a_reload_is_taken_over_and_a_broken_file_is_not(gate: Gate) -> None:
    run, parent, child = gate.machine, gate.pid(), gate.child()
    config = run.path(CONFIG)
    good = config.read_text()
    journal = lambda: run("journalctl", "--unit=edge-face", "--no-pager", "--lines=20")  # noqa: E731
    config.write_text(good.replace("cooldown = 0", "cooldown = 1"))
    run("systemctl", "reload", "edge-face")
    run.until(lambda: "asked by SIGHUP): [decision] cooldown" in journal())
    config.write_text(good.replace("cooldown = 0", "cooldown = soon\nmargn = 1"))
    run("systemctl", "reload", "edge-face")
    run.until(lambda: "[decision] cooldown: expected a number" in journal())
    assert "[decision] margn: no such key" in journal()
    config.write_text(good)
    gate.ready()
    assert (gate.pid(), gate.child()) == (parent, child)
    assert gate.event()["status"] == "PASS"


def test_a_secret_comes_as_a_credential(gate: Gate) -> None:
    run = gate.machine
    file = run.path("/etc/edge-face/credentials/mqtt.password")
    file.write_text("geheim\n")
    file.chmod(0o600)
    run.path("/etc/mosquitto/conf.d/gate.conf").write_text(
        f"listener {gate.broker}\nallow_anonymous true\npassword_file /etc/mosquitto/passwords\n"
    )
    run("mosquitto_passwd", "-c", "-b", "/etc/mosquitto/passwords", "gate", "geheim")
    run("chmod", "644", "/etc/mosquitto/passwords")
    run("systemctl", "restart", "mosquitto")
    config = run.path(CONFIG)
    config.write_text(config.read_text().replace("[mqtt]\n", "[mqtt]\nusername = gate\n"))
    run("systemctl", "restart", "edge-face", timeout_s=300)
    gate.ready()
    assert gate.event()["status"] == "PASS"
    assert "geheim" not in run("cat", f"/proc/{gate.pid()}/environ")


def test_a_full_disk_and_back(gate: Gate) -> None:
    """The state on a small disk of its own, which somebody fills."""
    run = gate.machine
    run("systemctl", "stop", "edge-face")
    run("cp", "-a", STATE, "/root/state")
    run("mount", "-t", "tmpfs", "-o", "size=24m,mode=700,uid=edge-face", "tmpfs", STATE)
    run("sh", "-c", f"cp -a /root/state/. {STATE}/")
    run("systemctl", "start", "edge-face", timeout_s=300)
    gate.ready()
    run("sh", "-c", f"dd if=/dev/zero of={STATE}/full bs=4k 2>/dev/null || true")
    for _ in range(2):
        assert gate.event()["status"] == "PASS"
    health = run("python3", "-c", HEALTH.format(port=gate.api))
    assert json.loads(health)["status"] == "degraded"
    run("rm", f"{STATE}/full")
    run.until(lambda: json.loads(run("python3", "-c", HEALTH.format(port=gate.api)))["status"] == "ok", 60)
    run("systemctl", "stop", "edge-face")
    run("umount", STATE)
    run("systemctl", "start", "edge-face", timeout_s=300)


def test_an_upgrade_keeps_everything_and_a_bad_one_is_undone(gate: Gate) -> None:
    """The one before wrote an older schema, and the bad ones would write newer ones, with which it could not start."""
    run = gate.machine
    release = lambda: run("readlink", "-f", "/opt/edge-face/current").strip()  # noqa: E731
    database = run.path(f"{STATE}/edge-face.db")
    config = run.path(CONFIG).read_text()
    first = release()
    run("systemctl", "stop", "edge-face")
    make_older(database)
    assert schema(database) == 5
    gate.copy_source()
    newer_schema(gate)
    assert "edge-face is upgraded" in gate.install()
    second = release()
    assert second != first
    assert run.path(CONFIG).read_text() == config
    assert "Eileen" in run("edge-face", "people")
    assert "of long ago" in run("edge-face", "events", "--format", "json")
    gate.ready()
    assert schema(database) == len(MIGRATIONS) + 1
    assert gate.event()["status"] == "PASS"

    newer_schema(gate)
    check = run.path(f"{SOURCE}/edge_face/commands/check.py")
    good = check.read_text()
    check.write_text(good.replace("    failures = sum(", "    failures = 1 + sum("))
    said = gate.install(check=False)
    assert "the version before runs on" in said
    assert release() == second
    assert schema(database) == len(MIGRATIONS) + 1
    gate.ready()
    assert gate.event()["status"] == "PASS"
    check.write_text(good)
    daemon = run.path(f"{SOURCE}/edge_face/daemon.py")
    daemon.write_text(daemon.read_text().replace("        config = self._config\n", "        raise SystemExit(3)\n", 1))
    unit = run.path(f"{SOURCE}/systemd/edge-face.service")
    unit.write_text(unit.read_text().replace("Restart=always", "Restart=no"))
    said = gate.install(check=False)
    assert "did not start: the version before runs on" in said
    assert release() == second
    gate.ready()
    assert schema(database) == len(MIGRATIONS) + 1
    assert "Eileen" in run("edge-face", "people")
    assert gate.event()["status"] == "PASS"
    assert len(run("ls", "/opt/edge-face/releases").split()) == 2


def newer_schema(gate: Gate) -> None:
    """The source to install next has one more step."""
    file = gate.machine.path(f"{SOURCE}/edge_face/migrations.py")
    text = file.read_text()
    step = f'    "CREATE TABLE newer_{text.count("newer_")} (x INTEGER) STRICT;",\n'
    file.write_text(text.replace(")\n\n\nclass Unsuitable", f"{step})\n\n\nclass Unsuitable"))


def test_templates_are_encrypted_with_a_key_that_root_alone_can_read(gate: Gate) -> None:
    run = gate.machine
    database, key = run.path(f"{STATE}/edge-face.db"), run.path("/etc/edge-face/credentials/storage.template_key")
    with closing(sqlite3.connect(database)) as db:
        ((template,),) = db.execute("SELECT encoding FROM templates").fetchall()
    assert template in database.read_bytes() + database.with_name(database.name + "-wal").read_bytes()
    gate.copy_source()  # the test of upgrades left one that does not start
    newer_schema(gate)
    said = gate.install("--encrypt")
    assert "made the key" in said
    assert "are encrypted with the key" in said
    gate.ready()
    files = [file for file in database.parent.rglob("*") if file.is_file()]
    assert not [file for file in files if template in file.read_bytes()]
    assert gate.event()["status"] == "PASS"
    assert run("stat", "-c", "%U %a", "/etc/edge-face/credentials/storage.template_key").split() == ["root", "600"]
    assert key.read_text().strip() not in run("cat", f"/proc/{gate.pid()}/environ")
    # Commands have the key while they run, and leave it nowhere.
    assert "people: 1, faces: 1" in run("edge-face", "templates")
    assert "Eileen" in run("edge-face", "recognize", f"{STATE}/eileen.jpg")
    assert run("sh", "-c", "ls -d /run/edge-face.* 2>/dev/null || true") == ""
    kept = key.read_text()
    key.unlink()
    run("systemctl", "restart", "--no-block", "edge-face")
    run.until(lambda: "[storage] template_key is empty" in run("journalctl", "--unit=edge-face", "--lines=20"), 60)
    assert run.show("ActiveState") != "active"
    key.write_text(kept)
    key.chmod(0o600)
    run("systemctl", "restart", "edge-face", timeout_s=300)
    gate.ready()
    assert gate.event()["status"] == "PASS"


def test_it_is_there_again_after_a_reboot(gate: Gate) -> None:
    gate.machine.power_off()
    gate.machine.boot()
    gate.ready()
    assert gate.event()["status"] == "PASS"


def test_removed_it_leaves_the_data_and_purged_nothing(gate: Gate) -> None:
    run = gate.machine
    gate.copy_source()
    newer_schema(gate)
    assert "are kept" in gate.install("--remove")
    assert "could not be found" in run("systemctl", "status", "edge-face", check=False)
    assert not run.path("/opt/edge-face").exists()
    assert run.path(f"{STATE}/edge-face.db").exists()
    assert run.path(CONFIG).exists()
    assert "edge-face is installed" in gate.install()
    gate.ready()
    assert "Eileen" in run("edge-face", "people")
    gate.install("--purge")
    for folder in ("/opt/edge-face", "/etc/edge-face", STATE, "/var/cache/edge-face", "/usr/local/bin/edge-face"):
        assert not run.path(folder).exists(), folder
    assert run("getent", "passwd", "edge-face", check=False) == ""


HEALTH = (
    "import urllib.request as u, urllib.error as e\n"
    "try: print(u.urlopen('http://127.0.0.1:{port}/healthz').read().decode())\n"
    "except e.HTTPError as x: print(x.read().decode())"
)

PROBE = Path(__file__).parents[1].joinpath("support", "sandbox_probe.py").read_text()
