"""The benchmark's tasks on text: the next character, and who gave a speech."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import TensorDataset

from lrsearch.examples.classification import make_loader
from lrsearch.training.task import Task
from tests.bench.regret.data import PRETRAINED, fetched, moby_dick, speeches

_TRAIN, _VAL, _LENGTH = 64_000, 16_000, 32
"""Characters of the training and the validation part, and of a row."""
_SPEAKERS, _WORDS = 8, 16
_PASSAGES_TRAIN, _PASSAGES_VAL = 120, 40
"""Passages of a speaker."""


class CharacterNet(nn.Module):
    """The next character from those before it: an embedding, a recurrent layer, a linear one."""

    def __init__(self, symbols: int, layer: type[nn.GRU | nn.LSTM] = nn.GRU, width: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 32)
        self.recurrent = layer(32, width, batch_first=True)
        self.head = nn.Linear(width, symbols)

    def forward(self, characters: Tensor) -> Tensor:
        """Logits, of shape (rows, symbols, length), from characters, of shape (rows, length)."""
        outputs, _ = self.recurrent(self.embedding(characters))
        logits: Tensor = self.head(outputs)
        return logits.transpose(1, 2)


class TransformerNet(nn.Module):
    """The same with two causal transformer layers."""

    def __init__(self, symbols: int, width: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, width)
        self.position = nn.Parameter(0.02 * torch.randn(_LENGTH, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, symbols)

    def forward(self, characters: Tensor) -> Tensor:
        """As `CharacterNet` does."""
        length = characters.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        hidden = self.layers(self.embedding(characters) + self.position[:length], mask, is_causal=True)
        logits: Tensor = self.head(hidden)
        return logits.transpose(1, 2)


class SpeakerNet(nn.Module):
    """A pretrained encoder of six layers with a new head, which reads the mean of the outputs.

    The weights are those of all-MiniLM-L6-v2, 22 million parameters.
    """

    _WIDTH, _HEADS, _LAYERS = 384, 12, 6

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30_522, self._WIDTH)
        self.position = nn.Parameter(torch.empty(512, self._WIDTH))
        self.norm = nn.LayerNorm(self._WIDTH, eps=1e-12)
        layer = nn.TransformerEncoderLayer(
            self._WIDTH, self._HEADS, 4 * self._WIDTH, 0.1, "gelu", 1e-12, batch_first=True
        )
        self.layers = nn.TransformerEncoder(layer, self._LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(self._WIDTH, _SPEAKERS)
        self._load(_pretrained())

    def forward(self, words: Tensor) -> Tensor:
        """Logits, of shape (rows, speakers), from words, of shape (rows, length), 0 where there is none."""
        absent = words == 0
        hidden = self.norm(self.words(words) + self.position[: words.shape[1]])
        hidden = self.layers(hidden, src_key_padding_mask=absent)
        kept = (~absent).unsqueeze(2)
        logits: Tensor = self.head((hidden * kept).sum(1) / kept.sum(1))
        return logits

    @torch.no_grad()
    def _load(self, weights: Mapping[str, Tensor]) -> None:
        embeddings = "embeddings."
        self.words.weight.copy_(weights[embeddings + "word_embeddings.weight"])
        kind = weights[embeddings + "token_type_embeddings.weight"][0]
        self.position.copy_(weights[embeddings + "position_embeddings.weight"] + kind)
        _copy(self.norm, weights, embeddings + "LayerNorm")
        for k, layer in enumerate(self.layers.layers):
            name = f"encoder.layer.{k}."
            for part in ("weight", "bias"):
                joined = [
                    weights[f"{name}attention.self.{which}.{part}"] for which in ("query", "key", "value")
                ]
                getattr(layer.self_attn, f"in_proj_{part}").copy_(torch.cat(joined))
            _copy(layer.self_attn.out_proj, weights, name + "attention.output.dense")
            _copy(layer.norm1, weights, name + "attention.output.LayerNorm")
            _copy(layer.linear1, weights, name + "intermediate.dense")
            _copy(layer.linear2, weights, name + "output.dense")
            _copy(layer.norm2, weights, name + "output.LayerNorm")


def moby_gru() -> tuple[Task, float]:
    """The next character of Moby Dick, AdamW with the gradient's norm clipped at 1."""
    return _next_character(moby_dick(), CharacterNet, clipped_adamw, 32, "moby-gru")


def speeches_lstm() -> tuple[Task, float]:
    """The next character of presidents' speeches with an LSTM, 125 updates of Adam."""
    return _next_character(
        _all_speeches(), partial(CharacterNet, layer=nn.LSTM, width=96), adam, 32, "speeches-lstm"
    )


def speeches_transformer() -> tuple[Task, float]:
    """The same with a transformer, AdamW with the gradient's norm clipped at 1."""
    return _next_character(_all_speeches(), TransformerNet, clipped_adamw, 16, "speeches-transformer")


def speeches_minilm() -> tuple[Task, float]:
    """Which of eight presidents said it, 60 updates of a pretrained encoder with AdamW."""
    words, speakers = _passages()
    rows = np.random.default_rng(0).permutation(len(words))
    train = rows[: _SPEAKERS * _PASSAGES_TRAIN]
    val = rows[len(train) :]
    task = Task(
        model=SpeakerNet,
        optimizer=lambda parameters, lr: torch.optim.AdamW(parameters, lr=lr),
        loss=nn.CrossEntropyLoss(),
        train_loader=make_loader(TensorDataset(words[train], speakers[train]), 16, shuffle=True),
        val_loader=make_loader(TensorDataset(words[val], speakers[val]), 80, shuffle=False),
        name="speeches-minilm",
    )
    shares = torch.bincount(speakers[train], minlength=_SPEAKERS) / len(train)
    return task, -float(shares.log()[speakers[val]].mean())


def adam(parameters: Iterator[nn.Parameter], lr: float) -> Optimizer:
    """Make Adam as torch has it."""
    return torch.optim.Adam(parameters, lr=lr)


def clipped_adamw(parameters: Iterator[nn.Parameter], lr: float) -> Optimizer:
    """Make AdamW, with the norm of the gradient clipped at 1 before each step."""
    trained = list(parameters)
    made = torch.optim.AdamW(trained, lr=lr)

    def clip(*_: object) -> None:
        nn.utils.clip_grad_norm_(trained, 1.0)

    made.register_step_pre_hook(clip)
    return made


def _next_character(
    text: str,
    net: Callable[[int], nn.Module],
    optimizer: Callable[[Iterator[nn.Parameter], float], Optimizer],
    batch_size: int,
    name: str,
) -> tuple[Task, float]:
    symbols, codes = np.unique(list(text[: _TRAIN + _VAL]), return_inverse=True)
    parts = [codes[:_TRAIN], codes[_TRAIN:]]
    train, val = (_windows(torch.tensor(part, dtype=torch.int64)) for part in parts)
    task = Task(
        model=lambda: net(len(symbols)),
        optimizer=optimizer,
        loss=nn.CrossEntropyLoss(),
        train_loader=make_loader(train, batch_size, shuffle=True),
        val_loader=make_loader(val, 250, shuffle=False),
        name=name,
    )
    counts = np.bincount(parts[0], minlength=len(symbols)) + 1.0  # a symbol that the training part lacks
    return task, float(-np.log(counts / counts.sum())[parts[1]].mean())


def _windows(codes: Tensor) -> TensorDataset:
    """Inputs and their successors, each of shape (rows, length)."""
    rows = (len(codes) - 1) // _LENGTH
    inputs = codes[: rows * _LENGTH].reshape(rows, _LENGTH)
    return TensorDataset(inputs, codes[1 : rows * _LENGTH + 1].reshape(rows, _LENGTH))


def _all_speeches() -> str:
    """The speeches one after the other, from the last century on."""
    return "\n".join(text for year, _, text in speeches() if year >= 1900)


@cache
def _passages() -> tuple[Tensor, Tensor]:
    """Words, of shape (passages, words), and who spoke them: the eight who spoke most."""
    by_speaker: dict[str, list[str]] = {}
    for _, name, text in speeches():
        by_speaker.setdefault(name, []).append(text)
    most = sorted(by_speaker, key=lambda name: (-sum(map(len, by_speaker[name])), name))[:_SPEAKERS]
    tokenizer = _tokenizer()
    rng = np.random.default_rng(0)
    words, speakers = [], []
    for speaker, name in enumerate(most):
        ids = tokenizer(" ".join(by_speaker[name]))
        passages = len(ids) // _WORDS
        for k in rng.choice(passages, _PASSAGES_TRAIN + _PASSAGES_VAL, replace=False):
            words.append(ids[k * _WORDS : (k + 1) * _WORDS])
            speakers.append(speaker)
    return torch.tensor(words), torch.tensor(speakers)


def _tokenizer() -> Callable[[str], list[int]]:
    from tokenizers import Tokenizer  # of the benchmark alone

    made = Tokenizer.from_file(str(fetched(PRETRAINED) / "tokenizer.json"))
    made.no_truncation()
    made.no_padding()
    return lambda text: list(made.encode(text, add_special_tokens=False).ids)


@cache
def _pretrained() -> dict[str, Tensor]:
    from safetensors.torch import load_file  # of the benchmark alone

    weights: dict[str, Tensor] = load_file(fetched(PRETRAINED) / "model.safetensors")
    return weights


def _copy(module: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    for part, parameter in module.named_parameters():
        parameter.copy_(weights[f"{name}.{part}"])
