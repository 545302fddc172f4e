"""Servers side by side: throughput over HTTP beside the encoder's own, and the time of single queries at half load.

    python benchmarks/serve.py [--shape small] [--clients 64] [--per-request 1 32] [--rounds 3] [--seconds 10]
    python benchmarks/serve.py --device cuda --shape m3 --texts 4096 --clients 64 --loaders 8
    python benchmarks/serve.py --systems triptych sentence-transformers m3serve infinity --infinity ENV/bin/infinity_emb

Ours as `triptych serve`; sentence-transformers and m3serve's engine behind FastAPI and uvicorn, each in the plain way
of its documentation; infinity-emb by its own command. All hold the same random weights. One server after the other is
started, takes turns with the encoder (encoder, server, encoder, …) and is stopped again; a ratio is that of two
neighbors. Each client keeps one connection and sends the next request when the answer is there; of a server that is not
through with the texts after `--seconds`, what it has answered counts. Figures are medians over the rounds: tokens a
second by the clock, and by the processor time of the server alone, which the clients and other programs do not touch.
The single queries then come at random (Poisson) at half the rate that the same server has just shown for them. Appends
a JSON line to benchmarks/results/serve.jsonl as soon as it is known.
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
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).parent))

RESULTS = Path(__file__).parent / "results" / "serve.jsonl"
TICK = os.sysconf("SC_CLK_TCK")
SYSTEMS = ("triptych", "triptych-all", "sentence-transformers", "m3serve", "infinity")
ACCEPT_ALL = "application/x-safetensors"
ALL = ["dense", "lexical", "multi"]
LEAST = 50  # single queries


class Ask(NamedTuple):
    """What one request asks for."""

    texts: list[str]
    tokens: int


def body_of(system: str, texts: list[str]) -> tuple[str, dict[str, Any], str]:
    """Route, body and Accept of a request."""
    if system == "triptych-all":
        return "/v1/encode", {"texts": texts}, ACCEPT_ALL
    body = {"input": texts, "model": "bench", "encoding_format": "base64"}
    if system == "triptych":
        del body["model"]
    return ("/embeddings" if system == "infinity" else "/v1/embeddings"), body, "application/json"


class Body(BaseModel):
    """What the other servers read."""

    input: list[str]


class Connection:
    """One client: a connection that is kept, and just enough HTTP."""

    def __init__(self, port: int, system: str) -> None:
        self.port, self.system = port, system
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, texts: list[str]) -> None:
        kept = self.streams is not None
        try:
            await self._ask(texts)
        except (EOFError, ConnectionError):  # servers close connections that were idle, uvicorn after 5 s
            if not kept:
                raise
            self.close()
            await self._ask(texts)

    async def _ask(self, texts: list[str]) -> None:
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port, limit=2**24)
        reader, writer = self.streams
        path, body, accept = body_of(self.system, texts)
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
            self.streams = None


async def closed_loop(
    port: int, system: str, asks: Sequence[Ask], clients: int, seconds: float
) -> tuple[int, int, float, float]:
    """Requests and tokens that were answered, begin and end, with so many clients that each wait for their answer."""
    left, tokens, done = iter(asks), 0, 0
    started = time.perf_counter()

    async def client() -> None:
        nonlocal tokens, done
        connection = Connection(port, system)
        for ask in left:
            await connection.ask(ask.texts)
            tokens, done = tokens + ask.tokens, done + 1
            if time.perf_counter() - started > seconds:
                break
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return done, tokens, started, time.perf_counter()


async def open_loop(port: int, system: str, asks: Sequence[Ask], rate: float) -> list[float]:
    """Seconds of each answer, if requests come at random, so many a second."""
    free: list[Connection] = []
    took: list[float] = []

    async def answer(ask: Ask, due: float) -> None:
        connection = free.pop() if free else Connection(port, system)
        await connection.ask(ask.texts)
        took.append(time.perf_counter() - due)
        free.append(connection)

    chance, tasks, due = random.Random(0), list[asyncio.Task[None]](), time.perf_counter()
    for ask in asks:
        due += chance.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(answer(ask, due)))
    await asyncio.gather(*tasks)
    for connection in free:
        connection.close()
    return took


class Load:
    """Clients, in processes of their own."""

    def __init__(self, processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pools = [ProcessPoolExecutor(1, context) for _ in range(processes)]
        for pool in self.pools:
            pool.submit(os.getpid).result()

    def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """One process's work."""
        return self.pools[0].submit(_run, work, arguments).result()

    def rate(
        self, port: int, system: str, asks: Sequence[Ask], clients: int, seconds: float
    ) -> tuple[float, float, float]:
        """Requests and tokens that were answered, and seconds."""
        count = min(len(self.pools), clients)
        parts = [
            pool.submit(_run, closed_loop, (port, system, asks[i::count], clients // count, seconds))
            for i, pool in enumerate(self.pools[:count])
        ]
        done, tokens, begins, ends = zip(*(part.result() for part in parts), strict=True)
        return sum(done), sum(tokens), max(ends) - min(begins)


def _run(work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return asyncio.run(work(*arguments))


class Server:
    """A server's process."""

    def __init__(self, system: str, folder: Path, options: argparse.Namespace) -> None:
        self.system = system
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = int(sock.getsockname()[1])
        device, place, port = options.device, str(folder), str(self.port)
        if system.startswith("triptych"):
            words = [sys.executable, "-m", "triptych", "serve", "--model", place, "--quiet", "--port", port]
            words += ["--devices", device] if device != "cpu" else []
        elif system == "infinity":
            words = [options.infinity, "v2", "--model-id", place, "--served-model-name", "bench"]
            words += ["--port", port, "--device", device, "--engine", "torch"]
        else:
            words = [sys.executable, __file__, "--serve", system, place, device, port]
        environment = os.environ | {"INFINITY_BETTERTRANSFORMER": "0", "INFINITY_MODEL_WARMUP": "0"}
        self.said = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=self.said, env=environment)

    def wait(self, load: Load, patience: float) -> None:
        """Until it answers."""
        end = time.monotonic() + patience
        while True:
            if self.process.poll() is not None or time.monotonic() > end:
                self.said.seek(0)
                raise RuntimeError(f"{self.system} did not start: {self.said.read().decode()[-2000:]}")
            try:
                load.run(closed_loop, self.port, self.system, [Ask(["a warm word"], 5)], 1, 1.0)
            except OSError:
                time.sleep(0.2)
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
            return _answer(encode(body.input))

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
            return _answer(np.asarray((await engine.embed(body.input)).dense, np.float32))

    def _answer(rows: Any) -> Any:
        items = [base64.b64encode(np.ascontiguousarray(row)).decode() for row in rows]
        return {"data": [{"index": i, "embedding": item} for i, item in enumerate(items)]}

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


class Bench:
    """The encoder, the clients and the texts."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        from workloads import SHAPES, Texts, mixed_lengths

        self.options, self.folder = options, folder
        shape, source = SHAPES[options.shape], Texts(folder)
        mix = source.workload("mix", mixed_lengths(options.texts, min(2048, shape.max_tokens)))
        queries = source.workload("query", [random.Random(i).randint(8, 16) for i in range(options.queries)])
        self.texts = list(zip(mix.texts, mix.lengths, strict=True))
        self.queries = [Ask([text], n) for text, n in zip(queries.texts, queries.lengths, strict=True)]
        self.pipe, theirs = multiprocessing.Pipe()
        self.encoder = multiprocessing.get_context("spawn").Process(
            target=own, args=(folder, options.device, mix.texts, theirs), daemon=True
        )
        self.encoder.start()
        theirs.close()
        self.load = Load(options.loaders)

    def asks(self, size: int) -> list[Ask]:
        """The mix in requests of so many texts."""
        parts = [self.texts[i : i + size] for i in range(0, len(self.texts), size)]
        return [Ask([text for text, _ in part], sum(n for _, n in part)) for part in parts]

    def alone(self, outputs: list[str]) -> tuple[float, float]:
        """The encoder's tokens a second: by the clock, and by its processor time."""
        self.pipe.send(outputs)
        tokens = sum(n for _, n in self.texts)
        wall, busy = self.pipe.recv()
        return tokens / wall, tokens / busy

    def throughput(self, name: str, server: Server, size: int) -> dict[str, Any]:
        """The server's turns with the encoder."""
        outputs, asks = ALL if name.endswith("-all") else ALL[:1], self.asks(size)
        found: list[tuple[float, ...]] = []
        for turn in range(self.options.rounds + 1):  # the first one warms up
            alone = self.alone(outputs)
            before = server.seconds()
            clients, limit = self.options.clients, self.options.seconds
            _, tokens, wall = self.load.rate(server.port, name, asks, clients, limit)
            busy = max(server.seconds() - before, 1 / TICK)
            ours = tokens / wall, tokens / busy
            print(
                f"{name}, {size} a request: encoder {alone[0]:.0f}, server {ours[0]:.0f} tokens/s",
                file=sys.stderr,
            )
            if turn:
                found.append((*ours, *alone, ours[0] / alone[0], ours[1] / alone[1], tokens))
        names = ("tokens_per_second", "tokens_per_processor_second", "encoder", "encoder_by_processor_time")
        names += ("of_the_encoder", "of_the_encoder_by_processor_time", "tokens")
        values = [round(statistics.median(column), 3) for column in zip(*found, strict=True)]
        return {"what": "throughput", "system": name, "per_request": size} | dict(
            zip(names, values, strict=True)
        )

    def half_load(self, name: str, server: Server) -> dict[str, Any]:
        """Single queries at half of the rate that the server can do."""
        clients, limit = self.options.clients, self.options.seconds
        done, _, wall = self.load.rate(server.port, name, self.queries, clients, limit)
        rate = done / wall
        asks = self.queries[: max(LEAST, int(rate / 2 * limit))]
        took = sorted(self.load.run(open_loop, server.port, name, asks, rate / 2))
        p50, p99 = (1000 * took[int(part * (len(took) - 1))] for part in (0.5, 0.99))
        facts = {"queries": len(took), "full_rate": round(rate, 1), "p50_ms": round(p50, 2)}
        facts |= {"p99_ms": round(p99, 2), "p99_of_p50": round(p99 / p50, 2)}
        return {"what": "queries at half load", "system": name, **facts}

    def measure(self) -> Iterator[dict[str, Any]]:
        """All lines, as they come."""
        servers: dict[str, Server] = {}
        waiting: bool | None = True  # for the encoder, which is loaded beside the first server
        try:
            for name in self.options.systems:
                program = name.removesuffix("-all")
                try:
                    if program not in servers:
                        for former in servers.values():
                            former.close()
                        servers = {program: Server(program, self.folder, self.options)}
                        servers[program].wait(self.load, self.options.patience)
                    if waiting:
                        waiting = self.pipe.recv()
                    for size in self.options.per_request:
                        yield self.throughput(name, servers[program], size)
                    yield self.half_load(name, servers[program])
                except (RuntimeError, OSError, EOFError) as error:
                    if not self.encoder.is_alive():
                        raise
                    why = f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}"
                    yield {"what": "not measured", "system": name, "why": why}
        finally:
            self.encoder.kill()
            for server in servers.values():
                server.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--shape", default="small", choices=["m3", "small", "tiny"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--loaders", type=int, default=1, help="processes of clients")
    parser.add_argument("--per-request", type=int, nargs="+", default=[1], help="texts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=384)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="at most, of each measurement of a server"
    )
    parser.add_argument("--patience", type=float, default=120.0, help="seconds for a server's start")
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
        folder = make_checkpoint(SHAPES[options.shape], Path(temporary), device=options.device)
        for line in Bench(options, folder).measure():
            print(json.dumps(line), flush=True)
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**facts, **line, "load": os.getloadavg()[0]}) + "\n")


if __name__ == "__main__":
    main()
