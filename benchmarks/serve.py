"""Servers side by side: throughput over HTTP beside the encoder's own, and the time of single queries at half load.

    python benchmarks/serve.py [--shape small] [--clients 64] [--rounds 3] [--texts 384] [--device cpu]
    python benchmarks/serve.py --systems triptych sentence-transformers m3serve infinity --infinity ENV/bin/infinity_emb

Ours as `triptych serve`; sentence-transformers and m3serve's engine behind FastAPI and uvicorn, each in the plain way
of its documentation; infinity-emb by its own command. All hold the same random weights, all servers run from the start,
and they take turns (A B C A B C …), so that a change of the machine's load meets all of them. Each client keeps one
connection and sends one text a request, the next when the answer is there. Figures are medians over the rounds: tokens
a second by the clock, and by the processor time of the server alone, which the clients and other programs do not touch.
The single queries then come at random (Poisson) at half the rate that the same server has just shown for them. Appends
JSON lines to benchmarks/results/serve.jsonl.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).parent))

RESULTS = Path(__file__).parent / "results" / "serve.jsonl"
TICK = os.sysconf("SC_CLK_TCK")
SYSTEMS = ("triptych", "triptych-all", "sentence-transformers", "m3serve", "infinity")
ACCEPT_ALL = "application/x-safetensors"


def body_of(system: str, text: str) -> tuple[str, dict[str, Any], str]:
    """Route, body and Accept of a request for one text."""
    if system == "triptych-all":
        return "/v1/encode", {"texts": text}, ACCEPT_ALL
    body = {"input": text, "model": "bench", "encoding_format": "base64"}
    if system == "triptych":
        del body["model"]
    return ("/embeddings" if system == "infinity" else "/v1/embeddings"), body, "application/json"


class Body(BaseModel):
    """What the other servers read."""

    input: str


class Connection:
    """One client: a connection that is kept, and just enough HTTP."""

    def __init__(self, port: int, system: str) -> None:
        self.port, self.system = port, system
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, text: str) -> None:
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port, limit=2**24)
        reader, writer = self.streams
        path, body, accept = body_of(self.system, text)
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\naccept: {accept}\r\n"
        writer.write(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
        answer = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in answer[:20]:
            raise RuntimeError(f"{self.system}: {answer!r}")
        length = next(
            int(line.partition(b":")[2])
            for line in answer.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        await reader.readexactly(length)

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()


async def closed_loop(port: int, system: str, texts: Sequence[str], clients: int) -> float:
    """Seconds until all texts are answered, with so many clients that each wait for their answer."""
    left = iter(texts)

    async def client() -> None:
        connection = Connection(port, system)
        for text in left:
            await connection.ask(text)
        connection.close()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return time.perf_counter() - started


async def open_loop(port: int, system: str, texts: Sequence[str], rate: float) -> list[float]:
    """Seconds of each text's answer, if texts come at random, so many a second."""
    free: list[Connection] = []
    took: list[float] = []

    async def ask(text: str, due: float) -> None:
        connection = free.pop() if free else Connection(port, system)
        await connection.ask(text)
        took.append(time.perf_counter() - due)
        free.append(connection)

    chance, tasks, due = random.Random(0), list[asyncio.Task[None]](), time.perf_counter()
    for text in texts:
        due += chance.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(ask(text, due)))
    await asyncio.gather(*tasks)
    for connection in free:
        connection.close()
    return took


def load_in_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Runs clients in a process of their own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_run, (work, arguments))


def _run(work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return asyncio.run(work(*arguments))


class Server:
    """A server's process."""

    def __init__(self, system: str, folder: Path, options: argparse.Namespace) -> None:
        self.system = system
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = int(sock.getsockname()[1])
        port = ["--port", str(self.port)]
        if system.startswith("triptych"):
            device = ["--devices", options.device] if options.device != "cpu" else []
            command = [
                sys.executable,
                "-m",
                "triptych",
                "serve",
                "--model",
                str(folder),
                "--quiet",
                *device,
                *port,
            ]
        elif system == "infinity":
            command = [
                options.infinity,
                "v2",
                "--model-id",
                str(folder),
                "--served-model-name",
                "bench",
                *port,
            ]
            command += [
                "--device",
                options.device,
                "--engine",
                "torch",
            ]
        else:
            command = [
                sys.executable,
                __file__,
                "--serve",
                system,
                str(folder),
                options.device,
                str(self.port),
            ]
        environment = os.environ | {"INFINITY_BETTERTRANSFORMER": "0", "INFINITY_MODEL_WARMUP": "0"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
        )

    def wait(self) -> None:
        end = time.monotonic() + 300
        while True:
            if self.process.poll() is not None:
                said = self.process.stderr.read().decode()[-2000:] if self.process.stderr else ""
                raise RuntimeError(f"{self.system} did not start: {said}")
            try:
                load_in_process(closed_loop, self.port, self.system, ["a warm word"], 1)
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)
            else:
                return

    def seconds(self) -> float:
        """Processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def serve_other(system: str, folder: str, device: str, port: int) -> None:
    """Another library behind FastAPI, as its users write it."""
    import base64

    import numpy as np
    import uvicorn
    from fastapi import FastAPI

    app = FastAPI()
    if system == "sentence-transformers":
        import systems

        encode = systems.sentence_transformers(
            Path(folder), "bfloat16" if device != "cpu" else "float32", device
        )

        @app.post("/v1/embeddings")
        def embeddings(body: Body) -> Any:
            return _answer(encode([body.input]))

    else:
        from m3serve import Engine
        from m3serve.model import BGEM3Encoder

        encoder = BGEM3Encoder(folder, device=device, use_fp16=device != "cpu", max_length=8192)
        engine = Engine(max_batch_size=32, _encoder=encoder)

        @app.post("/v1/embeddings")
        async def embeddings_of_engine(body: Body) -> Any:
            if not getattr(app.state, "started", False):
                app.state.started = True
                await engine.start()
            return _answer(np.asarray((await engine.embed([body.input])).dense, np.float32))

    def _answer(rows: Any) -> Any:
        return {"data": [{"index": 0, "embedding": base64.b64encode(np.ascontiguousarray(rows[0])).decode()}]}

    uvicorn.run(app, port=port, access_log=False, log_level="warning")


def own(folder: Path, device: str, texts: list[str], pipe: Any) -> None:
    """A process that holds the encoder, and encodes all texts when it is told which heads."""
    from triptych import Encoder

    encoder = Encoder.from_pretrained(folder, device=device)
    encoder.encode(texts[:8])
    pipe.send(None)
    while (outputs := pipe.recv()) is not None:
        wall, processor = time.perf_counter(), time.process_time()
        encoder.encode(texts, outputs=outputs)
        pipe.send((time.perf_counter() - wall, time.process_time() - processor))


def measure(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    from workloads import SHAPES, Texts, mixed_lengths

    shape, source = SHAPES[options.shape], Texts(folder)
    mix = source.workload("mix", mixed_lengths(options.texts, min(2048, shape.max_tokens)))
    queries = source.workload("query", [random.Random(i).randint(8, 16) for i in range(options.queries)])
    pipe, theirs = multiprocessing.Pipe()
    encoder = multiprocessing.get_context("spawn").Process(
        target=own, args=(folder, options.device, mix.texts, theirs), daemon=True
    )
    encoder.start()
    pipe.recv()
    servers: dict[str, Server] = {}
    walls: dict[str, list[float]] = {}
    processor: dict[str, list[float]] = {}
    try:
        for system in options.systems:
            servers[system] = Server(system, folder, options)
            try:
                servers[system].wait()
            except RuntimeError as error:
                servers.pop(system).close()
                yield {"what": "not measured", "system": system, "why": " ".join(str(error).split())[-300:]}
        for turn in range(options.rounds + 1):  # the first one warms up
            for name, outputs in (("encoder", ["dense"]), ("encoder-all", ["dense", "lexical", "multi"])):
                pipe.send(outputs)
                wall, busy = pipe.recv()
                if turn:
                    walls.setdefault(name, []).append(wall)
                    processor.setdefault(name, []).append(busy)
            for name, server in servers.items():
                print(f"round {turn}: {name}", file=sys.stderr)
                before = server.seconds()
                wall = load_in_process(closed_loop, server.port, name, mix.texts, options.clients)
                if turn:
                    walls.setdefault(name, []).append(wall)
                    processor.setdefault(name, []).append(server.seconds() - before)
        for name in walls:
            wall, busy = statistics.median(walls[name]), statistics.median(processor[name])
            base = "encoder-all" if name.endswith("-all") else "encoder"
            yield {
                "what": "throughput",
                "system": name,
                "texts": len(mix.texts),
                "tokens": mix.tokens,
                "tokens_per_second": round(mix.tokens / wall, 1),
                "tokens_per_processor_second": round(mix.tokens / busy, 1),
                # Round by round, so that both sides of a ratio met the same load.
                "of_the_encoder": round(statistics.median(_ratios(walls[base], walls[name])), 3),
                "of_the_encoder_by_processor_time": round(
                    statistics.median(_ratios(processor[base], processor[name])), 3
                ),
            }
        for name, server in servers.items():
            rate = len(queries.texts) / load_in_process(
                closed_loop, server.port, name, queries.texts, options.clients
            )
            took = sorted(load_in_process(open_loop, server.port, name, queries.texts, rate / 2))
            p50, p99 = (1000 * took[int(part * (len(took) - 1))] for part in (0.5, 0.99))
            yield {
                "what": "queries at half load",
                "system": name,
                "queries": len(took),
                "full_rate": round(rate, 1),
                "p50_ms": round(p50, 2),
                "p99_ms": round(p99, 2),
                "p99_of_p50": round(p99 / p50, 2),
            }
    finally:
        pipe.send(None)
        for server in servers.values():
            server.close()


def _ratios(base: Sequence[float], others: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(base, others, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--shape", default="small", choices=["m3", "small", "tiny"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=384)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument(
        "--systems", nargs="+", default=["triptych", "triptych-all", "sentence-transformers"], choices=SYSTEMS
    )
    parser.add_argument(
        "--infinity", default="infinity_emb", help="the command of an environment that has infinity-emb"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.serve:
        system, folder, device, port = options.serve
        serve_other(system, folder, device, int(port))
        return
    from encode import machine
    from workloads import SHAPES, make_checkpoint

    facts = {"run": time.strftime("%Y-%m-%dT%H:%M:%S"), "shape": options.shape, "device": options.device}
    facts |= {"clients": options.clients, "rounds": options.rounds, "machine": machine()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_checkpoint(SHAPES[options.shape], Path(temporary), device="cpu")
        for line in measure(options, folder):
            print(json.dumps(line))
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**facts, **line, "load": os.getloadavg()[0]}) + "\n")


if __name__ == "__main__":
    main()
