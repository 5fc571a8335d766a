"""R7: an MLflow server that refuses, hangs, answers 500, is killed and comes back costs no row and no time.

Between rlstack and a real `mlflow server` stands a stub that misbehaves when told. Everything is on loopback.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rlstack.tracking.journal import JOURNAL, read_rows
from rlstack.tracking.mlflow_run import read_tracked_run

HOST = "127.0.0.1"
SHORT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}
"""So that an outage is noticed within seconds."""
TRAIN = """
import json, sys, time
from pathlib import Path
from rlstack import Trainer
from rlstack.env import CartPole
from rlstack.tracking import mlflow_sender
mlflow_sender._RETRY = 0.5
directory = Path(sys.argv[1])
config = {"num_envs": 256, "horizon": 32, "model_config": {"hiddens": [64, 64]}, "device": "cpu", "seed": 0}
every = {"every_updates": 20, "every_seconds": None}
if (directory / "checkpoints").is_dir():
    trainer = Trainer.resume(directory)
else:
    trainer = Trainer(CartPole, algorithm_config=config, run_dir=directory, checkpoint_config=every)
log, logging, start, updates = trainer.tracker.log, 0.0, time.perf_counter(), 0
def timed(stats):
    global logging
    before = time.perf_counter()
    log(stats)
    logging += time.perf_counter() - before
trainer.tracker.log = timed
for _ in trainer.updates(stop_conditions=[]):
    updates += 1
    if updates == 1:
        start, logging = time.perf_counter(), 0.0
    print(updates, flush=True)
whole = time.perf_counter() - start
trainer.close()
print(json.dumps({"share": logging / whole, "ms": 1e3 * logging / max(1, updates - 1)}), flush=True)
"""


class Stub(ThreadingHTTPServer):
    """Hands requests on to the real server, or misbehaves."""

    daemon_threads = True
    mode = "pass"

    def __init__(self, port: int) -> None:
        super().__init__((HOST, 0), _Handler)
        self.behind = port


class _Handler(BaseHTTPRequestHandler):
    server: Stub

    def answer(self) -> None:
        mode = self.server.mode
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if mode == "hang":
            time.sleep(4)
            return
        if mode == "refuse":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if mode == "500":
            self.send_error(500)
            return
        behind = http.client.HTTPConnection(HOST, self.server.behind, timeout=30)
        try:
            headers = {key: value for key, value in self.headers.items() if key.lower() != "host"}
            behind.request(self.command, self.path, body, headers)
            response = behind.getresponse()
            said = response.read()
        except OSError:
            # The server behind is down.
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if mode == "lose":
            # It has done what was asked for, but nobody hears of it.
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(response.status)
        self.send_header("Content-Type", response.headers.get("Content-Type", "application/json"))
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = answer  # noqa: N815 (http.server's names)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def start_server(directory: Path, port: int) -> subprocess.Popen[bytes]:
    """Start a real MLflow server on a port; return when it answers."""
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        HOST,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    command += ["--backend-store-uri", f"sqlite:///{directory}/mlflow.db"]
    command += ["--artifacts-destination", str(directory / "artifacts")]
    with (directory / "server.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    for _ in range(600):
        try:
            with socket.create_connection((HOST, port), timeout=1):
                pass
            connection = http.client.HTTPConnection(HOST, port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return process
        except OSError:
            time.sleep(0.1)
        if process.poll() is not None:
            break
    raise RuntimeError((directory / "server.log").read_text()[-2000:])


def stop_server(process: subprocess.Popen[bytes]) -> None:
    """Kill a server with all its processes."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


@contextmanager
def stubbed(directory: Path) -> Iterator[tuple[Stub, list[subprocess.Popen[bytes]], int]]:
    """Return a stub, the one server behind it in a list, and that one's port."""
    port = free_port()
    servers = [start_server(directory, port)]
    stub = Stub(port)
    thread = threading.Thread(target=stub.serve_forever, daemon=True)
    thread.start()
    try:
        yield stub, servers, port
    finally:
        stub.shutdown()
        stub.server_close()
        stop_server(servers[0])


OUTAGES = (("pass", "refuse", "pass", "500", "lose", "pass"), ("hang", "pass", "lose"), ("refuse",))
"""What the server does during each training, one after the other; three in a row end in a kill."""


def prove(
    directory: Path,
    seconds: float = 4.0,
    trainings: tuple[tuple[str, ...], ...] = OUTAGES,
    *,
    restart: bool = True,
) -> dict[str, Any]:
    """Train through outages of all kinds; return what was lost, and what tracking cost.

    Args:
        directory: Where to train.
        seconds: How long each outage lasts.
        trainings: The outages of each training.
        restart: Whether to train once more, while the server itself is killed and started again.
    """
    faults, shares = [], []
    with stubbed(directory) as (stub, servers, port):
        uri = f"http://{HOST}:{stub.server_address[1]}"
        run = directory / "run"
        for modes in trainings:
            process = start_training(run, uri)
            for mode in modes:
                stub.mode = mode
                time.sleep(seconds)
            said = end_training(process, kill=len(modes) == 3)
            shares += [said] if said else []
        stub.mode = "pass"
        if restart:
            process = start_training(run, uri)
            time.sleep(seconds)
            stop_server(servers[0])
            time.sleep(seconds)
            servers[0] = start_server(directory, port)
            time.sleep(seconds)
            stub.mode = "500"
            shares.append(end_training(process))
            stub.mode = "pass"
        synced = [synchronize(run, uri) for _ in range(2)]
        faults += [fault for fault in (*synced, *compare(run, uri)) if fault]
        rows = sum(1 for _ in read_rows(run / JOURNAL))
    share = max(said["share"] for said in shares)
    return {
        "held": not faults and share < 0.01,
        "rows": rows,
        "largest_share_of_an_iteration": round(share, 5),
        "ms_per_update": round(max(said["ms"] for said in shares), 4),
        "faults": faults,
    }


def start_training(run: Path, uri: str) -> subprocess.Popen[str]:
    """Begin or go on with a training; return when it has made an update."""
    environment = {**os.environ, **SHORT, "MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(run)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    if not process.stdout.readline():
        raise RuntimeError(f"training ended with {process.wait()}")
    return process


def end_training(process: subprocess.Popen[str], *, kill: bool = False) -> dict[str, float]:
    """End a training by a signal; return what tracking cost, nothing if it was killed."""
    process.send_signal(signal.SIGKILL if kill else signal.SIGINT)
    said = process.communicate(timeout=120)[0]
    return {} if kill else json.loads(said.splitlines()[-1])


def synchronize(run: Path, uri: str) -> str:
    """Run `rlstack sync`; return what was wrong, nothing if all was well."""
    command = [sys.executable, "-m", "rlstack", "sync", str(run), "--tracking", uri]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"sync: exit {done.returncode}: {done.stderr[-500:]}"


def compare(run: Path, uri: str) -> list[str]:
    """Return how MLflow's metrics differ from those in the journal: rows missing, twice, or others."""
    from mlflow import MlflowClient

    client, run_id = MlflowClient(uri), read_tracked_run(run).run_id
    assert run_id is not None
    rows = list(read_rows(run / JOURNAL))
    faults = []
    if [row.step for row in rows] != sorted({row.step for row in rows}):
        faults.append("the journal has rows twice or out of order")
    if rows and rows[-1].step != len(rows) * rows[0].step:
        faults.append("the journal lacks rows")
    # What a killed training sent was computed again, to the same bits; of the rest only times may differ.
    for key in ("returns/mean", "losses/total", "algorithm/steps", "env/total_steps"):
        found = Counter((metric.step, metric.value) for metric in _history(client, run_id, key))
        expected = Counter((row.step, row.metrics[key]) for row in rows)
        if found != expected:
            lost, more = expected - found, found - expected
            faults.append(f"{key}: {sum(lost.values())} rows are missing, {sum(more.values())} too many")
    return faults


def _history(client: Any, run_id: str, key: str) -> Iterator[Any]:
    yield from client.get_metric_history(run_id, key)
