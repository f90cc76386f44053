"""Reading SavedModel folders of any maker: only the protobuf, nothing is loaded or run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from steprnn.runtime.errors import BundleError
from steprnn.runtime.pairing import Declared, pairs_by_name
from steprnn.runtime.spec import SIGNATURES

from . import hazards
from .graph_def import GraphReader
from .report import Inspection

NO_SIGNATURES = ("__saved_model_init_op",)


def read(path: Path, trust: bool = False) -> Inspection:
    """Inspect a SavedModel folder; raises `BundleError` where it is not one."""
    record = saved_model_pb2.SavedModel()
    try:
        record.ParseFromString((path / "saved_model.pb").read_bytes())
    except DecodeError as error:
        raise BundleError(f"{path / 'saved_model.pb'} is damaged ({error})") from None
    signatures = {
        name: signature
        for meta in record.meta_graphs
        for name, signature in meta.signature_def.items()
        if name not in NO_SIGNATURES
    }
    if not signatures:
        raise BundleError(f"{path} has no signature; expected a SavedModel written for serving")
    known = [name for name in SIGNATURES if name in signatures]
    name = [*known, *signatures][0]
    signature, meta = signatures[name], record.meta_graphs[0]
    # A SavedModel is bound by name alone; its maps have no order but that of the names.
    inputs, outputs = (
        tuple(_declared(n, part[n]) for n in sorted(part)) for part in (signature.inputs, signature.outputs)
    )
    pairs = tuple(pairs_by_name(inputs, outputs))
    reader = GraphReader(meta.graph_def, [t.name for t in signature.outputs.values()])
    found = (*reader.hazards(), *hazards.of_tensors(inputs, outputs, pairs))
    version = meta.meta_info_def.tensorflow_version
    return Inspection(
        str(path),
        "SavedModel",
        f"signature {name!r}, made by TensorFlow {version}",
        inputs,
        outputs,
        pairs,
        dict(reader.operators),
        reader.weights,
        found,
        (f"signatures: {', '.join(map(repr, signatures))}",) if len(signatures) > 1 else (),
    )


def _declared(name: str, tensor: Any) -> Declared:
    dims = tensor.tensor_shape
    shape = None if dims.unknown_rank else tuple(None if d.size < 0 else int(d.size) for d in dims.dim)
    return Declared(name, tf.as_dtype(tensor.dtype).name, shape)
