"""Operations that are taken together: what is added to a product, and the gates of an LSTM or a GRU.

Each says the same bits as what it replaces: the format defines it by the same operations in the same order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .values import Buffer, Gates, Map, Operation, Product, View
from .values import Function as F  # noqa: N817 (named in nearly every line)


def fused(operations: list[Operation]) -> list[Operation]:
    """The same step in fewer operations."""
    operations = _alive(operations)
    operations = _with_addends(operations)
    return _with_gates(operations)


def _alive(operations: Sequence[Operation]) -> list[Operation]:
    """Without what nobody reads."""
    read: set[Buffer] = set()
    kept: list[Operation] = []
    for operation in reversed(operations):
        if any(view.buffer.pinned or view.buffer in read for view in operation.writes()):
            kept.append(operation)
            read |= {view.buffer for view in operation.reads()}
    return kept[::-1]


def _readers(operations: Sequence[Operation]) -> Counter[Buffer]:
    return Counter(view.buffer for operation in operations for view in operation.reads())


def _with_addends(operations: list[Operation]) -> list[Operation]:
    """`product + a` where nobody else reads the product, twice at most; done when what is added is there."""
    readers = _readers(operations)
    products: dict[Buffer, Product] = {}
    kept: list[Operation] = []
    for operation in operations:
        found = _product_in(operation, products, readers) if isinstance(operation, Map) else None
        if found is not None:
            product, addend = found
            kept = [o for o in kept if o is not product]
            added = [*product.addends, addend]
            y = operation.writes()[0].squeezed()
            operation = Product(product.x, product.rows, product.weights, y, added)
        elif isinstance(operation, Product):
            operation = _without_single_rows(operation)
        if isinstance(operation, Product):
            products[operation.y.buffer] = operation
        kept.append(operation)
    return kept


def _without_single_rows(product: Product) -> Product:
    """Axes of one row left out."""
    shape = product.y.shape
    rows = [i for i, n in enumerate(shape[:-1]) if n > 1]
    x = product.x.permuted([*rows, *range(product.rows, len(product.x.shape))])
    return Product(
        x, len(rows), product.weights, product.y.permuted([*rows, len(shape) - 1]), product.addends
    )


def _product_in(
    operation: Map, products: dict[Buffer, Product], readers: Counter[Buffer]
) -> tuple[Product, View] | None:
    """The product that a map adds to, and the n elements in a row that it adds."""
    if operation.function != F.ADD:
        return None
    for one, other in (operation.operands, operation.operands[::-1]):
        product = products.get(one.buffer)
        if product is None or len(product.addends) > 1 or readers[one.buffer] > 1 or one.buffer.pinned:
            continue
        n = product.y.shape[-1]
        if n == 1 or one.buffer.size != one.size or one.squeezed() != product.y:
            continue
        strides = [s for m, s in zip(other.shape, other.strides, strict=True) if m > 1]
        if strides[-1] == 1 and not any(strides[:-1]):
            return product, View(other.buffer, other.offset, (n,), (1,))
    return None


def _with_gates(operations: list[Operation]) -> list[Operation]:
    """The maps of an LSTM's or a GRU's gates as one operation, where nobody else reads what is between."""
    gates = _Gates(operations)
    replaced: dict[int, Gates] = {}  # of the last map, and the maps that go with it
    gone: set[int] = set()
    for operation in operations:
        if not isinstance(operation, Map):
            continue
        for match in (gates.lstm, gates.gru):
            found = match(operation)
            if found is not None and not any(id(part) in gone for part in found[1]):
                replaced[id(operation)] = found[0]
                gone |= {id(part) for part in found[1]} - {id(operation)}
                break
    return [replaced.get(id(o), o) for o in operations if id(o) not in gone]


class _Mismatch(Exception):  # noqa: N818 (it is no error)
    pass


class _Gates:
    """Patterns of maps over vectors whose elements lie in a row."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._readers = _readers(operations)
        self._makers = {o.out.buffer: o for o in operations if isinstance(o, Map)}
        self._writes = Counter(view.buffer for o in operations for view in o.writes())
        self._places = {id(o): i for i, o in enumerate(operations)}
        self._operations = operations
        self._parts: list[Map] = []

    def _take(self, view: View, function: F, shared: bool = False) -> list[View]:
        """The operands of the map that made this view, which becomes part of the match."""
        maker = self._makers.get(view.buffer)
        whole = (
            maker is not None and maker.out.squeezed() == view.squeezed() and view.size == view.buffer.size
        )
        if maker is None or not whole or maker.function != function or self._writes[view.buffer] != 1:
            raise _Mismatch
        if not shared and (self._readers[view.buffer] != 1 or view.buffer.pinned):
            raise _Mismatch
        self._parts.append(maker)
        return maker.operands

    def _pair(
        self, operands: Sequence[View], function: F, *, shared: bool = False
    ) -> tuple[list[View], View]:
        """Of two operands the one that such a map made, as its operands, and the other."""
        for one, other in (operands, operands[::-1]):
            before = len(self._parts)
            try:
                return self._take(one, function, shared), other
            except _Mismatch:
                del self._parts[before:]
        raise _Mismatch

    def lstm(self, last: Map) -> tuple[Gates, list[Map]] | None:
        """`h = s(o) * tanh(c'), c' = s(f) * c + s(i) * tanh(g)`, of which c' may have other readers later."""
        self._parts = [last]
        try:
            if last.function != F.MULTIPLY:
                raise _Mismatch
            (inner,), other = self._pair(last.operands, F.TANH)
            (o,) = self._take(other, F.SIGMOID)
            terms = self._take(inner, F.ADD, shared=True)
            added = self._parts[-1]
            for one, two in (terms, terms[::-1]):
                before = len(self._parts)
                try:
                    (g,), gate = self._pair(self._take(one, F.MULTIPLY), F.TANH)
                    (i,) = self._take(gate, F.SIGMOID)
                    (f,), c = self._pair(self._take(two, F.MULTIPLY), F.SIGMOID)
                    break
                except _Mismatch:
                    del self._parts[before:]
            else:
                raise _Mismatch
        except _Mismatch:
            return None
        between = self._operations[self._places[id(added)] + 1 : self._places[id(last)]]
        early = any(
            v.buffer is added.out.buffer for op in between for v in op.reads() if op not in self._parts
        )
        views = _vectors([i, f, g, o, c]), _vectors([added.out, last.out])
        if early or views[0] is None or views[1] is None:
            return None
        return Gates(True, views[0], views[1]), self._parts

    def gru(self, last: Map) -> tuple[Gates, list[Map]] | None:
        """`h' = z * h + (1 - z) * tanh(xg + r * hg)`, with z and r sigmoids of sums."""
        self._parts = [last]
        try:
            if last.function != F.ADD:
                raise _Mismatch
            for one, two in (last.operands, last.operands[::-1]):
                before = len(self._parts)
                try:
                    (first, minus), candidate = self._pair(self._take(one, F.MULTIPLY), F.SUBTRACT)
                    zh = self._take(two, F.MULTIPLY)
                    break
                except _Mismatch:
                    del self._parts[before:]
            else:
                raise _Mismatch
            if first.buffer.data is None or (first.buffer.data != 1.0).any():
                raise _Mismatch
            if self._readers[minus.buffer] != 2 or minus.buffer.pinned:
                raise _Mismatch
            h = zh[1] if zh[0].buffer is minus.buffer else zh[0]
            if minus.buffer not in (zh[0].buffer, zh[1].buffer):
                raise _Mismatch
            (z,) = self._take(minus, F.SIGMOID, shared=True)
            xz, hz = self._take(z, F.ADD)
            (g,) = self._take(candidate, F.TANH)
            terms = self._take(g, F.ADD)
            scaled, xg = self._pair(terms, F.MULTIPLY)
            (r,), hg = self._pair(scaled, F.SIGMOID)
            xr, hr = self._take(r, F.ADD)
        except _Mismatch:
            return None
        views = _vectors([xz, xr, xg, hz, hr, hg, h]), _vectors([last.out])
        if views[0] is None or views[1] is None:
            return None
        return Gates(False, views[0], views[1]), self._parts


def _vectors(views: Sequence[View]) -> list[View] | None:
    """The views as vectors; None where the elements of one are not in a row."""
    flat = [view.squeezed() for view in views]
    sizes = {view.shape for view in flat}
    if len(sizes) != 1 or any(len(view.shape) != 1 or view.strides != (1,) for view in flat):
        return None
    return flat
