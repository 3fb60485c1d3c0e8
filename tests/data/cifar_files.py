"""Small files of CIFAR in both layouts, written independently of the readers."""

import pickle

import numpy as np

RECORDS = {"train": 3, "test": 2}  # in each file
FILES = {
    ("cifar10", "train"): [f"data_batch_{i}" for i in range(1, 6)],
    ("cifar10", "test"): ["test_batch"],
    **{("cifar100", split): [split] for split in RECORDS},
}
BINARY = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}
PYTHON = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}


def draw(name, split, seed=0):
    """Images and labels, file by file."""
    rng = np.random.default_rng([seed, len(name), len(split)])
    count, classes = RECORDS[split], {"cifar10": 10, "cifar100": 100}[name]
    return {
        file: (rng.integers(0, 256, (count, 3, 32, 32), np.uint8), rng.integers(0, classes, count))
        for file in FILES[name, split]
    }


def write_binary(root, name, split, seed=0):
    folder = root / BINARY[name]
    folder.mkdir(parents=True, exist_ok=True)
    for file, (images, labels) in draw(name, split, seed).items():
        with (folder / f"{file}.bin").open("wb") as out:
            for (red, green, blue), label in zip(images, labels, strict=True):
                out.write(bytes([label // 5, label] if name == "cifar100" else [label]))
                out.write(red.tobytes() + green.tobytes() + blue.tobytes())
    return folder


def batch_of(name, images, labels):
    rows = np.stack([np.concatenate([plane.ravel() for plane in image]) for image in images])
    key = b"fine_labels" if name == "cifar100" else b"labels"
    return {key: [int(label) for label in labels], b"data": rows}


PYTHON_2 = (  # as its cPickle wrote in protocol 2, where all text is bytes
    b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x0ftesting batch 1q\x03U%c%bq\x04]q\x05(%be"
    b"U\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85q\t"
    b"U\x01bq\n\x87q\x0bRq\x0c(K\x01K%cM\x00\x0c\x86q\rcnumpy\ndtype\nq\x0eU\x02u1q\x0f"
    b"K\x00K\x01\x87q\x10Rq\x11(K\x03U\x01|q\x12NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x13b\x89T%b%btq\x14bu."
)


def as_python_2(batch):
    (key, labels), (_, data) = batch.items()
    pushed = b"".join(b"K%c" % label for label in labels)
    size = data.size.to_bytes(4, "little")
    return PYTHON_2 % (len(key), key, pushed, len(labels), size, data.tobytes())


# How a batch is pickled: by every protocol of Python 3, with text for keys, and by Python 2.
DUMPS = {f"protocol {p}": lambda batch, p=p: pickle.dumps(batch, p) for p in range(6)}
DUMPS["text keys"] = lambda batch: pickle.dumps({key.decode(): batch[key] for key in batch})
DUMPS["Python 2"] = as_python_2


def write_python(root, name, split, dump=pickle.dumps):
    folder = root / PYTHON[name]
    folder.mkdir(parents=True, exist_ok=True)
    for file, (images, labels) in draw(name, split).items():
        (folder / file).write_bytes(dump(batch_of(name, images, labels)))
    return folder
