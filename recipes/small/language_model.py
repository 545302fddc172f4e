"""Serves a Qwen2 language model from a GGUF file to many clients at once, as OpenAI's /chat/completions.

    python recipes/small/language_model.py qwen.gguf --port 8000 --batch 512

It is made to answer a hundred thousand short requests in minutes on one GPU: requests with the same messages before
the last one share the keys and values of these, the last ones go through in batches of similar length, and a decoding
step is one CUDA graph. It needs torch, gguf, tokenizers and aiohttp. `--random` takes a tiny model of random weights
with the file's own tokenizer, to try the rest on a processor.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from aiohttp import web
from gguf import GGUFReader
from gguf.quants import dequantize
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right

_SPLIT = (  # of Qwen2's tokenizer
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONTROL = 3  # llama.cpp's type of a special token
_PREFILL = 131_072  # tokens that go through the layers at once
_ROOM = 1600  # tokens of a request for which there is room if the batch is full
_STEP = 64  # lengths are rounded up to a multiple, so that few graphs are captured
_RAMBLES, _DONE = 56, 0.97  # after so many tokens, the share of answers that may leave the others cut off
_WAIT = 6.0  # seconds that a request waits for others of its group, while other groups are busy


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a Qwen2 model."""

    layers: int
    heads: int
    groups: int
    width: int
    base: float
    eps: float


@dataclass(slots=True)
class Waiting:
    """A request: tokens after the shared ones, limits, and where its answer goes."""

    tokens: list[int]
    limit: int
    temperature: float
    since: float
    answer: asyncio.Future[tuple[str, str, int]]
    loop: asyncio.AbstractEventLoop


def read_tokenizer(reader: GGUFReader) -> Tokenizer:
    """The byte-level BPE tokenizer that the file describes."""
    fields = reader.fields
    pieces: list[str] = fields["tokenizer.ggml.tokens"].contents()
    kinds: list[int] = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(each.split(" ", 1)) for each in fields["tokenizer.ggml.merges"].contents()]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, fuse_unk=False, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [piece for piece, kind in zip(pieces, kinds, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in special])
    return tokenizer


def read_weights(reader: GGUFReader, device: torch.device) -> dict[str, Tensor]:
    """All tensors, out of their blocks of few bits, in bfloat16."""

    def load(tensor: Any) -> tuple[str, Tensor]:
        values = dequantize(tensor.data, tensor.tensor_type)
        shape = tuple(int(size) for size in reversed(tensor.shape))
        loaded = torch.from_numpy(np.ascontiguousarray(values).reshape(shape))
        return tensor.name, loaded.to(device, torch.bfloat16)

    with ThreadPoolExecutor() as pool:
        return dict(pool.map(load, reader.tensors))


def random_weights(shape: Shape, vocabulary: int, hidden: int = 64, middle: int = 96) -> dict[str, Tensor]:
    """A tiny model that says nothing."""
    rng = torch.Generator().manual_seed(0)
    own, shared = shape.heads * shape.width, shape.groups * shape.width
    sizes = {"attn_q": (own, hidden), "attn_k": (shared, hidden), "attn_v": (shared, hidden)}
    sizes |= {"attn_output": (hidden, own), "ffn_gate": (middle, hidden), "ffn_up": (middle, hidden)}
    sizes |= {"ffn_down": (hidden, middle)}
    weights = {name: torch.randn(vocabulary, hidden, generator=rng) for name in ("token_embd", "output")}
    weights["output_norm"] = torch.ones(hidden)
    for layer in range(shape.layers):
        for name, size in sizes.items():
            weights[f"blk.{layer}.{name}"] = torch.randn(*size, generator=rng) / math.sqrt(size[1])
        weights |= {f"blk.{layer}.{name}": torch.ones(hidden) for name in ("attn_norm", "ffn_norm")}
    named = {f"{name}.weight": tensor for name, tensor in weights.items()}
    biases = {"attn_q": own, "attn_k": shared, "attn_v": shared}
    for layer in range(shape.layers):
        named |= {f"blk.{layer}.{name}.bias": torch.zeros(size) for name, size in biases.items()}
    return {name: tensor.bfloat16() for name, tensor in named.items()}


class Qwen2:
    """The forward pass, with keys and values in buffers of a fixed size.

    Args:
        weights: By their names in GGUF files.
        shape: Sizes.
    """

    def __init__(self, weights: dict[str, Tensor], shape: Shape) -> None:
        self.shape, self.weights = shape, weights
        self.embed = weights["token_embd.weight"]
        self.output = weights.get("output.weight", self.embed)
        self.device = self.embed.device
        parts = ("attn_q", "attn_k", "attn_v")
        self.layers = [
            {
                "qkv": torch.cat([weights[f"blk.{n}.{part}.weight"] for part in parts]),
                "bias": torch.cat([weights[f"blk.{n}.{part}.bias"] for part in parts]),
                "gate_up": torch.cat([weights[f"blk.{n}.{part}.weight"] for part in ("ffn_gate", "ffn_up")]),
                **{
                    name: weights[f"blk.{n}.{name}.weight"]
                    for name in ("attn_norm", "ffn_norm", "attn_output", "ffn_down")
                },
            }
            for n in range(shape.layers)
        ]
        self.rates = shape.base ** -(
            torch.arange(0, shape.width, 2, device=self.device, dtype=torch.float32) / shape.width
        )

    def room(self, tokens: int) -> Tensor:
        """Room for the keys and values of so many tokens, flat."""
        s = self.shape
        count = s.layers * 2 * s.groups * s.width * tokens
        return torch.zeros(count, dtype=torch.bfloat16, device=self.device)

    def cache(self, room: Tensor, rows: int, length: int) -> Tensor:
        """A part of it as ``[layers, 2, rows, groups, length, width]``."""
        s = self.shape
        sizes = (s.layers, 2, rows, s.groups, length, s.width)
        return room[: math.prod(sizes)].view(sizes)

    def read(self, tokens: Tensor, cache: Tensor, before: Tensor | None) -> Tensor:
        """Reads ``[rows, length]`` tokens after those of `before`; returns the last layer's states."""
        rows, length = tokens.shape
        past = 0 if before is None else before.shape[4]
        cosine, sine = self._angles(torch.arange(past, past + length, device=self.device))
        causal = causal_lower_right(length, past + length)
        hidden = F.embedding(tokens, self.embed)
        for number, layer in enumerate(self.layers):
            query, key, value = self._split(hidden, layer, cosine, sine)
            if before is not None:
                key, value = (
                    torch.cat([before[number, i].expand(rows, -1, -1, -1), new], 2)
                    for i, new in enumerate((key, value))
                )
            cache[number, 0, :, :, : past + length] = key
            cache[number, 1, :, :, : past + length] = value
            repeat = self.shape.heads // self.shape.groups
            key, value = (each.repeat_interleave(repeat, dim=1) for each in (key, value))
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=causal)
            hidden = self._finish(hidden, mixed.transpose(1, 2).reshape(rows, length, -1), layer)
        return hidden

    def decode(self, tokens: Tensor, at: Tensor, cache: Tensor, mask: Tensor) -> Tensor:
        """One token a row at the positions `at`; returns logits. `mask` [rows, length] says what is there."""
        rows, s = len(tokens), self.shape
        cosine, sine = self._angles(at[:, None])
        hidden = F.embedding(tokens[:, None], self.embed)
        index = torch.arange(rows, device=self.device)
        for number, layer in enumerate(self.layers):
            query, key, value = self._split(hidden, layer, cosine[:, None], sine[:, None])
            cache[number, 0, index, :, at] = key[:, :, 0]
            cache[number, 1, index, :, at] = value[:, :, 0]
            query = query.view(rows, s.groups, s.heads // s.groups, s.width)
            scores = (query @ cache[number, 0].transpose(2, 3)).float() / math.sqrt(s.width)
            scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
            mixed = scores.softmax(-1).bfloat16() @ cache[number, 1]
            hidden = self._finish(hidden, mixed.reshape(rows, 1, -1), layer)
        return self.logits(hidden[:, 0])

    def logits(self, hidden: Tensor) -> Tensor:
        """``[rows, vocabulary]``."""
        return self._norm(hidden, self.weights["output_norm.weight"]) @ self.output.T

    def _split(
        self, hidden: Tensor, layer: dict[str, Tensor], cosine: Tensor, sine: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        s = self.shape
        joint = F.linear(self._norm(hidden, layer["attn_norm"]), layer["qkv"], layer["bias"])
        joint = joint.unflatten(-1, (s.heads + 2 * s.groups, s.width)).transpose(1, 2)
        query, key, value = joint.split((s.heads, s.groups, s.groups), dim=1)
        return _rotate(query, cosine, sine), _rotate(key, cosine, sine), value

    def _finish(self, hidden: Tensor, mixed: Tensor, layer: dict[str, Tensor]) -> Tensor:
        hidden = hidden + mixed @ layer["attn_output"].T
        gate, up = F.linear(self._norm(hidden, layer["ffn_norm"]), layer["gate_up"]).chunk(2, -1)
        return hidden + (F.silu(gate) * up) @ layer["ffn_down"].T

    def _norm(self, hidden: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(hidden, hidden.shape[-1:], weight, self.shape.eps)

    def _angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        angles = positions[..., None].float() * self.rates
        angles = torch.cat([angles, angles], -1)
        return angles.cos().bfloat16(), angles.sin().bfloat16()


def _rotate(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    left, right = states.chunk(2, -1)
    return states * cosine + torch.cat([-right, left], -1) * sine


@dataclass(slots=True)
class Decoder:
    """The buffers of one batch size and length, and the graph of a step."""

    cache: Tensor
    tokens: Tensor
    at: Tensor
    mask: Tensor
    temperature: Tensor
    done: Tensor
    graph: Any = None


@dataclass(slots=True)
class Engine:
    """Answers batches.

    Attributes:
        model: The model.
        ends: Tokens that end an answer.
        rows: Most requests of a batch.
    """

    model: Qwen2
    ends: Tensor
    rows: int
    decoders: dict[tuple[int, int], Decoder] = field(default_factory=dict[tuple[int, int], Decoder])
    shared: dict[tuple[int, ...], Tensor] = field(default_factory=dict[tuple[int, ...], Tensor])
    room: Tensor = field(init=False)
    pool: Any = None

    def __post_init__(self) -> None:
        self.room = self.model.room(self.rows * _ROOM)

    @torch.inference_mode()
    def answer(self, before: tuple[int, ...], batch: Sequence[Waiting]) -> list[list[int]]:
        """The tokens of each request's answer, the last one an end unless its limit came first."""
        device, model = self.model.device, self.model
        if before and before not in self.shared:
            cache = model.cache(model.room(len(before)), 1, len(before))
            model.read(torch.tensor([before], device=device), cache, None)
            self.shared[before] = cache
        prefix = self.shared.get(before)
        longest = max(len(each.tokens) for each in batch)
        steps = max(each.limit for each in batch)
        total = -(-(len(before) + longest + steps) // _STEP) * _STEP
        part = max(1, self.rows // 4 if len(batch) > self.rows // 4 else min(32, self.rows))
        rows = -(-len(batch) // part) * part
        if rows * total > self.rows * _ROOM:
            if len(batch) == 1:
                raise ValueError(f"a request of {total} tokens")
            half = len(batch) // 2
            return self.answer(before, batch[:half]) + self.answer(before, batch[half:])
        decoder = self._decoder(rows, total)
        first = self._prefill(batch, decoder, prefix, len(before))
        out = torch.zeros(steps, rows, dtype=torch.long, device=device)
        decoder.done[len(batch) :] = True
        for step in range(steps):
            out[step] = first if step == 0 else decoder.tokens
            decoder.tokens.copy_(out[step])
            decoder.done |= torch.isin(decoder.tokens, self.ends)
            if step + 1 == steps or (step % 8 == 7 and self._enough(decoder, step)):
                break
            if decoder.graph is None:
                self._step(decoder)
            else:
                decoder.graph.replay()
        found = out.T.tolist()
        ends = set(self.ends.tolist())
        return [
            _until(row[: min(each.limit, step + 1)], ends) for row, each in zip(found, batch, strict=False)
        ]

    def _enough(self, decoder: Decoder, step: int) -> bool:
        """Whether all are done, or so many that the others are not waited for: what rambles is no question."""
        share = float(decoder.done.float().mean())
        return share == 1.0 or (step >= _RAMBLES and share >= _DONE)

    def _prefill(
        self, batch: Sequence[Waiting], decoder: Decoder, prefix: Tensor | None, past: int
    ) -> Tensor:
        """Reads the requests into the decoder's buffers; returns the first token of each answer."""
        device = self.model.device
        decoder.mask.zero_()
        decoder.done.zero_()
        first = torch.zeros(len(decoder.tokens), dtype=torch.long, device=device)
        start = 0
        while start < len(batch):
            longest, end = 0, start
            while end < len(batch):
                longer = max(longest, len(batch[end].tokens))
                if end > start and longer * (end + 1 - start) > _PREFILL:
                    break
                longest, end = longer, end + 1
            part = batch[start:end]
            tokens = torch.zeros(len(part), longest, dtype=torch.long)
            for row, each in enumerate(part):
                tokens[row, : len(each.tokens)] = torch.tensor(each.tokens)
            lengths = torch.tensor([len(each.tokens) for each in part], device=device)
            hidden = self.model.read(tokens.to(device), decoder.cache[:, :, start:end], prefix)
            last = hidden[torch.arange(len(part), device=device), lengths - 1]
            decoder.temperature[start:end] = torch.tensor([each.temperature for each in part], device=device)
            first[start:end] = _choose(self.model.logits(last), decoder.temperature[start:end])
            decoder.at[start:end] = past + lengths
            places = torch.arange(decoder.mask.shape[1], device=device)
            decoder.mask[start:end] = places < (past + lengths)[:, None]
            start = end
        decoder.mask[len(batch) :, 0] = True
        decoder.at[len(batch) :] = 0
        return first

    def _decoder(self, rows: int, length: int) -> Decoder:
        if (rows, length) not in self.decoders:
            device = self.model.device
            decoder = Decoder(
                self.model.cache(self.room, rows, length),
                torch.zeros(rows, dtype=torch.long, device=device),
                torch.zeros(rows, dtype=torch.long, device=device),
                torch.ones(rows, length, dtype=torch.bool, device=device),
                torch.zeros(rows, device=device),
                torch.zeros(rows, dtype=torch.bool, device=device),
            )
            if device.type == "cuda":
                stream = torch.cuda.Stream()
                torch.cuda.synchronize()
                with torch.cuda.stream(stream):
                    self._step(decoder)
                torch.cuda.synchronize()
                self.pool = self.pool or torch.cuda.graph_pool_handle()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, stream=stream, pool=self.pool):
                    self._step(decoder)
                decoder.graph = graph
            self.decoders[rows, length] = decoder
        return self.decoders[rows, length]

    def _step(self, decoder: Decoder) -> None:
        """Takes `tokens` in and puts the next ones in their place."""
        at = decoder.at.clamp(max=decoder.mask.shape[1] - 1)
        decoder.mask.scatter_(1, at[:, None], True)
        logits = self.model.decode(decoder.tokens, at, decoder.cache, decoder.mask)
        decoder.tokens.copy_(_choose(logits, decoder.temperature))
        decoder.at.add_(1)


def _choose(logits: Tensor, temperature: Tensor) -> Tensor:
    """Draws from softmax(logits / temperature) by Gumbel's trick; 0 takes the best."""
    noise = -torch.empty_like(logits, dtype=torch.float32).exponential_().log()
    return (logits.float() + temperature[:, None] * noise).argmax(-1)


def _until(tokens: list[int], ends: set[int]) -> list[int]:
    found = next((number for number, token in enumerate(tokens) if token in ends), None)
    return tokens if found is None else tokens[: found + 1]


class Server:
    """Collects requests into batches; the engine works in a thread of its own."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer) -> None:
        self.engine, self.tokenizer = engine, tokenizer
        self.ends = set(engine.ends.tolist())
        self.queues: defaultdict[tuple[int, ...], list[Waiting]] = defaultdict(list)
        self.changed = threading.Condition()
        self.answered, self.tokens_in, self.tokens_out, self.busy = 0, 0, 0, 0.0
        self.prefixes: dict[str, tuple[int, ...]] = {}

    async def chat(self, request: web.Request) -> web.Response:
        """One request."""
        body = await request.json()
        try:
            *context, last = body["messages"]
            rest = f"<|im_start|>{last['role']}\n{last['content']}<|im_end|>\n<|im_start|>assistant\n"
            head = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in context)
        except (KeyError, TypeError, ValueError):
            error = {"message": "expected messages with role and content"}
            return web.json_response({"error": error}, status=400)
        if head not in self.prefixes:
            self.prefixes[head] = tuple(self.tokenizer.encode(head).ids)
        loop = asyncio.get_running_loop()
        waiting = Waiting(
            self.tokenizer.encode(rest).ids,
            int(body.get("max_tokens", 64)),
            float(body.get("temperature", 0.0)),
            time.monotonic(),
            loop.create_future(),
            loop,
        )
        with self.changed:
            self.queues[self.prefixes[head]].append(waiting)
            self.changed.notify()
        text, finish, count = await waiting.answer
        prompt = len(self.prefixes[head]) + len(waiting.tokens)
        usage = {"prompt_tokens": prompt, "completion_tokens": count}
        message = {"role": "assistant", "content": text}
        return web.json_response({"choices": [{"message": message, "finish_reason": finish}], "usage": usage})

    def work(self) -> None:
        """Answers batches for ever."""
        while True:
            before, batch = self._next()
            begin = time.monotonic()
            try:
                answers = self.engine.answer(before, batch)
            except Exception as error:
                for each in batch:
                    each.loop.call_soon_threadsafe(_fail, each.answer, error)
                print(f"failed: {error!r}", flush=True)
                continue
            finished = [bool(tokens) and tokens[-1] in self.ends for tokens in answers]
            bare = [tokens[:-1] if end else tokens for tokens, end in zip(answers, finished, strict=True)]
            texts = self.tokenizer.decode_batch(bare)
            for each, text, tokens, end in zip(batch, texts, answers, finished, strict=True):
                result = (text, "stop" if end else "length", len(tokens))
                each.loop.call_soon_threadsafe(_settle, each.answer, result)
            took = time.monotonic() - begin
            self.answered += len(batch)
            self.busy += took
            self.tokens_in += sum(len(each.tokens) for each in batch)
            self.tokens_out += sum(map(len, answers))
            longest = max(len(each.tokens) for each in batch)
            print(
                f"{time.strftime('%H:%M:%S')} {self.answered} answered, {self.tokens_in} + {self.tokens_out} tokens, "
                f"busy {self.busy:.0f} s; the last batch: {len(batch)} of {len(before)} + {longest} in {took:.2f} s",
                flush=True,
            )

    def _next(self) -> tuple[tuple[int, ...], list[Waiting]]:
        """The group with the most requests, once they fill a batch or one has waited long enough."""
        rows = self.engine.rows
        with self.changed:
            while True:
                now = time.monotonic()
                full = any(len(queue) >= rows for queue in self.queues.values())
                patience = _WAIT if full else _WAIT / 12
                ready = {
                    key: queue
                    for key, queue in self.queues.items()
                    if len(queue) >= rows or (queue and now - queue[0].since > patience)
                }
                if ready:
                    oldest = min(ready, key=lambda key: ready[key][0].since)
                    fullest = max(ready, key=lambda key: len(ready[key]))
                    key = fullest if now - ready[oldest][0].since < 4 * _WAIT else oldest
                    queue = ready[key]
                    first = queue[0]
                    queue.sort(key=lambda each: len(each.tokens))
                    start = max(0, min(queue.index(first) - rows // 2, len(queue) - rows))
                    batch = queue[start : start + rows]
                    self.queues[key] = sorted(
                        queue[:start] + queue[start + rows :], key=lambda each: each.since
                    )
                    return key, batch
                self.changed.wait(0.05)


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def main() -> None:
    """Loads the model and serves it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=512, help="most requests answered at once")
    parser.add_argument("--random", action="store_true", help="a tiny model of random weights")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    begin = time.monotonic()
    reader = GGUFReader(arguments.gguf)
    facts = {name: value.contents() for name, value in reader.fields.items() if name.startswith("qwen2.")}
    heads = facts["qwen2.attention.head_count"]
    shape = Shape(
        facts["qwen2.block_count"],
        heads,
        facts["qwen2.attention.head_count_kv"],
        facts["qwen2.embedding_length"] // heads,
        facts["qwen2.rope.freq_base"],
        facts["qwen2.attention.layer_norm_rms_epsilon"],
    )
    tokenizer = read_tokenizer(reader)
    if arguments.random:
        shape = Shape(2, 4, 2, 16, shape.base, shape.eps)
        weights = {
            name: each.to(device) for name, each in random_weights(shape, tokenizer.get_vocab_size()).items()
        }
    else:
        weights = read_weights(reader, device)
    ends = torch.tensor([tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")])
    server = Server(Engine(Qwen2(weights, shape), ends.to(device), arguments.batch), tokenizer)
    threading.Thread(target=server.work, daemon=True).start()
    print(f"serving after {time.monotonic() - begin:.0f} s", flush=True)
    app = web.Application(client_max_size=1 << 22)
    app.router.add_post("/v1/chat/completions", server.chat)
    web.run_app(app, host="127.0.0.1", port=arguments.port, print=None, backlog=8192)


if __name__ == "__main__":
    main()
