"""Writes the golden token ids beside it, as the transformers library computes them.

    python tests/golden/tokens/generate.py SHARED

`SHARED` is a directory with `data/` (SST-2 and IMDB as Parquet files, and the vocabularies of
bert-base-uncased and roberta-base). Needs transformers 5 and pyarrow; it ran with transformers
5.23.0 and tokenizers 0.23.3.

* `words/` and `pieces/`: a small WordPiece and a small byte-level BPE vocabulary, trained here on
  the texts below.
* `small.json`: texts and pairs, and their ids and segments under several lengths. Always compared.
* `digests.json`: for every file of real data, the SHA-256 over all ids: for each text the number of
  its tokens and then the tokens, each as four bytes, the least significant first. Compared where
  the data is.
"""

import hashlib
import json
import struct
import sys
from pathlib import Path

import pyarrow.parquet
import transformers
from tokenizers import AddedToken, ByteLevelBPETokenizer, BertWordPieceTokenizer

HERE = Path(__file__).resolve().parent
TEXTS = [
    "A warm, funny, beautifully acted film.",
    "It's not as good as the book; they've cut what wasn't cheap!",
    "One of the best films of 1999 (10/10) ... <br /><br />I'd see it again & again.",
    "",
    "   ",
    "\ttabs\tand\nlines\r\n and  blanks  ",
    "Na\u00efve caf\u00e9s, e\u0301, \u00c5ngstr\u00f6m and STRASSE/stra\u00dfe, \u0130stanbul",
    "\u4e2d\u6587 and \u65e5\u672c\u8a9e mixed with English\u3002",
    "emoji \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 and \u201cquotes\u201d \u2014 dashes\u2026",
    "zero\u200bwidth\u00a0and\ufeffmarks\u0000null\ufffd",
    "supercalifragilisticexpialidocious" * 4,
    "[CLS] names [MASK] of [SEP] tokens <mask> in <s>texts</s> <pad>",
    "x" * 150,
    "a_b-c.d:e@f#g$h%i^j*k+l=m~n`o|p\\q/r",
    "the film was good and the film was good and the film was good and the film was good",
]
PAIRS = [(0, 1), (3, 0), (0, 3), (3, 3), (14, 0), (0, 14), (14, 14), (10, 6), (7, 8)]
LENGTHS = [8, 13, 32, 512]


def train():
    words = BertWordPieceTokenizer(lowercase=True)
    words.train_from_iterator(TEXTS, vocab_size=260, min_frequency=1, show_progress=False)
    (HERE / "words").mkdir(exist_ok=True)
    words.save_model(str(HERE / "words"))
    pieces = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces.train_from_iterator(
        TEXTS, vocab_size=330, min_frequency=2, special_tokens=special, show_progress=False)
    (HERE / "pieces").mkdir(exist_ok=True)
    pieces.save_model(str(HERE / "pieces"))


def bert(directory):
    return transformers.BertTokenizerFast(vocab=str(directory / "vocab.txt"), do_lower_case=True)


def roberta(directory):
    # As the model's own special_tokens_map.json says: the mask takes the blank before it.
    mask = AddedToken("<mask>", lstrip=True, special=True)
    return transformers.RobertaTokenizerFast(
        vocab=str(directory / "vocab.json"), merges=str(directory / "merges.txt"), mask_token=mask)


def small():
    out = {"texts": TEXTS, "pairs": PAIRS, "cases": []}
    for name, tokenizer in (("words", bert(HERE / "words")), ("pieces", roberta(HERE / "pieces"))):
        for length in LENGTHS:
            cut = {"truncation": True, "max_length": length, "return_token_type_ids": True}
            head = tokenizer(TEXTS, **cut)["input_ids"]
            tokenizer.truncation_side = "left"
            tail = tokenizer(TEXTS, **cut)["input_ids"]
            tokenizer.truncation_side = "right"
            pairs = tokenizer([TEXTS[a] for a, _ in PAIRS], [TEXTS[b] for _, b in PAIRS], **cut)
            out["cases"].append({
                "vocabulary": name, "max_length": length, "head": head, "tail": tail,
                "pairs": pairs["input_ids"], "segments": pairs["token_type_ids"],
            })
    text = json.dumps(out, ensure_ascii=True)
    (HERE / "small.json").write_text(text + "\n")


def digest(tokenizer, texts, max_length):
    sha256 = hashlib.sha256()
    for start in range(0, len(texts), 1000):
        part = texts[start:start + 1000]
        for ids in tokenizer(part, truncation=True, max_length=max_length)["input_ids"]:
            sha256.update(struct.pack(f"<I{len(ids)}I", len(ids), *ids))
    return sha256.hexdigest()


def real(shared):
    data = shared / "data"
    files = [("sst2", "sentence", part) for part in ("train", "validation", "test")]
    files += [("imdb", "text", part) for part in ("train", "test")]
    out = []
    for name in ("bert-base-uncased", "roberta-base"):
        make = bert if name.startswith("bert") else roberta
        tokenizer = make(data / "vocab" / name)
        for folder, column, part in files:
            file = f"{folder}/{part}.parquet"
            texts = pyarrow.parquet.read_table(data / file, columns=[column])[column].to_pylist()
            for max_length in (128, 8192):
                out.append({
                    "vocabulary": name, "file": file, "column": column, "rows": len(texts),
                    "max_length": max_length, "sha256": digest(tokenizer, texts, max_length),
                })
    (HERE / "digests.json").write_text(json.dumps(out, indent=1) + "\n")


train()
small()
if len(sys.argv) > 1:
    real(Path(sys.argv[1]))
